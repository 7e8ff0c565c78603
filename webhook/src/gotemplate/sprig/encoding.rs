//! JSON, YAML, base64, checksums and paths.

use aws_lc_rs::digest::{self, Algorithm};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::encode;
use super::super::limits::room;
use super::super::syntax::{Call, Entry, Made};
use super::super::value::Value;
use super::text;

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("toJson", (1, 1), |call| call.args[0].to_json_text().map(Value::from)),
    Entry::new("mustToJson", (1, 1), |call| call.args[0].to_json_text().map(Value::from)),
    Entry::new("toRawJson", (1, 1), |call| {
        encode::json(&call.args[0]).map(|json| json.to_string().into())
    }),
    Entry::new("toPrettyJson", (1, 1), |call| {
        encode::json(&call.args[0]).map(|json| format!("{json:#}").into())
    }),
    Entry::new("fromJson", (1, 1), |call| Ok(parse_json(text(call, 0)?).unwrap_or_default())),
    Entry::new("mustFromJson", (1, 1), |call| parse_json(text(call, 0)?)),
    Entry::new("toYaml", (1, 1), |call| call.args[0].to_yaml_text().map(Value::from)),
    Entry::new("fromYaml", (1, 1), |call| {
        encode::value(&crate::settings::parse_yaml(text(call, 0)?)?)
    }),
    Entry::new("b64enc", (1, 1), |call| {
        room(text(call, 0)?.len() / 3 * 4)?;
        Ok(STANDARD.encode(text(call, 0)?).into())
    }),
    Entry::new("b64dec", (1, 1), |call| {
        let bytes = STANDARD.decode(text(call, 0)?).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map(Value::from).map_err(|_| "does not hold text".to_owned())
    }),
    Entry::new("sha1sum", (1, 1), |call| sum(call, &digest::SHA1_FOR_LEGACY_USE_ONLY)),
    Entry::new("sha256sum", (1, 1), |call| sum(call, &digest::SHA256)),
    Entry::new("sha512sum", (1, 1), |call| sum(call, &digest::SHA512)),
    Entry::new("adler32sum", (1, 1), |call| Ok(adler32(text(call, 0)?).to_string().into())),
    Entry::new("base", (1, 1), |call| {
        let path = text(call, 0)?.trim_end_matches('/');
        Ok(match path.rsplit('/').next() {
            Some("") if text(call, 0)?.is_empty() => ".",
            Some("") | None => "/",
            Some(name) => name,
        }
        .into())
    }),
    Entry::new("dir", (1, 1), |call| {
        Ok(match text(call, 0)?.rsplit_once('/') {
            Some((dir, _)) => clean(if dir.is_empty() { "/" } else { dir }),
            None => ".".to_owned(),
        }
        .into())
    }),
    Entry::new("clean", (1, 1), |call| Ok(clean(text(call, 0)?).into())),
    Entry::new("ext", (1, 1), |call| {
        let name = text(call, 0)?.rsplit('/').next().unwrap_or_default();
        Ok(name.rfind('.').map_or("", |dot| &name[dot..]).into())
    }),
    Entry::new("isAbs", (1, 1), |call| Ok(text(call, 0)?.starts_with('/').into())),
];

/// The value of a JSON text.
pub(super) fn parse_json(text: &str) -> Made {
    let json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    encode::value(&json)
}

fn sum(call: &Call<'_>, algorithm: &'static Algorithm) -> Made {
    let digest = digest::digest(algorithm, text(call, 0)?.as_bytes());
    Ok(digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

fn adler32(text: &str) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for byte in text.bytes() {
        a = (a + u32::from(byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

/// The shortest path that means the same.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, kept.last()) {
            ("..", Some(last)) if *last != ".." => {
                kept.pop();
            }
            ("..", None) if rooted => {}
            _ => kept.push(part),
        }
    }
    match (rooted, kept.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".to_owned(),
        (false, rest) => rest,
    }
}
