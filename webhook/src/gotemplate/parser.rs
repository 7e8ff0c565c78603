//! Tokens to a template.
//!
//! Names are resolved here: a function that is not known, a variable that is not declared and a
//! `break` outside a `range` are refused before anything is rendered. Nesting is bounded, chains
//! (`else if`, fields, arguments) are loops. Must not know values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::vec::IntoIter;

use super::lexer::{Token, What};
use super::limits::NESTING;
use super::syntax::{At, Body, Command, Entry, Node, Operand, Pipe, Term};
use super::value::Value;
use super::{TemplateError, number, sprig};

/// A parsed text.
#[derive(Debug)]
pub(super) struct Parsed {
    /// What is rendered.
    pub(super) main: Body,
    /// What is defined under a name.
    pub(super) defined: BTreeMap<Arc<str>, Body>,
}

type Parse<T> = Result<T, TemplateError>;

/// Reads a whole text; `own` are functions of the caller.
pub(super) fn parse(tokens: Vec<Token>, own: &'static [Entry]) -> Parse<Parsed> {
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        at: At { line: 1, column: 1 },
        own,
        slots: vec!["$".to_owned()],
        defined: BTreeMap::new(),
        nesting: 0,
        ranges: 0,
    };
    let (main, stop) = parser.body(true)?;
    match stop {
        Stop::Text => Ok(Parsed { main, defined: parser.defined }),
        Stop::End(at) => Err(error(at, "unexpected {{end}}")),
        Stop::Else(at) => Err(error(at, "unexpected {{else}}")),
    }
}

fn error(at: At, reason: impl Into<String>) -> TemplateError {
    TemplateError { at, reason: reason.into() }
}

/// Why a body ends.
enum Stop {
    /// The text ends.
    Text,
    End(At),
    /// `else`; what follows the word is still to be read.
    Else(At),
}

/// What ends a pipeline.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Action,
    Parenthesis,
}

struct Parser {
    tokens: std::iter::Peekable<IntoIter<Token>>,
    /// Place of the last token.
    at: At,
    own: &'static [Entry],
    /// Variables in scope; their places are their slots.
    slots: Vec<String>,
    defined: BTreeMap<Arc<str>, Body>,
    nesting: usize,
    ranges: usize,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.next()?;
        self.at = token.at;
        Some(token)
    }

    fn skip_space(&mut self) {
        while self.tokens.next_if(|token| token.what == What::Space).is_some() {}
    }

    /// What comes after spaces.
    fn peek(&mut self) -> Option<&What> {
        self.skip_space();
        self.tokens.peek().map(|token| &token.what)
    }

    fn close(&mut self, context: &str) -> Parse<()> {
        self.skip_space();
        match self.next() {
            Some(Token { what: What::Close, .. }) => Ok(()),
            Some(token) => {
                let reason = format!("unexpected {} in {context}", token.what.shown());
                Err(error(token.at, reason))
            }
            None => Err(error(self.at, "unclosed action")),
        }
    }

    fn deeper(&mut self) -> Parse<()> {
        self.nesting += 1;
        if self.nesting > NESTING {
            return Err(error(self.at, format!("nested more than {NESTING} levels deep")));
        }
        Ok(())
    }

    /// Nodes up to the end of the text, or an `end` or `else`.
    fn body(&mut self, top: bool) -> Parse<(Body, Stop)> {
        let mut body = Body::new();
        loop {
            let Some(token) = self.next() else { return Ok((body, Stop::Text)) };
            let at = token.at;
            if let What::Text(text) = token.what {
                body.push(Node::Text(text.into(), at));
                continue;
            }
            let word = match self.peek() {
                Some(What::Word(word)) => word.clone(),
                _ => String::new(),
            };
            match word.as_str() {
                "end" => {
                    self.next();
                    self.close("end")?;
                    return Ok((body, Stop::End(at)));
                }
                "else" => {
                    self.next();
                    return Ok((body, Stop::Else(at)));
                }
                "define" if top => self.define()?,
                "define" => {
                    return Err(error(at, "unexpected {{define}}: it stands inside an action"));
                }
                _ => body.push(self.node(&word)?),
            }
        }
    }

    /// An action that begins with this word.
    fn node(&mut self, word: &str) -> Parse<Node> {
        if !["if", "with", "range", "template", "block", "break", "continue"].contains(&word) {
            return self.pipe("command", Ends::Action).map(Node::Action);
        }
        self.next();
        match word {
            "if" => self.branches("if").map(|(branches, rest)| Node::If(branches, rest)),
            "with" => self.branches("with").map(|(branches, rest)| Node::With(branches, rest)),
            "range" => self.range(),
            "template" => self.template(),
            "block" => self.block(),
            _ => {
                let at = self.at;
                self.close(word)?;
                if self.ranges == 0 {
                    return Err(error(at, format!("{{{{{word}}}}} outside {{{{range}}}}")));
                }
                Ok(if word == "break" { Node::Break } else { Node::Continue })
            }
        }
    }

    /// Conditions and bodies of `if` or `with`, and the body of `else`.
    fn branches(&mut self, keyword: &str) -> Parse<(Vec<(Pipe, Body)>, Body)> {
        self.deeper()?;
        let opened = self.at;
        let mark = self.slots.len();
        let mut branches = Vec::new();
        let mut otherwise = Body::new();
        loop {
            let pipe = self.pipe(keyword, Ends::Action)?;
            let scope = self.slots.len();
            let (body, stop) = self.body(false)?;
            self.slots.truncate(scope);
            branches.push((pipe, body));
            match stop {
                Stop::End(_) => break,
                Stop::Text => return Err(unended(opened, keyword)),
                Stop::Else(_) => {}
            }
            if matches!(self.peek(), Some(What::Word(word)) if word == keyword) {
                self.next();
                continue;
            }
            otherwise = self.otherwise(opened, keyword)?;
            break;
        }
        self.slots.truncate(mark);
        self.nesting -= 1;
        Ok((branches, otherwise))
    }

    /// The body of an `else`, up to its `end`.
    fn otherwise(&mut self, opened: At, keyword: &str) -> Parse<Body> {
        self.close("else")?;
        match self.body(false)? {
            (body, Stop::End(_)) => Ok(body),
            (_, Stop::Else(at)) => Err(error(at, "expected end; found {{else}}")),
            (_, Stop::Text) => Err(unended(opened, keyword)),
        }
    }

    fn range(&mut self) -> Parse<Node> {
        self.deeper()?;
        let opened = self.at;
        let mark = self.slots.len();
        let pipe = self.pipe("range", Ends::Action)?;
        self.ranges += 1;
        let (body, stop) = self.body(false)?;
        self.ranges -= 1;
        self.slots.truncate(mark);
        let otherwise = match stop {
            Stop::End(_) => Body::new(),
            Stop::Else(_) => self.otherwise(opened, "range")?,
            Stop::Text => return Err(unended(opened, "range")),
        };
        self.slots.truncate(mark);
        self.nesting -= 1;
        Ok(Node::Range(pipe, body, otherwise))
    }

    /// A quoted name.
    fn name(&mut self, context: &str) -> Parse<Arc<str>> {
        self.skip_space();
        match self.next() {
            Some(Token { what: What::Quoted(name), .. }) => Ok(name.into()),
            Some(token) => {
                let reason = format!("unexpected {} in {context}", token.what.shown());
                Err(error(token.at, reason))
            }
            None => Err(error(self.at, "unclosed action")),
        }
    }

    fn template(&mut self) -> Parse<Node> {
        let at = self.at;
        let name = self.name("template clause")?;
        if self.peek() == Some(&What::Close) {
            self.next();
            return Ok(Node::Template(name, None, at));
        }
        let pipe = self.pipe("template clause", Ends::Action)?;
        Ok(Node::Template(name, Some(pipe), at))
    }

    /// A template of its own: it sees no variables, and no `range` around it.
    fn separate(&mut self, context: &str) -> Parse<Body> {
        self.deeper()?;
        let opened = self.at;
        let slots = std::mem::replace(&mut self.slots, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (body, stop) = self.body(false)?;
        self.slots = slots;
        self.ranges = ranges;
        self.nesting -= 1;
        match stop {
            Stop::End(_) => Ok(body),
            Stop::Else(at) => Err(error(at, format!("unexpected {{{{else}}}} in {context}"))),
            Stop::Text => Err(unended(opened, context)),
        }
    }

    fn define(&mut self) -> Parse<()> {
        self.next();
        let name = self.name("define clause")?;
        self.close("define clause")?;
        let body = self.separate("define")?;
        self.defined.insert(name, body);
        Ok(())
    }

    fn block(&mut self) -> Parse<Node> {
        let at = self.at;
        let name = self.name("block clause")?;
        let pipe = self.pipe("block clause", Ends::Action)?;
        let body = self.separate("block")?;
        self.defined.insert(Arc::clone(&name), body);
        Ok(Node::Template(name, Some(pipe), at))
    }

    /// A pipeline and what ends it.
    fn pipe(&mut self, context: &str, ends: Ends) -> Parse<Pipe> {
        self.skip_space();
        let at = self.tokens.peek().map_or(self.at, |token| token.at);
        let mut pipe = Pipe { at, variables: Vec::new(), declares: false, commands: Vec::new() };
        let (names, first) = self.declaration(context, &mut pipe)?;
        let mut command = Command { at, operands: first.into_iter().collect() };
        loop {
            if command.operands.is_empty() {
                command.at = self.tokens.peek().map_or(self.at, |token| token.at);
            }
            self.operands(&mut command)?;
            let Some(token) = self.next() else { return Err(error(at, "unclosed action")) };
            let (last, piped) = match (&token.what, ends) {
                (What::Close, Ends::Action) | (What::Sign(')'), Ends::Parenthesis) => (true, false),
                (What::Sign('|'), _) => (false, true),
                _ => (false, false),
            };
            if !last && !piped {
                let reason = format!("unexpected {} in {context}", token.what.shown());
                return Err(error(token.at, reason));
            }
            if command.operands.is_empty() {
                return Err(error(token.at, format!("missing value for {context}")));
            }
            let stage = pipe.commands.len() + 1;
            check_stage(&command, stage)?;
            pipe.commands.push(command);
            if last {
                break;
            }
            command = Command { at: self.at, operands: Vec::new() };
        }
        // Only now: `$x := $x` means the outer one.
        if pipe.declares {
            for name in names {
                pipe.variables.push(self.slots.len());
                self.slots.push(name);
            }
        }
        Ok(pipe)
    }

    /// `$x :=`, `$x =`, or in a range `$i, $x :=`; else the operand that a variable begins.
    fn declaration(
        &mut self,
        context: &str,
        pipe: &mut Pipe,
    ) -> Parse<(Vec<String>, Option<Operand>)> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let Some(What::Variable(name)) = self.peek() else {
                if names.is_empty() {
                    return Ok((names, None));
                }
                return Err(error(
                    self.at,
                    format!("range can only initialize variables, in {context}"),
                ));
            };
            let name = name.clone();
            self.next();
            let at = self.at;
            // A field belongs to the variable only if it follows at once.
            let spaced = self.tokens.peek().is_some_and(|token| token.what == What::Space);
            match self.peek() {
                Some(What::Declare | What::Sign('=')) => {
                    pipe.declares = self.peek() == Some(&What::Declare);
                    self.next();
                    names.push(name);
                    if !pipe.declares {
                        for name in &names {
                            pipe.variables.push(self.slot(name, at)?);
                        }
                    }
                    return Ok((names, None));
                }
                Some(What::Sign(',')) if context == "range" && names.is_empty() => {
                    self.next();
                    names.push(name);
                }
                Some(What::Sign(',')) => {
                    return Err(error(at, format!("too many declarations in {context}")));
                }
                _ if names.is_empty() => {
                    let term = Term::Variable(self.slot(&name, at)?);
                    let fields = if spaced { Vec::new() } else { self.fields() };
                    return Ok((names, Some(Operand { at, term, fields })));
                }
                _ => return Err(error(at, format!("no value for variables in {context}"))),
            }
        }
    }

    fn slot(&self, name: &str, at: At) -> Parse<usize> {
        let found = self.slots.iter().rposition(|known| known == name);
        found.ok_or_else(|| error(at, format!("undefined variable {name:?}")))
    }

    /// Operands up to something that ends a command.
    fn operands(&mut self, command: &mut Command) -> Parse<()> {
        // After a declaration's operand a space may have been taken already.
        let mut spaced = true;
        loop {
            let space = self.tokens.peek().is_some_and(|token| token.what == What::Space);
            spaced |= space;
            match self.peek() {
                None | Some(What::Close | What::Sign('|' | ')')) => return Ok(()),
                Some(what) if !spaced => {
                    let shown = what.shown();
                    return Err(error(self.at, format!("unexpected {shown} in operand")));
                }
                Some(_) => command.operands.push(self.operand()?),
            }
            spaced = false;
        }
    }

    fn fields(&mut self) -> Vec<Arc<str>> {
        let mut fields = Vec::new();
        while let Some(token) = self.tokens.next_if(|token| matches!(token.what, What::Field(_))) {
            if let What::Field(name) = token.what {
                fields.push(name.into());
            }
        }
        fields
    }

    fn operand(&mut self) -> Parse<Operand> {
        let Some(Token { at, what }) = self.next() else {
            return Err(error(self.at, "unclosed action"));
        };
        let mut fields = Vec::new();
        let mut literal = false;
        let term = match what {
            What::Dot => Term::Dot,
            What::Field(name) => {
                fields.push(name.into());
                Term::Dot
            }
            What::Variable(name) => Term::Variable(self.slot(&name, at)?),
            What::Sign('(') => {
                self.deeper()?;
                let pipe = self.pipe("parenthesized pipeline", Ends::Parenthesis)?;
                self.nesting -= 1;
                if !pipe.variables.is_empty() {
                    return Err(error(at, "a variable is set inside parentheses"));
                }
                Term::Pipe(Box::new(pipe))
            }
            What::Word(name) => self.word(&name, at)?,
            What::Quoted(text) => {
                literal = true;
                Term::Literal(Value::from(text))
            }
            What::Number(text) => {
                literal = true;
                Term::Literal(number::literal(&text).map_err(|reason| error(at, reason))?)
            }
            other => return Err(error(at, format!("unexpected {} in operand", other.shown()))),
        };
        fields.append(&mut self.fields());
        if !fields.is_empty() && (literal || matches!(term, Term::Nil | Term::Literal(_))) {
            return Err(error(at, "a literal has no fields"));
        }
        Ok(Operand { at, term, fields })
    }

    fn word(&self, name: &str, at: At) -> Parse<Term> {
        match name {
            "true" | "false" => return Ok(Term::Literal(Value::Bool(name == "true"))),
            "nil" => return Ok(Term::Nil),
            _ => {}
        }
        match super::library(self.own, name) {
            Some(entry) => Ok(Term::Function(entry)),
            None => Err(error(at, sprig::why_not(name))),
        }
    }
}

fn unended(at: At, keyword: &str) -> TemplateError {
    error(at, format!("{keyword} has no {{{{end}}}}"))
}

/// What a value is piped into must be a function or a field.
fn check_stage(command: &Command, stage: usize) -> Parse<()> {
    let first = &command.operands[0];
    let literal = matches!(first.term, Term::Nil | Term::Literal(_))
        || (matches!(first.term, Term::Dot) && first.fields.is_empty());
    if stage > 1 && literal {
        let reason = format!("non executable command in pipeline stage {stage}");
        return Err(error(first.at, reason));
    }
    Ok(())
}
