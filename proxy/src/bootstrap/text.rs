//! From the text of a bootstrap to its message.
//!
//! Protobuf-JSON needs the descriptions of all messages, also of the packed ones; they are made by
//! `examples/messages.rs`. They take some memory, so they are forgotten when the text has been read.

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;

const MESSAGES: &[u8] = include_bytes!("messages.bin");
const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Reads JSON or YAML; the error says where it is wrong.
pub(super) fn parse(bytes: &[u8]) -> Result<Bootstrap, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let value = value(text)?;
    // A thread has a heap of its own, which goes back to the system as a whole.
    let reading = std::thread::Builder::new()
        .name("bootstrap".to_owned())
        .spawn(move || message(value))
        .map_err(|error| format!("cannot be read: {error}"))?;
    let encoded = reading.join().map_err(|_| "cannot be read".to_owned())??;
    Bootstrap::decode(encoded.as_slice()).map_err(|error| error.to_string())
}

fn value(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"));
    }
    serde_saphyr::from_str(text).map_err(|error| format!("is not YAML: {error}"))
}

fn message(value: Value) -> Result<Vec<u8>, String> {
    let pool = DescriptorPool::decode(MESSAGES).map_err(|error| error.to_string())?;
    let kind = pool.get_message_by_name(BOOTSTRAP).ok_or_else(|| format!("no {BOOTSTRAP}"))?;
    let message = DynamicMessage::deserialize(kind, value).map_err(|error| error.to_string())?;
    Ok(message.encode_to_vec())
}
