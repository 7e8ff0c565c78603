//! Packing messages into `Any`, and taking them out again, `TypedStruct` included.
//!
//! Extensions that Envoy does not compile in travel as a `TypedStruct`: a type URL with a plain
//! struct. Unpacking checks the type before it decodes. Knows no resource kinds.

use crate::pb::google::protobuf::{Any, ListValue, Struct, Value, value::Kind};
use crate::type_url;
use prost::{Message, Name};
use std::borrow::Cow;
use thiserror::Error;

/// Why an `Any` could not be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnyError {
    /// It holds something else.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What was wanted.
        expected: String,
        /// What its type URL says.
        found: String,
    },
    /// The bytes are not such a message.
    #[error("{type_url} cannot be decoded: {reason}")]
    Decode {
        /// What it claims to be.
        type_url: String,
        /// What is wrong.
        reason: String,
    },
    /// A typed struct without value.
    #[error("{0} holds no value")]
    Empty(String),
}

/// `udpa.type.v1.TypedStruct`, and by the same fields `xds.type.v3.TypedStruct`.
#[derive(Clone, PartialEq, Message)]
pub struct TypedStruct {
    /// Type that the struct stands for.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its fields.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

/// Packs a message.
#[must_use]
pub fn pack<T: Message + Name>(message: &T) -> Any {
    Any { type_url: T::type_url_in_full(), value: message.encode_to_vec() }
}

trait FullTypeUrl {
    fn type_url_in_full() -> String;
}

impl<T: Name> FullTypeUrl for T {
    fn type_url_in_full() -> String {
        format!("{}{}", type_url::PREFIX, T::full_name())
    }
}

/// Takes a message out.
///
/// # Errors
/// When the type is another one or the bytes are malformed.
pub fn unpack<T: Message + Name + Default>(any: &Any) -> Result<T, AnyError> {
    let expected = T::type_url_in_full();
    if any.type_url != expected {
        return Err(AnyError::Type { expected, found: any.type_url.clone() });
    }
    decode(&any.type_url, &any.value)
}

/// Decodes bytes of a known type.
///
/// # Errors
/// When the bytes are malformed.
pub fn decode<T: Message + Default>(type_url: &str, bytes: &[u8]) -> Result<T, AnyError> {
    T::decode(bytes)
        .map_err(|e| AnyError::Decode { type_url: type_url.to_owned(), reason: e.to_string() })
}

/// Packs a struct that stands for `type_url` as Istio does.
#[must_use]
pub fn pack_typed_struct(type_url: &str, value: Struct) -> Any {
    let typed = TypedStruct { type_url: type_url.to_owned(), value: Some(value) };
    Any { type_url: type_url::TYPED_STRUCT_UDPA.to_owned(), value: typed.encode_to_vec() }
}

/// The struct inside, if `any` is a typed struct of either package.
///
/// # Errors
/// When it is none, or malformed.
pub fn unpack_typed_struct(any: &Any) -> Result<TypedStruct, AnyError> {
    if any.type_url != type_url::TYPED_STRUCT_UDPA && any.type_url != type_url::TYPED_STRUCT_XDS {
        return Err(AnyError::Type {
            expected: type_url::TYPED_STRUCT_UDPA.to_owned(),
            found: any.type_url.clone(),
        });
    }
    let typed: TypedStruct = decode(&any.type_url, &any.value)?;
    if typed.value.is_none() {
        return Err(AnyError::Empty(typed.type_url));
    }
    Ok(typed)
}

/// The type an extension is really of: the inner one of a typed struct, else its own.
#[must_use]
pub fn effective_type(any: &Any) -> Cow<'_, str> {
    match unpack_typed_struct(any) {
        Ok(typed) => Cow::Owned(typed.type_url),
        Err(_) => Cow::Borrowed(&any.type_url),
    }
}

/// A struct value of text.
#[must_use]
pub fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

/// A struct value of true or false.
#[must_use]
pub fn boolean(value: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(value)) }
}

/// A struct value of a number.
#[must_use]
pub fn number(value: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(value)) }
}

/// A struct value of a list.
#[must_use]
pub fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values: values.into_iter().collect() })) }
}

/// A struct value of a struct.
#[must_use]
pub fn object(fields: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(fields)) }
}

/// A struct of fields.
#[must_use]
pub fn fields<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.into(), value)).collect() }
}

/// A text field of a struct; `None` when absent or of another kind.
#[must_use]
pub fn text_field<'s>(of: &'s Struct, name: &str) -> Option<&'s str> {
    match of.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// A struct field of a struct; `None` when absent or of another kind.
#[must_use]
pub fn struct_field<'s>(of: &'s Struct, name: &str) -> Option<&'s Struct> {
    match of.fields.get(name)?.kind.as_ref()? {
        Kind::StructValue(inner) => Some(inner),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::cluster::Cluster;
    use crate::envoy::listener::Listener;

    #[test]
    fn a_packed_message_comes_out_as_it_went_in() {
        let cluster = Cluster { name: "a".to_owned(), ..Cluster::default() };
        let any = pack(&cluster);
        assert_eq!(any.type_url, type_url::CLUSTER);
        assert_eq!(unpack::<Cluster>(&any), Ok(cluster));
        assert!(matches!(unpack::<Listener>(&any), Err(AnyError::Type { .. })));
    }

    #[test]
    fn broken_bytes_are_an_error() {
        let any = Any { type_url: type_url::CLUSTER.to_owned(), value: vec![0xff, 0xff] };
        assert!(matches!(unpack::<Cluster>(&any), Err(AnyError::Decode { .. })));
    }

    #[test]
    fn typed_structs_say_what_they_stand_for() {
        let any = pack_typed_struct(type_url::ISTIO_STATS, fields([("a", text("b"))]));
        assert_eq!(effective_type(&any), type_url::ISTIO_STATS);
        let typed = unpack_typed_struct(&any).unwrap();
        assert_eq!(text_field(typed.value.as_ref().unwrap(), "a"), Some("b"));
        let xds = Any { type_url: type_url::TYPED_STRUCT_XDS.to_owned(), ..any };
        assert_eq!(unpack_typed_struct(&xds).unwrap(), typed);
    }
}
