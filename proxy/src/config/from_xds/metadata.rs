//! Reading `google.protobuf.Struct` and the wrapped extensions of Istio.

use super::Refusal;
use super::field::{type_name, unpack};
use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value};
use lateen_xds::any::TypedStruct;

/// A field of a struct that is text.
pub(super) fn text<'s>(fields: &'s Struct, key: &str) -> Option<&'s str> {
    match fields.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// A field of a struct that is a truth value.
pub(super) fn truth(fields: &Struct, key: &str) -> Option<bool> {
    match fields.fields.get(key)?.kind.as_ref()? {
        Kind::BoolValue(value) => Some(*value),
        Kind::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}

/// A field of a struct that is a list.
pub(super) fn list<'s>(fields: &'s Struct, key: &str) -> &'s [Value] {
    match fields.fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::ListValue(list)) => &list.values,
        _ => &[],
    }
}

/// A value that is a struct.
pub(super) fn structure(value: &Value) -> Option<&Struct> {
    match value.kind.as_ref()? {
        Kind::StructValue(fields) => Some(fields),
        _ => None,
    }
}

/// The metadata of a namespace such as `istio`.
pub(super) fn namespace<'m>(metadata: Option<&'m Metadata>, name: &str) -> Option<&'m Struct> {
    metadata?.filter_metadata.get(name)
}

/// An extension's configuration with the type it really has.
#[derive(Debug)]
pub(super) enum Extension<'a> {
    /// A protobuf.
    Message(&'a str, &'a Any),
    /// A struct that stands for a protobuf the control plane has no code for.
    Wrapped(String, Struct),
}

impl Extension<'_> {
    /// Message name, such as `envoy.extensions.filters.http.rbac.v3.RBAC`.
    pub(super) fn type_name(&self) -> &str {
        match self {
            Self::Message(name, _) => name,
            Self::Wrapped(name, _) => name,
        }
    }
}

/// Looks through a typed struct.
pub(super) fn extension(any: Option<&Any>) -> Result<Extension<'_>, Refusal> {
    let any = any.ok_or_else(|| Refusal::new("typed_config is needed"))?;
    match type_name(any) {
        "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct" => {
            let wrapped: TypedStruct = unpack(any)?;
            let name = wrapped.type_url.rsplit('/').next().unwrap_or_default().to_owned();
            Ok(Extension::Wrapped(name, wrapped.value.unwrap_or_default()))
        }
        name => Ok(Extension::Message(name, any)),
    }
}
