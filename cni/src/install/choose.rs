//! Which file of the configuration folder the runtime uses, so that our entry goes there.
//!
//! Pure: names, texts and ages come in. The rule is the runtime's: the first by name that is
//! valid, unless one is named. One that is not may be half-written, so its writer is given a moment.
//! Copies that we made are none of others and never chosen.

use std::time::Duration;

use super::conflist::{Form, check, form_in, is_copy};

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
        "no network configuration (*.conflist, *.conf) is there yet; waiting for the network plugin of the cluster to write one (where it writes elsewhere, name that folder: value cniConfDir of the chart, or platform)"
    )]
    Nothing,
    /// One is invalid and was written a moment ago.
    #[error("{0}; waiting for it to be finished")]
    Writing(String),
    /// The one that is named is not there.
    #[error(
        "there is no {0} yet, which --cni-conf-name names (value cniConfFileName of the chart); waiting for it"
    )]
    Named(String),
    /// All of them are invalid.
    #[error("no valid network configuration: {}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// Chooses among the files of a folder, which need not be sorted: the one that is named, else the
/// first that is valid.
///
/// # Errors
/// When there is none to use now.
pub fn choose(files: &[Found], named: Option<&str>) -> Result<Primary, Wait> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.retain(|at| !files[*at].text.as_ref().is_ok_and(|text| is_copy(text)));
    match named {
        None => order.sort_by(|a, b| files[*a].name.cmp(&files[*b].name)),
        Some(name) => {
            order = only(name, files, &order).into_iter().collect();
            if order.is_empty() {
                return Err(Wait::Named(name.to_owned()));
            }
        }
    }
    let mut skipped = Vec::new();
    for at in order {
        let file = &files[at];
        let of_content = || named.map(|_| file.text.as_ref().map_or(Form::Single, |t| form_in(t)));
        let Some(form) = Form::of(&file.name).or_else(of_content) else { continue };
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

/// The file of this name, or the one that it becomes or was made from: a `.conf` ends as a
/// `.conflist` (`getCNIConfigFilepath` of `cni/pkg/install/cniconfig.go`).
fn only(name: &str, files: &[Found], among: &[usize]) -> Option<usize> {
    let other = match name.rsplit_once('.') {
        Some((stem, "conf")) => format!("{stem}.conflist"),
        Some((stem, "conflist")) => format!("{stem}.conf"),
        _ => name.to_owned(),
    };
    let find = |wanted: &str| among.iter().copied().find(|at| files[*at].name == wanted);
    find(name).or_else(|| find(&other))
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
        assert_eq!(choose(&files, None).unwrap().at, 2);
        assert_eq!(choose(&files[..2], None).unwrap().at, 0);
    }

    #[test]
    fn a_file_that_is_named_is_the_primary_one_whatever_comes_first() {
        let files = [
            file("10-a.conflist", LIST, 0),
            file("20-b.conf", r#"{"cniVersion":"1.0.0","name":"n","type":"bridge"}"#, 0),
            file("odd.file", LIST, 0),
        ];
        for (name, at) in
            [("20-b.conf", 1), ("20-b.conflist", 1), ("10-a.conf", 0), ("odd.file", 2)]
        {
            assert_eq!(choose(&files, Some(name)).unwrap().at, at, "{name}");
        }
        assert_eq!(choose(&files, Some("30-c.conf")), Err(Wait::Named("30-c.conf".to_owned())));
        let copy =
            LIST.replace("}]", r#"},{"type":"lateen-cni","lateen_copy_of":"10-a.conflist"}]"#);
        let copied = [file("02-ours.conflist", &copy, 9), file("10-a.conflist", LIST, 9)];
        assert_eq!(choose(&copied, None).unwrap().at, 1);
        assert!(matches!(choose(&copied, Some("02-ours.conflist")), Err(Wait::Named(_))));
    }

    #[test]
    fn a_file_that_is_being_written_is_waited_for_and_an_old_one_passed_over() {
        let half = &LIST[..20];
        let new = [file("10-a.conflist", half, 0), file("20-b.conflist", LIST, 9)];
        assert!(matches!(choose(&new, None), Err(Wait::Writing(text)) if text.contains("10-a")));
        let old = [file("10-a.conflist", half, 9), file("20-b.conflist", LIST, 9)];
        let primary = choose(&old, None).unwrap();
        assert_eq!(primary.at, 1);
        assert!(primary.skipped[0].contains("10-a.conflist: it is not complete JSON"));
        assert!(matches!(choose(&old[..1], None), Err(Wait::Invalid(_))));
        assert!(matches!(choose(&[], None), Err(Wait::Nothing)));
        // A list in a .conf, a list of nothing, and one of ours alone are none.
        let ours = LIST.replace("bridge", "lateen-cni");
        let empty = LIST.replace(r#"{"type":"bridge"}"#, "");
        for (name, text) in [("a.conf", LIST), ("a.conflist", &*empty), ("a.conflist", &*ours)] {
            assert!(choose(&[file(name, text, 9)], None).is_err(), "{text}");
        }
    }
}
