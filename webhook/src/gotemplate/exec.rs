//! Rendering: nodes and data to text.
//!
//! Every node, call and iteration is paid for, and nesting is counted, so that rendering ends.
//! Must not know functions by name.

use std::sync::Arc;

use super::TemplateError;
use super::format::display;
use super::limits::{DEPTH, Meter};
use super::parser::Parsed;
use super::syntax::{At, Body, Call, Command, Entry, How, Made, Node, Operand, Pipe, Term};
use super::value::{Dict, Value};

/// Renders a template.
pub(super) fn run(parsed: &Parsed, data: &Value) -> Result<String, TemplateError> {
    let mut run = Run {
        parsed,
        data: data.clone(),
        meter: Meter::new(),
        out: String::new(),
        variables: vec![data.clone()],
        base: 0,
        depth: 0,
    };
    run.body(&parsed.main, data)?;
    Ok(run.out)
}

type Done<T = ()> = Result<T, TemplateError>;

/// How a body ended.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    parsed: &'a Parsed,
    data: Value,
    meter: Meter,
    out: String,
    /// Variables of all templates that are being rendered; those of the innermost from `base`.
    variables: Vec<Value>,
    base: usize,
    depth: usize,
}

fn fail(at: At) -> impl Fn(String) -> TemplateError {
    move |reason| TemplateError { at, reason }
}

impl<'a> Run<'a> {
    fn deeper(&mut self, at: At) -> Done {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(fail(at)(format!("nested more than {DEPTH} levels deep")));
        }
        Ok(())
    }

    fn body(&mut self, body: &'a Body, dot: &Value) -> Done<Flow> {
        for node in body {
            let flow = self.node(node, dot)?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Done<Flow> {
        match node {
            Node::Text(text, at) => self.write(text, *at)?,
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.meter.step(value.bytes()).map_err(fail(pipe.at))?;
                    let text = display(&value).map_err(fail(pipe.at))?;
                    self.write(&text, pipe.at)?;
                } else {
                    self.set(pipe, value);
                }
            }
            Node::If(branches, otherwise) => return self.branch((branches, otherwise), dot, false),
            Node::With(branches, otherwise) => {
                return self.branch((branches, otherwise), dot, true);
            }
            Node::Range(pipe, body, otherwise) => return self.range(pipe, (body, otherwise), dot),
            Node::Template(name, pipe, at) => self.template(name, (pipe.as_ref(), *at), dot)?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn write(&mut self, text: &str, at: At) -> Done {
        self.meter.step(text.len()).map_err(fail(at))?;
        self.meter.write(text.len()).map_err(fail(at))?;
        self.out.push_str(text);
        Ok(())
    }

    /// Gives a pipeline's variable its value.
    fn set(&mut self, pipe: &Pipe, value: Value) {
        let Some(slot) = pipe.variables.first() else { return };
        if pipe.declares {
            self.variables.push(value);
        } else if let Some(variable) = self.variables.get_mut(self.base + slot) {
            *variable = value;
        }
    }

    fn branch(
        &mut self,
        (branches, otherwise): (&'a Vec<(Pipe, Body)>, &'a Body),
        dot: &Value,
        with: bool,
    ) -> Done<Flow> {
        let mark = self.variables.len();
        let mut taken = (otherwise, None);
        for (pipe, body) in branches {
            let value = self.pipe(pipe, dot)?;
            self.set(pipe, value.clone());
            if value.is_true() {
                taken = (body, with.then_some(value));
                break;
            }
        }
        let at = branches.first().map_or(At { line: 0, column: 0 }, |(pipe, _)| pipe.at);
        self.deeper(at)?;
        let flow = self.body(taken.0, taken.1.as_ref().unwrap_or(dot))?;
        self.depth -= 1;
        self.variables.truncate(mark);
        Ok(flow)
    }

    fn range(
        &mut self,
        pipe: &'a Pipe,
        (body, otherwise): (&'a Body, &'a Body),
        dot: &Value,
    ) -> Done<Flow> {
        let over = self.pipe(pipe, dot)?;
        self.deeper(pipe.at)?;
        let flow = match &over {
            Value::List(list) if !list.items.is_empty() => {
                let elements = (0i64..).map(Value::Int).zip(list.items.iter().cloned());
                self.iterate(pipe, body, elements)
            }
            Value::Map(map) if !map.entries.is_empty() => {
                let entries = map.entries.iter();
                let entries = entries.map(|(key, value)| (Value::Text(key.clone()), value.clone()));
                self.iterate(pipe, body, entries)
            }
            Value::Int(count) if *count > 0 && pipe.variables.len() < 2 => {
                self.iterate(pipe, body, (0..*count).map(|n| (Value::Int(n), Value::Int(n))))
            }
            Value::Int(count) if *count > 0 => Err(fail(pipe.at)(format!(
                "can't use {count} to iterate over more than one variable"
            ))),
            Value::List(_) | Value::Map(_) | Value::Int(_) | Value::Nil => {
                let flow = self.body(otherwise, dot)?;
                self.depth -= 1;
                return Ok(flow);
            }
            other => {
                Err(fail(pipe.at)(format!("range can't iterate over a {}", other.type_name())))
            }
        };
        self.depth -= 1;
        flow.map(|()| Flow::On)
    }

    fn iterate(
        &mut self,
        pipe: &'a Pipe,
        body: &'a Body,
        elements: impl Iterator<Item = (Value, Value)>,
    ) -> Done {
        let mark = self.variables.len();
        for (key, value) in elements {
            self.meter.step(0).map_err(fail(pipe.at))?;
            let given = if pipe.variables.len() > 1 {
                vec![key, value.clone()]
            } else {
                vec![value.clone()]
            };
            for (slot, given) in pipe.variables.iter().zip(given) {
                if pipe.declares {
                    self.variables.push(given);
                } else if let Some(variable) = self.variables.get_mut(self.base + slot) {
                    *variable = given;
                }
            }
            let flow = self.body(body, &value)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn template(
        &mut self,
        name: &Arc<str>,
        (pipe, at): (Option<&'a Pipe>, At),
        dot: &Value,
    ) -> Done {
        let Some(body) = self.parsed.defined.get(name) else {
            return Err(fail(at)(format!("template {name:?} is not defined")));
        };
        let dot = match pipe {
            Some(pipe) => {
                let value = self.pipe(pipe, dot)?;
                self.set(pipe, value.clone());
                value
            }
            None => Value::Nil,
        };
        self.meter.step(0).map_err(fail(at))?;
        self.deeper(at)?;
        let base = std::mem::replace(&mut self.base, self.variables.len());
        self.variables.push(dot.clone());
        self.body(body, &dot)?;
        self.variables.truncate(self.base);
        self.base = base;
        self.depth -= 1;
        Ok(())
    }

    /// The value of a pipeline; its variables are for the caller.
    fn pipe(&mut self, pipe: &'a Pipe, dot: &Value) -> Done<Value> {
        self.deeper(pipe.at)?;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(command, dot, value)?);
        }
        self.depth -= 1;
        Ok(value.unwrap_or_default())
    }

    fn command(&mut self, command: &'a Command, dot: &Value, last: Option<Value>) -> Done<Value> {
        self.meter.step(0).map_err(fail(command.at))?;
        let Some((first, arguments)) = command.operands.split_first() else {
            return Ok(Value::Nil);
        };
        if let Term::Function(entry) = first.term {
            return self.call((entry, first), (arguments, last), dot);
        }
        if !arguments.is_empty() || last.is_some() {
            return Err(fail(first.at)("can't give arguments to what is no function".to_owned()));
        }
        if matches!(first.term, Term::Nil) {
            return Err(fail(first.at)("nil is not a command".to_owned()));
        }
        self.operand(first, dot)
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value) -> Done<Value> {
        let value = match &operand.term {
            Term::Dot => dot.clone(),
            Term::Literal(value) => value.clone(),
            Term::Nil => Value::Nil,
            Term::Variable(slot) => {
                self.variables.get(self.base + slot).cloned().unwrap_or_default()
            }
            Term::Function(entry) => return self.call((*entry, operand), (&[], None), dot),
            Term::Pipe(pipe) => self.pipe(pipe, dot)?,
        };
        self.fields(value, operand)
    }

    /// Fields of a value. What a map does not have ends the chain with nothing, as in Go.
    fn fields(&mut self, mut value: Value, operand: &Operand) -> Done<Value> {
        for name in &operand.fields {
            self.meter.step(0).map_err(fail(operand.at))?;
            let absent = matches!(&value, Value::Map(map) if map.lacks(name));
            value = value.field(name).map_err(fail(operand.at))?;
            if absent {
                return Ok(value);
            }
        }
        Ok(value)
    }

    fn call(
        &mut self,
        (entry, first): (&'static Entry, &'a Operand),
        (operands, last): (&'a [Operand], Option<Value>),
        dot: &Value,
    ) -> Done<Value> {
        let at = first.at;
        let count = operands.len() + usize::from(last.is_some());
        if count < entry.least || count > entry.most {
            return Err(fail(at)(wrong_count(entry, count)));
        }
        let mut args = Vec::with_capacity(count);
        let decides = match entry.how {
            How::And => Some(false),
            How::Or => Some(true),
            _ => None,
        };
        for operand in operands {
            let value = self.operand(operand, dot)?;
            if decides == Some(value.is_true()) {
                return self.fields(value, first);
            }
            args.push(value);
        }
        args.extend(last);
        self.meter.step(reads(entry, &args)).map_err(fail(at))?;
        let failed = |reason: String| fail(at)(format!("{}: {reason}", entry.name));
        let made = (entry.run)(&Call { args: &args, data: &self.data }).map_err(failed)?;
        let makes = match entry.how {
            How::Reads | How::Matches => made.bytes(),
            How::Builds | How::Changes => made.own_bytes(),
            How::Passes | How::And | How::Or => 0,
        };
        self.meter.make(makes).map_err(fail(at))?;
        if let (How::Changes, Some(Operand { term: Term::Variable(slot), fields, .. })) =
            (entry.how, operands.first())
            && let Some(variable) = self.variables.get_mut(self.base + slot)
        {
            *variable = changed(variable, fields, &made).map_err(failed)?;
        }
        self.fields(made, first)
    }
}

/// Bytes that a call reads; a pattern is tried everywhere, after it was compiled.
fn reads(entry: &Entry, args: &[Value]) -> usize {
    let all = args.iter().fold(0, |sum: usize, arg| sum.saturating_add(arg.bytes()));
    match (entry.how, args) {
        (How::Reads, _) => all,
        (How::Matches, [pattern, text, ..]) => {
            pattern.bytes().saturating_mul(text.bytes()).saturating_mul(8).saturating_add(32_768)
        }
        _ => 0,
    }
}

fn wrong_count(entry: &Entry, count: usize) -> String {
    let wanted = match (entry.least, entry.most) {
        (least, most) if least == most => format!("{least}"),
        (least, usize::MAX) => format!("at least {least}"),
        (least, most) => format!("{least} to {most}"),
    };
    format!("wrong number of args for {}: want {wanted}, got {count}", entry.name)
}

/// A value in which the one below `fields` is another.
fn changed(value: &Value, fields: &[Arc<str>], made: &Value) -> Made {
    let Some((name, rest)) = fields.split_first() else { return Ok(made.clone()) };
    let Value::Map(map) = value else { return Ok(value.clone()) };
    let mut entries = map.entries.clone();
    let inner = changed(&map.at(name), rest, made)?;
    entries.insert(name.clone(), inner);
    Value::map(entries, map.kind)
}

impl Dict {
    /// Whether a plain map has no such entry.
    fn lacks(&self, name: &str) -> bool {
        !matches!(self.kind, super::value::Kind::Record(_)) && !self.entries.contains_key(name)
    }
}
