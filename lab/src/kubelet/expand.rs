//! `$(NAME)` in values, commands and arguments.
//!
//! Pure. `$$` stands for `$`; a name that is not known stays as it is written.

/// Expands the references of a text.
pub(super) fn expand<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let after = from.get(1..).unwrap_or_default();
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            after.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match value(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;
    use proptest::prelude::*;

    fn value(name: &str) -> Option<&'static str> {
        match name {
            "A" => Some("a"),
            "NESTED" => Some("$(A)"),
            "EMPTY" => Some(""),
            _ => None,
        }
    }

    #[test]
    fn references_are_those_of_kubernetes() {
        for (text, wanted) in [
            ("$(A)", "a"),
            ("x-$(A)-$(A)", "x-a-a"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(GONE)", "$(GONE)"),
            ("$(EMPTY)", ""),
            ("$(NESTED)", "$(A)"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("$A ${A}", "$A ${A}"),
            ("$(A)$", "a$"),
        ] {
            assert_eq!(expand(text, value), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_comes_back(text in "[$()A ]{0,20}") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), value), text);
        }
    }
}
