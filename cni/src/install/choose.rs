//! Which file of the configuration folder the runtime uses, so that our entry goes there.
//!
//! Pure: names, texts and ages come in. The rule is the runtime's: the first by name that is
//! valid. One that is not may be half-written, so its writer is given a moment.

use std::time::Duration;

use super::conflist::{Form, check};

/// How long a file may be half-written before the next one is taken.
const HALF_WRITTEN: Duration = Duration::from_secs(2);

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its text, or why it cannot be read.
    pub text: Result<String, String>,
    /// Time since it was last written.
    pub age: Duration,
}

/// The file to put our entry in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Primary {
    /// Its place among the files that came in.
    pub at: usize,
    /// Its form.
    pub form: Form,
    /// Files that come before it by name and are not valid, each with the reason.
    pub skipped: Vec<String>,
}

/// Why there is none yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wait {
    /// No file at all that a runtime would read.
    #[error(
        "no network configuration (*.conflist, *.conf) is there yet; waiting for the network plugin of the cluster to write one"
    )]
    Nothing,
    /// One is invalid and was written a moment ago.
    #[error("{0}; waiting for it to be finished")]
    Writing(String),
    /// All of them are invalid.
    #[error("no valid network configuration: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// Chooses among the files of a folder, which need not be sorted.
///
/// # Errors
/// When there is none to use now.
pub fn choose(files: &[Found]) -> Result<Primary, Wait> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| files[*a].name.cmp(&files[*b].name));
    let mut skipped = Vec::new();
    for at in order {
        let file = &files[at];
        let Some(form) = Form::of(&file.name) else { continue };
        let problem = match &file.text {
            Ok(text) => check(text, form).err().map(|e| e.to_string()),
            Err(problem) => Some(problem.clone()),
        };
        let Some(problem) = problem else { return Ok(Primary { at, form, skipped }) };
        let problem = format!("{}: {problem}", file.name);
        if file.age < HALF_WRITTEN {
            return Err(Wait::Writing(problem));
        }
        skipped.push(problem);
    }
    Err(if skipped.is_empty() { Wait::Nothing } else { Wait::Invalid(skipped) })
}

#[cfg(test)]
mod tests {
    use super::{Found, Wait, choose};
    use std::time::Duration;

    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"}]}"#;

    fn file(name: &str, text: &str, age: u64) -> Found {
        Found { name: name.into(), text: Ok(text.into()), age: Duration::from_secs(age) }
    }

    #[test]
    fn the_first_valid_file_by_name_is_the_primary_one() {
        let files = [
            file("20-b.conflist", LIST, 0),
            file("05-notes.txt", "?", 0),
            file("10-a.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"bridge"}"#, 0),
        ];
        assert_eq!(choose(&files).unwrap().at, 2);
        assert_eq!(choose(&files[..2]).unwrap().at, 0);
    }

    #[test]
    fn a_file_that_is_being_written_is_waited_for_and_an_old_one_passed_over() {
        let half = &LIST[..20];
        let new = [file("10-a.conflist", half, 0), file("20-b.conflist", LIST, 9)];
        assert!(matches!(choose(&new), Err(Wait::Writing(text)) if text.contains("10-a")));
        let old = [file("10-a.conflist", half, 9), file("20-b.conflist", LIST, 9)];
        let primary = choose(&old).unwrap();
        assert_eq!(primary.at, 1);
        assert!(primary.skipped[0].contains("10-a.conflist: it is not complete JSON"));
        assert!(matches!(choose(&old[..1]), Err(Wait::Invalid(_))));
        assert!(matches!(choose(&[]), Err(Wait::Nothing)));
        // A list in a .conf, a list of nothing, and one of ours alone are none.
        let ours = LIST.replace("bridge", "lateen-cni");
        let empty = LIST.replace(r#"{"type":"bridge"}"#, "");
        for (name, text) in [("a.conf", LIST), ("a.conflist", &*empty), ("a.conflist", &*ours)] {
            assert!(choose(&[file(name, text, 9)]).is_err(), "{text}");
        }
    }
}
