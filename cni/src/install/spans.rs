//! Where members of an object and elements of an array stand in a JSON text.
//!
//! The text must have been accepted by a JSON parser before; here only brackets and strings are
//! followed. Knows nothing of CNI. Lets a text be changed without touching the rest of it.

use std::ops::Range;

/// The members of the object at `object`, keys decoded, in order.
#[must_use]
pub fn members(text: &str, object: Range<usize>) -> Vec<(String, Range<usize>)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = skip(bytes, object.start + 1);
    while at < object.end && bytes.get(at) == Some(&b'"') {
        let key = at..value_end(bytes, at);
        let colon = skip(bytes, key.end);
        let start = skip(bytes, colon + 1);
        let value = start..value_end(bytes, start);
        at = skip(bytes, skip(bytes, value.end) + 1);
        if let Some(Ok(key)) = text.get(key).map(serde_json::from_str) {
            found.push((key, value));
        }
    }
    found
}

/// The elements of the array at `array`, in order.
#[must_use]
pub fn elements(text: &str, array: Range<usize>) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = skip(bytes, array.start + 1);
    while at + 1 < array.end {
        let end = value_end(bytes, at);
        found.push(at..end);
        at = skip(bytes, skip(bytes, end) + 1);
    }
    found
}

/// The one value of a text, without the space around it.
#[must_use]
pub fn whole(text: &str) -> Range<usize> {
    let start = skip(text.as_bytes(), 0);
    start..value_end(text.as_bytes(), start)
}

fn skip(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|b| b" \t\r\n".contains(b)) {
        at += 1;
    }
    at
}

/// Just behind the value that begins at `at`; always behind `at`, never behind the end.
fn value_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut end = at;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'"' => {
                end = string_end(bytes, end);
                if depth == 0 {
                    return end;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return end + 1;
                }
            }
            _ if depth > 0 => {}
            b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' => break,
            _ => {
                // A number or a word: up to what may follow one.
                if bytes.get(end + 1).is_none_or(|b| b" \t\r\n,]}".contains(b)) {
                    return end + 1;
                }
            }
        }
        end += 1;
    }
    end.max(at + 1).min(bytes.len())
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'"' => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::{elements, members, whole};

    #[test]
    fn values_are_found_where_they_stand() {
        let text =
            "\n{ \"a\" : [1,\"]\\\"\" , {\"b\":[]},-2e5 ,null], \"p\\u006c\":\"}\",\"z\":true}\n";
        let object = whole(text);
        let found = members(text, object);
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a", "pl", "z"]);
        assert_eq!(&text[found[1].1.clone()], "\"}\"");
        assert_eq!(&text[found[2].1.clone()], "true");
        let inner: Vec<&str> =
            elements(text, found[0].1.clone()).into_iter().map(|at| &text[at]).collect();
        assert_eq!(inner, ["1", "\"]\\\"\"", "{\"b\":[]}", "-2e5", "null"]);
        assert!(members("{ }", 0..3).is_empty() && elements("[ ]", 0..3).is_empty());
    }
}
