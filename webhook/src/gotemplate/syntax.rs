//! The parts of a parsed template, and what a function is.
//!
//! Only shapes; parser and execution give them meaning.

use std::sync::Arc;

use super::value::Value;

/// A place in a text, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// Line.
    pub(crate) line: usize,
    /// Column, in characters.
    pub(crate) column: usize,
}

/// What a function gives: a value, or why there is none.
pub(crate) type Made = Result<Value, String>;

/// A call of a function.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// The arguments; as many as the function takes.
    pub(crate) args: &'a [Value],
    /// The data of the whole template.
    pub(crate) data: &'a Value,
}

/// A function.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: &'static str,
    /// Fewest arguments.
    pub(crate) least: usize,
    /// Most arguments.
    pub(crate) most: usize,
    /// What it does.
    pub(crate) run: fn(&Call<'_>) -> Made,
    /// How it is called.
    pub(crate) how: How,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It reads its arguments and makes something of its own.
    Reads,
    /// It gives one of its arguments, a part of one, or something small.
    Passes,
    /// It makes a list or a map of what it is given.
    Builds,
    /// It tries a pattern, the first argument, on a text, the second.
    Matches,
    /// Its result also becomes the value of the variable that its first argument is: what Go
    /// does by changing a map in place.
    Changes,
    /// `and`: arguments after the first false one are not evaluated.
    And,
    /// `or`: arguments after the first true one are not evaluated.
    Or,
}

impl Entry {
    /// A function that takes `least` to `most` arguments and reads them.
    pub(crate) const fn new(
        name: &'static str,
        (least, most): (usize, usize),
        run: fn(&Call<'_>) -> Made,
    ) -> Self {
        Self { name, least, most, run, how: How::Reads }
    }

    /// Called in another way.
    pub(crate) const fn called(mut self, how: How) -> Self {
        self.how = how;
        self
    }
}

/// As many arguments as there are.
pub(crate) const ANY: usize = usize::MAX;

/// A list of nodes.
pub(super) type Body = Vec<Node>;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(Arc<str>, At),
    /// A pipeline; its value is written unless it sets a variable.
    Action(Pipe),
    If(Vec<(Pipe, Body)>, Body),
    With(Vec<(Pipe, Body)>, Body),
    Range(Pipe, Body, Body),
    Template(Arc<str>, Option<Pipe>, At),
    Break,
    Continue,
}

/// Commands, the value of each the last argument of the next.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) at: At,
    /// Slots of the variables that it declares or sets.
    pub(super) variables: Vec<usize>,
    /// Whether the variables are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// An operand, and arguments if it is a function.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) at: At,
    pub(super) operands: Vec<Operand>,
}

/// An operand and its place.
#[derive(Debug)]
pub(super) struct Operand {
    pub(super) at: At,
    pub(super) term: Term,
    /// Fields of it.
    pub(super) fields: Vec<Arc<str>>,
}

/// An operand without fields.
#[derive(Debug)]
pub(super) enum Term {
    Dot,
    Literal(Value),
    /// The word `nil`, which is only an argument.
    Nil,
    Variable(usize),
    Function(&'static Entry),
    Pipe(Box<Pipe>),
}
