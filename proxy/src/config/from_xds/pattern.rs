//! Regular expressions of xDS (RE2 syntax) for the `regex` crate.
//!
//! The two languages are close; where the same text means something else (`\d` is ASCII in RE2,
//! `[[` and `&&` in classes are plain text) it is rewritten. Length and compiled size are bound.

use super::Refusal;
use regex::{Regex, RegexBuilder};

/// Longest pattern taken, bytes.
const MAX_LENGTH: usize = 16 * 1024;
/// Largest compiled program, bytes.
const MAX_PROGRAM: usize = 1 << 20;

/// A pattern that must match the whole text.
pub(super) fn full(pattern: &str) -> Result<Regex, Refusal> {
    // Alone first: `a)(b` must not become valid by being wrapped.
    search(pattern)?;
    compile(&format!("^(?:{})$", translate(pattern)))
}

/// A pattern that may match anywhere.
pub(super) fn search(pattern: &str) -> Result<Regex, Refusal> {
    if pattern.len() > MAX_LENGTH {
        return Err(Refusal::new(format!("regular expression is longer than {MAX_LENGTH} bytes")));
    }
    if pattern.is_empty() {
        return Err(Refusal::new("regular expression is empty"));
    }
    compile(&translate(pattern))
}

fn compile(pattern: &str) -> Result<Regex, Refusal> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PROGRAM)
        .nest_limit(100)
        .build()
        .map_err(|e| Refusal::new(format!("regular expression: {e}")))
}

/// Rewrites what the two languages read differently.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    let mut class = ClassState::Outside;
    while let Some(c) = rest.next() {
        match (c, class) {
            ('\\', _) => {
                if let Some(next) = rest.next() {
                    push_escape(&mut out, next, class);
                } else {
                    out.push('\\');
                }
                class = class.after_item();
                continue;
            }
            ('[', ClassState::Outside) => {
                out.push('[');
                class = ClassState::Start;
                continue;
            }
            ('[', _) if rest.peek() == Some(&':') => {
                out.push('[');
                for inner in rest.by_ref() {
                    out.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            ('[', _) => out.push_str("\\["),
            ('^', ClassState::Start) => {
                out.push('^');
                class = ClassState::AfterCaret;
                continue;
            }
            (']', ClassState::Inside) => {
                out.push(']');
                class = ClassState::Outside;
                continue;
            }
            (']', ClassState::Start | ClassState::AfterCaret) => out.push_str("\\]"),
            ('&' | '~', ClassState::Start | ClassState::AfterCaret | ClassState::Inside) => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
        class = class.after_item();
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClassState {
    Outside,
    /// Directly after `[`.
    Start,
    /// Directly after `[^`.
    AfterCaret,
    Inside,
}

impl ClassState {
    fn after_item(self) -> Self {
        if self == Self::Outside { Self::Outside } else { Self::Inside }
    }
}

fn push_escape(out: &mut String, escaped: char, class: ClassState) {
    let ascii = match escaped {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => "[\\t\\n\\f\\r ]",
        'S' => "[^\\t\\n\\f\\r ]",
        'b' if class == ClassState::Outside => "(?-u:\\b)",
        _ => {
            out.push('\\');
            out.push(escaped);
            return;
        }
    };
    out.push_str(ascii);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_text() {
        for (pattern, text, wanted) in [
            ("a|ab", "ab", true),
            ("/api/.*", "/api/x", true),
            ("/api", "/api/x", false),
            ("api", "/api", false),
            (".*", "", true),
            ("^/x$", "/x", true),
        ] {
            assert_eq!(full(pattern).unwrap().is_match(text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn re2_text_keeps_its_meaning() {
        for (pattern, text, wanted) in [
            (r"\d+", "42", true),
            (r"\d+", "٤٢", false),
            (r"[\d.]+", "1.2", true),
            (r"[[a]", "[", true),
            (r"[]a]", "]", true),
            (r"[^]a]", "]", false),
            (r"[^]a]", "b", true),
            (r"[a&&b]", "&", true),
            (r"[[:alpha:]]+", "abc", true),
            (r"\w+", "é", false),
            (r"\bx\b", "x", true),
            (r"a\.b", "a.b", true),
            (r"a\.b", "axb", false),
            (r"[\]x]", "]", true),
        ] {
            assert_eq!(full(pattern).unwrap().is_match(text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in ["(", "a)(b", "[", "a{1000}{1000}{1000}", "", r"(?=x)"] {
            assert!(full(pattern).is_err(), "{pattern}");
        }
        assert!(full(&"a".repeat(20_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_is_taken_or_refused(pattern in ".{0,40}") {
            let _outcome = full(&pattern);
        }
    }
}
