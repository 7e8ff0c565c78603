//! Names as Kubernetes makes them: hashes of templates, random suffixes, unique ids; and which
//! names are names.
//!
//! Chance comes from the system; everything else is pure.

use aws_lc_rs::rand;
use serde_json::Value;

/// Letters and digits of generated names: no vowels and no look-alikes, so that no words arise.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of the random end of a generated name.
const SUFFIX: usize = 5;
/// Longest name that is generated.
const GENERATED: usize = 63;

/// The hash that a Deployment gives to the pods of one template.
#[must_use]
pub fn template_hash(template: &Value) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in canonical(template).to_string().bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash.to_string().bytes().map(safe).collect()
}

fn safe(byte: u8) -> char {
    char::from(SAFE.get(usize::from(byte) % SAFE.len()).copied().unwrap_or(b'b'))
}

/// The same value with sorted members: two spellings of one template are one template.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_str());
            sorted.into_iter().map(|(name, value)| (name.clone(), canonical(value))).collect()
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A name that begins with `prefix`, cut where it would become too long.
#[must_use]
pub fn generated(prefix: &str) -> String {
    let cut: String = prefix.chars().take(GENERATED - SUFFIX).collect();
    let random: [u8; SUFFIX] = random();
    cut.chars().chain(random.into_iter().map(safe)).collect()
}

/// A unique id: a random UUID.
#[must_use]
pub fn uid() -> String {
    let mut bytes: [u8; 16] = random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if rand::fill(&mut bytes).is_err() {
        // The generator of the system never fails once it has started; a name that repeats would
        // be refused as taken.
        tracing::error!("no random bytes");
    }
    bytes
}

/// Whether `name` can be the name of most objects (RFC 1123 subdomain).
#[must_use]
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && !name.is_empty() && name.split('.').all(is_clean)
}

/// Whether `name` can be the name of a namespace or Service (RFC 1123 label).
#[must_use]
pub fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_clean(name)
}

fn is_clean(part: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::{generated, is_label, is_subdomain, template_hash, uid};
    use proptest::prelude::{any, proptest};
    use serde_json::json;

    #[test]
    fn a_template_has_one_hash_however_it_is_spelled() {
        let a = json!({"spec": {"containers": [{"name": "a", "image": "b"}]}, "metadata": {}});
        let b = json!({"metadata": {}, "spec": {"containers": [{"image": "b", "name": "a"}]}});
        let c = json!({"metadata": {}, "spec": {"containers": [{"image": "c", "name": "a"}]}});
        assert_eq!(template_hash(&a), template_hash(&b));
        assert_ne!(template_hash(&a), template_hash(&c));
    }

    #[test]
    fn ids_are_unique_uuids() {
        let (a, b) = (uid(), uid());
        assert_ne!(a, b);
        let lengths: Vec<usize> = a.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(a.as_bytes()[14], b'4');
    }

    #[test]
    fn names_are_those_of_kubernetes() {
        for good in ["a", "a-b", "a.b", "0"] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a..b", "../a", "a/b", "ä"] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(is_label("a-b") && !is_label("a.b") && !is_label(&"a".repeat(64)));
    }

    proptest! {
        #[test]
        fn generated_names_are_names(prefix in "[a-z][a-z0-9-]{0,80}") {
            let name = generated(&prefix);
            assert!(is_label(&name), "{name}");
        }

        #[test]
        fn hashes_are_safe(text in any::<String>()) {
            let hash = template_hash(&json!({ "text": text }));
            assert!(!hash.is_empty() && hash.len() <= 10);
            assert!(is_label(&hash), "{hash}");
        }
    }
}
