//! JSON of a peer, read within bounds: what a body becomes in memory is many times its size, so the
//! number of its values is counted before there is one. Must not know what a body is about.

use serde::de::DeserializeOwned;

/// Most values of a body, keys left out. A pod with ten thousand variables has a third of it.
const VALUES: usize = 100_000;

/// A map of a body; nesting is bounded by the parser.
pub(crate) fn map<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    // Asked for first, since serde takes a list for a struct too.
    if body.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
        return Err("expected a map".to_owned());
    }
    if values(body) > VALUES {
        return Err(format!("it has more than {VALUES} values"));
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// At least as many values as a body has: each but the first of a list or map has a comma before it.
fn values(body: &[u8]) -> usize {
    let (mut count, mut text, mut escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b',' | b'[' | b'{' if !text => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::{VALUES, map, values};
    use serde_json::{Map, Value};

    fn read(text: &str) -> Result<Map<String, Value>, String> {
        map(text.as_bytes())
    }

    #[test]
    fn values_are_counted_outside_of_texts() {
        for (text, count) in [
            ("{}", 1),
            (r#"{"a": 1, "b": [2, 3]}"#, 4),
            (r#"{"a,[{": "\",[{\\"}"#, 1),
            (r#"{"a": "\\", "b": ","}"#, 2),
        ] {
            assert_eq!(values(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn what_would_fill_memory_is_refused_before_it_does() {
        let many = |count: usize| format!("{{\"a\": [{}0]}}", "0,".repeat(count));
        assert!(read(&many(VALUES - 2)).is_ok());
        assert!(read(&many(VALUES)).unwrap_err().contains("100000 values"));
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(read(&deep).unwrap_err().contains("recursion limit"));
        assert_eq!(read("[]").unwrap_err(), "expected a map");
    }
}
