//! Values of templates.
//!
//! Immutable and shared, so that passing one around costs nothing. Each list and map knows how
//! deep it is and how long it would be if it were written out, so that nothing that a template
//! makes can be too large to walk. Must not know functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limits::VALUE_DEPTH;

/// A value.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Value {
    /// Nothing; also what is not there.
    #[default]
    Nil,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// A list.
    List(Arc<List>),
    /// A map, or a Go struct.
    Map(Arc<Dict>),
}

/// A list.
#[derive(Debug, PartialEq)]
pub(crate) struct List {
    /// Its elements.
    pub(crate) items: Vec<Value>,
    size: Size,
}

/// A map, by the names that JSON has.
#[derive(Debug, PartialEq)]
pub(crate) struct Dict {
    /// Its entries.
    pub(crate) entries: BTreeMap<Arc<str>, Value>,
    /// What it is in Go.
    pub(crate) kind: Kind,
    size: Size,
}

/// What a map is in Go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// `map[string]any`.
    Any,
    /// `map[string]string`: what is not there is the empty text.
    Texts,
    /// A struct.
    Record(&'static Record),
}

impl PartialEq for Kind {
    fn eq(&self, _: &Self) -> bool {
        // Values are the same by what they hold.
        true
    }
}

/// A Go struct: how fields are named, and what an absent one is.
pub(crate) struct Record {
    /// Name of the type.
    pub(crate) name: &'static str,
    /// JSON name and zero value of the field of a Go name; `None`: there is no such field.
    pub(crate) field: fn(&str) -> Option<(String, Value)>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Size {
    depth: usize,
    bytes: usize,
}

impl Size {
    fn of<'a>(children: impl Iterator<Item = &'a Value>, keys: usize) -> Self {
        let mut size = Self { depth: 1, bytes: 96 + keys };
        for child in children {
            let child = child.size();
            size.depth = size.depth.max(child.depth + 1);
            size.bytes = size.bytes.saturating_add(child.bytes);
        }
        size
    }

    fn check(self) -> Result<(), String> {
        if self.depth > VALUE_DEPTH {
            return Err(format!("would make a value more than {VALUE_DEPTH} levels deep"));
        }
        super::limits::room(self.bytes)
    }
}

impl Value {
    /// A text.
    pub(crate) fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(text.into())
    }

    /// A list that a template makes.
    ///
    /// # Errors
    /// It would be too deep or too large.
    pub(crate) fn list(items: Vec<Self>) -> Result<Self, String> {
        let size = Size::of(items.iter(), 0);
        size.check()?;
        Ok(Self::List(Arc::new(List { items, size })))
    }

    /// A map that a template makes.
    ///
    /// # Errors
    /// It would be too deep or too large.
    pub(crate) fn map(entries: BTreeMap<Arc<str>, Self>, kind: Kind) -> Result<Self, String> {
        let made = Dict::new(entries, kind);
        made.size.check()?;
        Ok(Self::Map(Arc::new(made)))
    }

    /// A list of data, of any size.
    pub(crate) fn given_list(items: Vec<Self>) -> Self {
        let size = Size::of(items.iter(), 0);
        Self::List(Arc::new(List { items, size }))
    }

    /// A map of data, of any size.
    pub(crate) fn given_map(entries: BTreeMap<Arc<str>, Self>, kind: Kind) -> Self {
        Self::Map(Arc::new(Dict::new(entries, kind)))
    }

    fn size(&self) -> Size {
        match self {
            Self::Nil | Self::Bool(_) | Self::Int(_) | Self::Float(_) => {
                Size { depth: 0, bytes: 24 }
            }
            Self::Text(text) => Size { depth: 0, bytes: 40 + text.len() },
            Self::List(list) => list.size,
            Self::Map(map) => map.size,
        }
    }

    /// Bytes that it would take if it shared nothing.
    pub(crate) fn bytes(&self) -> usize {
        self.size().bytes
    }

    /// Bytes that this value takes besides what it shares.
    pub(super) fn own_bytes(&self) -> usize {
        match self {
            Self::Text(text) => 16 + text.len(),
            Self::List(list) => 32 + 24 * list.items.len(),
            Self::Map(map) => 64 + 64 * map.entries.len(),
            _ => 0,
        }
    }

    /// Whether it counts as true: not empty, not zero, not nothing.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => matches!(map.kind, Kind::Record(_)) || !map.entries.is_empty(),
        }
    }

    /// Name of its type, as Go has it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "slice",
            Self::Map(map) => match map.kind {
                Kind::Record(record) => record.name,
                Kind::Any | Kind::Texts => "map",
            },
        }
    }

    /// A field by its Go name.
    ///
    /// # Errors
    /// There cannot be such a field.
    pub(crate) fn field(&self, name: &str) -> Result<Self, String> {
        match self {
            Self::Map(map) => map.field(name),
            // Methods of enumerations, of wrapped values, and getters of protobuf, which take nil.
            Self::Text(_) | Self::Bool(_) | Self::Int(_) | Self::Float(_)
                if matches!(name, "String" | "GetValue" | "Value") =>
            {
                Ok(self.clone())
            }
            Self::Nil if name == "String" => Ok(Self::text("")),
            Self::Nil if name.starts_with("Get") => Ok(Self::Nil),
            Self::Nil => Err(format!("nil pointer evaluating .{name}: what it is in is not set")),
            _ => Err(format!("can't evaluate field {name} in type {}", self.type_name())),
        }
    }
}

impl Dict {
    fn new(entries: BTreeMap<Arc<str>, Value>, kind: Kind) -> Self {
        let keys = entries.keys().fold(0, |sum: usize, key| sum.saturating_add(key.len() + 40));
        let size = Size::of(entries.values(), keys);
        Self { entries, kind, size }
    }

    fn field(&self, name: &str) -> Result<Value, String> {
        let Kind::Record(record) = self.kind else {
            return Ok(self.entries.get(name).cloned().unwrap_or_default());
        };
        let getter = name.strip_prefix("Get").and_then(|rest| (record.field)(rest));
        match (record.field)(name).or(getter) {
            Some((json, zero)) => Ok(self.entries.get(json.as_str()).cloned().unwrap_or(zero)),
            None => Err(format!("can't evaluate field {name} in type {}", record.name)),
        }
    }

    /// What `index` gives for a key.
    pub(crate) fn at(&self, key: &str) -> Value {
        match (self.entries.get(key), self.kind) {
            (Some(value), _) => value.clone(),
            (None, Kind::Texts) => Value::text(""),
            (None, Kind::Any | Kind::Record(_)) => Value::Nil,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
