//! Who sees an object: the meaning of `exportTo`.
//!
//! `*` is everybody and wins over all else, `.` the object's own namespace, `~` alone nobody, any
//! other entry a namespace. Source: Istio's `pkg/config/visibility`.

use std::collections::BTreeSet;

/// Who sees an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Every namespace.
    Everybody,
    /// These namespaces; none when nobody shall see it.
    Only(BTreeSet<String>),
}

impl Visibility {
    /// What `export_to` of an object in `namespace` says; an empty list takes the mesh's default,
    /// and an empty default is everybody.
    #[must_use]
    pub fn of(export_to: &[String], default: &[String], namespace: &str) -> Self {
        let list = if export_to.is_empty() { default } else { export_to };
        if list.is_empty() || list.iter().any(|entry| entry == "*") {
            return Self::Everybody;
        }
        let named = list.iter().filter(|entry| *entry != "~").map(|entry| match entry.as_str() {
            "." => namespace.to_owned(),
            other => other.to_owned(),
        });
        Self::Only(named.collect())
    }

    /// Whether a namespace sees it.
    #[must_use]
    pub fn reaches(&self, namespace: &str) -> bool {
        match self {
            Self::Everybody => true,
            Self::Only(namespaces) => namespaces.contains(namespace),
        }
    }

    /// How far it reaches from `own`, its object's namespace: objects with a smaller number are
    /// meant more closely. 0 is its own namespace alone, 1 some namespaces, 2 everybody.
    #[must_use]
    pub fn width(&self, own: &str) -> u8 {
        match self {
            Self::Everybody => 2,
            Self::Only(namespaces) => u8::from(namespaces.iter().any(|it| it != own)),
        }
    }
}

impl std::fmt::Display for Visibility {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everybody => out.write_str("*"),
            Self::Only(namespaces) if namespaces.is_empty() => out.write_str("~"),
            Self::Only(namespaces) => {
                let all: Vec<&str> = namespaces.iter().map(String::as_str).collect();
                out.write_str(&all.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Visibility;

    fn of(list: &[&str]) -> Visibility {
        let list: Vec<String> = list.iter().map(|it| (*it).to_owned()).collect();
        Visibility::of(&list, &[], "shop")
    }

    #[test]
    fn lists() {
        assert!(of(&[]).reaches("bank"));
        assert!(of(&["~", "*"]).reaches("bank"));
        assert!(!of(&["."]).reaches("bank"));
        assert!(of(&["."]).reaches("shop"));
        assert!(of(&["bank"]).reaches("bank"));
        assert!(!of(&["bank"]).reaches("shop"));
        assert!(!of(&["~"]).reaches("shop"));
        let default = ["~".to_owned()];
        assert!(!Visibility::of(&[], &default, "shop").reaches("shop"));
        assert!(Visibility::of(&["*".to_owned()], &default, "shop").reaches("shop"));
    }

    #[test]
    fn widths() {
        let widths = [of(&["."]), of(&["bank"]), of(&["*"])].map(|it| it.width("shop"));
        assert_eq!(widths, [0, 1, 2]);
    }
}
