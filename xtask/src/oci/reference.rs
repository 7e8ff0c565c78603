//! The name of an image, as a runtime stores it: host, path and tag.

use std::fmt;

use super::OciError;

/// `HOST/PATH:TAG`, complete: runtimes complete short names each in its own way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference(String);

impl Reference {
    /// Reads a complete name.
    ///
    /// # Errors
    /// When host or tag are missing, or a character may not be there.
    pub fn parse(text: &str) -> Result<Self, OciError> {
        let bad = |reason| OciError::Reference { text: text.to_owned(), reason };
        let (host, rest) =
            text.split_once('/').ok_or_else(|| bad("no registry, as in HOST/PATH:TAG"))?;
        if !(host.contains(['.', ':']) || host == "localhost") {
            return Err(bad("it does not begin with a registry's host, as in HOST/PATH:TAG"));
        }
        let (path, tag) = rest.rsplit_once(':').ok_or_else(|| bad("it has no tag"))?;
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !host.chars().all(|c| word(c) || c == ':') {
            return Err(bad("a character of the host may not be there"));
        }
        let parts_fit = path.split('/').all(|part| {
            let lower = |c: char| word(c) && !c.is_ascii_uppercase();
            part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(lower)
        });
        if !parts_fit {
            return Err(bad("its path is not of lower-case words between slashes"));
        }
        if tag.is_empty() || tag.len() > 128 || !tag.chars().all(word) {
            return Err(bad("its tag is not of letters, digits, `.`, `_` and `-`"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part behind the last colon.
    #[must_use]
    pub fn tag(&self) -> &str {
        self.0.rsplit(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Reference;

    #[test]
    fn a_name_is_complete_or_refused() {
        for good in ["ghcr.io/lateen-mesh/pilot:0.1.0", "localhost/a:b", "r.test:5000/a/b-c:V1"] {
            assert_eq!(Reference::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(Reference::parse("r.test:5000/a:1.2").unwrap().tag(), "1.2");
        for bad in [
            "pilot",
            "pilot:1",
            "library/pilot:1",
            "a.b/c",
            "a.b/C:1",
            "a.b/:1",
            "a.b/c:",
            "a.b/c d:1",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }
}
