//! What a lab is told when it is brought up: from the command that starts it to its daemon, by a
//! file in the state folder.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::node::Images;

/// Mesh configuration of a lab that is given none: requests are logged, and the proxy answers DNS,
/// because there is no cluster DNS.
pub const MESH_CONFIG: &str = "accessLogFile: /dev/stdout
defaultConfig:
  proxyMetadata:
    ISTIO_META_DNS_CAPTURE: \"true\"
";
/// Name of the file.
const FILE: &str = "lab.json";

/// What a lab is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the lab.
    pub name: String,
    /// Folder of our programs.
    pub binaries: PathBuf,
    /// Mesh configuration, YAML.
    pub mesh_config: String,
    /// Commands that stand in for images.
    pub images: Vec<(String, Vec<String>)>,
}

impl Settings {
    /// Writes the file in the state folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: &Path) -> io::Result<()> {
        std::fs::write(state.join(FILE), serde_json::to_vec(self)?)
    }

    /// Reads the file in the state folder.
    ///
    /// # Errors
    /// When it is not there or not readable.
    pub fn read(state: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(state.join(FILE))?)?)
    }

    /// The images, as the node takes them.
    #[must_use]
    pub fn images(&self) -> Images {
        Images(self.images.clone())
    }
}

/// A value of `--image` that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Not `NAME=COMMAND`.
    #[error("`{0}` is not NAME=COMMAND, such as example.com/shop:1='python3 -m http.server 8080'")]
    Form(String),
    /// A quote that does not end.
    #[error("a quote in `{0}` does not end")]
    Quote(String),
}

/// Reads `NAME=COMMAND`; the command is split at spaces, quotes and backslashes hold it together.
///
/// # Errors
/// When it is not of that form.
pub fn parse_image(text: &str) -> Result<(String, Vec<String>), ImageError> {
    let form = || ImageError::Form(text.to_owned());
    // A digest may stand in the name, but no `=`.
    let (name, command) = text.split_once('=').ok_or_else(form)?;
    let words = split(command).ok_or_else(|| ImageError::Quote(text.to_owned()))?;
    if name.trim().is_empty() || words.is_empty() {
        return Err(form());
    }
    Ok((name.trim().to_owned(), words))
}

/// Splits a command line as a shell does, without expanding anything; `None`: an open quote.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == letter => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().push(letters.next()?),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::{ImageError, parse_image, split};
    use proptest::prelude::{any, proptest};

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let (name, words) = parse_image("a/b:1=sh -c 'echo \"$X\" y' z\\ w \"\"").unwrap();
        assert_eq!(name, "a/b:1");
        assert_eq!(words, ["sh", "-c", "echo \"$X\" y", "z w", ""]);
        assert!(matches!(parse_image("a"), Err(ImageError::Form(_))));
        assert!(matches!(parse_image("=a"), Err(ImageError::Form(_))));
        assert!(matches!(parse_image("a= "), Err(ImageError::Form(_))));
        assert!(matches!(parse_image("a='b"), Err(ImageError::Quote(_))));
    }

    proptest! {
        #[test]
        fn quoted_words_come_back(words in proptest::collection::vec("[^']{0,12}", 0..6)) {
            let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            assert_eq!(split(&quoted.join(" ")).unwrap(), words);
        }

        #[test]
        fn any_text_is_answered(text in any::<String>()) {
            drop(parse_image(&text));
        }
    }
}
