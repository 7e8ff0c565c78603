//! Which target the engine runs: the one whose folder stands first among its arguments.

use std::path::Path;

use crate::{Target, named};

/// The target of the first argument that is no flag.
#[must_use]
pub fn chosen(arguments: impl Iterator<Item = String>) -> Option<Target> {
    let folder = arguments.skip(1).find(|argument| !argument.starts_with('-'))?;
    let name = Path::new(&folder).file_name()?.to_str()?;
    named(name)
}

/// The target of this process's arguments.
#[must_use]
pub fn of_this_process() -> Option<Target> {
    chosen(std::env::args())
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn the_first_folder_names_the_target() {
        let of = |arguments: &[&str]| {
            let chosen = chosen(arguments.iter().map(|it| (*it).to_owned()));
            chosen.map(|target| target.name)
        };
        assert_eq!(of(&["fuzz", "-runs=1", "/tmp/dns", "fuzz/corpus/path"]), Some("dns"));
        assert_eq!(of(&["fuzz", "/tmp/none"]), None);
        assert_eq!(of(&["fuzz", "-runs=1"]), None);
    }
}
