//! Keeps the plugin and its entry in the network configuration on the node.
//!
//! [`conflist`] and [`choose`] decide, [`files`] writes, [`follow`] notices what others do. Must not
//! know Kubernetes: it is told when to install and when to take everything away.

pub mod choose;
pub mod conflist;
pub mod files;
pub mod follow;
pub mod spans;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::netconf::POD_ANNOTATIONS;
use choose::{Found, Primary, Wait, choose};
use conflist::{ConfError, Form, PLUGIN, Removed};
use files::{FileError, Like};

/// Mode of a program, and of a file of our own.
const PROGRAM: u32 = 0o755;
const READABLE: u32 = 0o644;
/// Times a pass begins again because another writer was faster.
const ATTEMPTS: usize = 5;

/// What is installed, and where.
#[derive(Debug, Clone)]
pub struct Installer {
    /// The plugin as the image brings it.
    pub program: PathBuf,
    /// The node's folder of plugins.
    pub programs: PathBuf,
    /// The node's folder of network configurations.
    pub configurations: PathBuf,
    /// Where our entry goes.
    pub place: Place,
    /// Our entry.
    pub entry: Map<String, Value>,
}

/// Where our entry goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Into the primary configuration: the one of this name, else the first valid one.
    Joined(Option<String>),
    /// Into a list of our own that is a copy of the primary configuration and comes before it.
    Copied {
        /// Name of the list.
        to: String,
        /// Name of the primary configuration, as in [`Self::Joined`].
        of: Option<String>,
    },
    /// Into a file of our own, which another plugin calls by name (Multus).
    Alone(String),
}

impl Place {
    /// Name of the file that is all ours.
    fn own(&self) -> Option<&str> {
        match self {
            Self::Joined(_) => None,
            Self::Copied { to: name, .. } | Self::Alone(name) => Some(name),
        }
    }

    /// Name of the primary configuration, where one is given.
    fn named(&self) -> Option<&str> {
        match self {
            Self::Joined(named) | Self::Copied { of: named, .. } => named.as_deref(),
            Self::Alone(_) => None,
        }
    }
}

/// What our entry says.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Folder of the agent's socket, on the node.
    pub run_dir: PathBuf,
    /// Namespaces whose pods are left alone.
    pub exclude_namespaces: Vec<String>,
    /// Namespace of the agent's pods.
    pub pod_namespace: String,
    /// What the plugin writes to stderr.
    pub log_level: String,
    /// Milliseconds an ADD waits for an agent that is away.
    pub agent_wait: u16,
}

impl Entry {
    /// As it stands in a list of plugins.
    #[must_use]
    pub fn json(&self) -> Map<String, Value> {
        let entry = json!({
            "type": PLUGIN,
            "cni_agent_run_dir": self.run_dir,
            "exclude_namespaces": self.exclude_namespaces,
            "pod_namespace": self.pod_namespace,
            "plugin_log_level": self.log_level,
            "agent_wait": self.agent_wait,
            "capabilities": {POD_ANNOTATIONS: true},
        });
        match entry {
            Value::Object(entry) => entry,
            _ => Map::new(),
        }
    }
}

/// Why plugin and configuration are not in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no configuration to join.
    #[error("{folder}: {wait}")]
    Wait {
        /// Where one is looked for.
        folder: PathBuf,
        /// What is waited for.
        wait: Wait,
    },
    /// The primary configuration cannot take our entry.
    #[error("{path}: {problem}")]
    Configuration {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: ConfError,
    },
    /// The runtime looks for plugins elsewhere.
    #[error(
        "{folder} has no program of {path} ({programs}), so that the runtime looks for plugins in another folder, and every pod of the node would fail with our entry; name that folder (value cniBinDir of the chart, or platform)"
    )]
    Elsewhere {
        /// The folder that we were given.
        folder: PathBuf,
        /// The primary configuration.
        path: PathBuf,
        /// Whose programs are missing.
        programs: String,
    },
    /// The runtime takes another file than the list of our own.
    #[error(
        "the runtime takes {first}, which comes before {ours} by name; give our list a name that comes first (value istioOwnedCNIConfigFileName of the chart)"
    )]
    NotFirst {
        /// The file that is taken.
        first: String,
        /// Our list.
        ours: String,
    },
    /// Others write without pause.
    #[error("{0}: others write it again and again")]
    Contended(PathBuf),
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Files written or removed, in order.
    pub changed: Vec<PathBuf>,
    /// The file that has our entry.
    pub file: PathBuf,
    /// Invalid files that were passed over.
    pub skipped: Vec<String>,
}

impl Installer {
    /// Puts in place what is missing or differs: the program first, then the entry, then what is
    /// left of ours elsewhere. Blocking.
    ///
    /// # Errors
    /// When something cannot be put in place; what was there stays.
    pub fn pass(&self) -> Result<Done, InstallError> {
        let mut done = Done::default();
        self.put_program(&mut done)?;
        for _ in 0..ATTEMPTS {
            if self.put_entry(&mut done)? {
                return Ok(done);
            }
        }
        Err(InstallError::Contended(self.configurations.clone()))
    }

    /// Takes our entry out of every file. Blocking.
    ///
    /// # Errors
    /// The first file that could not be restored; the others are.
    pub fn remove_configuration(&self) -> Result<(), InstallError> {
        let mut result = Ok(());
        for file in self.files()? {
            let restored = self.restore(&file).map(drop);
            result = result.and(restored);
        }
        result
    }

    /// Removes the program, after the configuration. Blocking.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove_program(&self) -> Result<(), FileError> {
        files::remove(&self.programs.join(PLUGIN))
    }

    fn put_program(&self, done: &mut Done) -> Result<(), FileError> {
        let wanted =
            fs::read(&self.program).map_err(files::failed(files::READ_PROGRAM, &self.program))?;
        let path = self.programs.join(PLUGIN);
        let mode = |path: &Path| fs::metadata(path).map(|m| m.permissions().mode() & 0o7777);
        let same = fs::read(&path).is_ok_and(|found| found == wanted)
            && mode(&path).is_ok_and(|mode| mode == PROGRAM);
        if !same {
            files::write(&path, &wanted, Like::Mode(PROGRAM))?;
            done.changed.push(path);
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<Found>, FileError> {
        files::list(&self.configurations, self.place.named())
    }

    /// False when another writer came between.
    fn put_entry(&self, done: &mut Done) -> Result<bool, InstallError> {
        let mut files = self.files()?;
        let own = self.place.own().and_then(|name| files.iter().position(|f| f.name == name));
        let own = own.map(|at| files.remove(at));
        match &self.place {
            Place::Alone(name) => {
                let text = conflist::own_file(&self.entry);
                self.put_whole((name, &text), own.as_ref(), done)?;
            }
            Place::Copied { to, .. } => self.put_copy(to, own.as_ref(), &files, done)?,
            Place::Joined(_) => {
                let primary = self.choose(&files)?;
                done.skipped = primary.skipped;
                let file = files.remove(primary.at);
                if !self.put_chained(&file, primary.form, done)? {
                    return Ok(false);
                }
            }
        }
        for file in files {
            // The list that was just made of a file with one plugin has our entry too.
            if self.configurations.join(&file.name) != done.file
                && let Some(path) = self.restore(&file)?
            {
                done.changed.push(path);
            }
        }
        Ok(true)
    }

    /// The primary configuration; one program of it at least must lie where ours does.
    fn choose(&self, files: &[Found]) -> Result<Primary, InstallError> {
        let wait = |wait| InstallError::Wait { folder: self.configurations.clone(), wait };
        let primary = choose(files, self.place.named()).map_err(wait)?;
        let file = &files[primary.at];
        let programs = conflist::programs(file.text.as_deref().unwrap_or_default(), primary.form);
        // A link is enough: where it leads may not be seen from here.
        let is_there = |name: &String| fs::symlink_metadata(self.programs.join(name)).is_ok();
        if programs.iter().any(is_there) {
            return Ok(primary);
        }
        Err(InstallError::Elsewhere {
            folder: self.programs.clone(),
            path: self.configurations.join(&file.name),
            programs: programs.join(", "),
        })
    }

    /// The list of our own follows the primary configuration, which stays as it is.
    fn put_copy(
        &self,
        to: &str,
        own: Option<&Found>,
        files: &[Found],
        done: &mut Done,
    ) -> Result<(), InstallError> {
        let primary = self.choose(files)?;
        let file = &files[primary.at];
        done.skipped = primary.skipped;
        let text = file.text.as_deref().unwrap_or_default();
        let problem = |problem| {
            let path = self.configurations.join(&file.name);
            InstallError::Configuration { path, problem }
        };
        let of = (file.name.as_str(), primary.form);
        let copy = conflist::copy(text, of, &self.entry).map_err(problem)?;
        conflist::check(&copy, Form::List).map_err(problem)?;
        self.put_whole((to, &copy), own, done)?;
        // Whatever is named, the runtime takes what comes first.
        match choose(files, None).map(|first| &files[first.at].name) {
            Ok(first) if first.as_str() < to => {
                Err(InstallError::NotFirst { first: first.clone(), ours: to.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// A file that is all ours.
    fn put_whole(
        &self,
        (name, text): (&str, &str),
        own: Option<&Found>,
        done: &mut Done,
    ) -> Result<(), FileError> {
        done.file = self.configurations.join(name);
        if own.is_none_or(|file| file.text.as_deref() != Ok(text)) {
            files::write(&done.file, text.as_bytes(), Like::Mode(READABLE))?;
            done.changed.push(done.file.clone());
        }
        Ok(())
    }

    fn put_chained(&self, file: &Found, form: Form, done: &mut Done) -> Result<bool, InstallError> {
        let Ok(text) = &file.text else { return Ok(false) };
        let from = self.configurations.join(&file.name);
        let problem = |problem| InstallError::Configuration { path: from.clone(), problem };
        let (wanted, to) = match form {
            Form::List => (conflist::insert(text, &self.entry).map_err(problem)?, from.clone()),
            Form::Single => (
                conflist::convert(text, &file.name, &self.entry).map_err(problem)?,
                from.with_extension("conflist"),
            ),
        };
        done.file.clone_from(&to);
        if form == Form::List && wanted == *text {
            return Ok(true);
        }
        // What we would put in place must be what the runtime takes.
        conflist::check(&wanted, Form::List).map_err(problem)?;
        if fs::read(&from).ok().as_deref() != Some(text.as_bytes()) {
            return Ok(false);
        }
        files::write(&to, wanted.as_bytes(), Like::File(&from))?;
        done.changed.push(to.clone());
        if to != from {
            files::remove(&from)?;
            done.changed.push(from);
        }
        Ok(true)
    }

    /// Takes our entry out of a file; gives its path when something was there.
    fn restore(&self, file: &Found) -> Result<Option<PathBuf>, InstallError> {
        let path = self.configurations.join(&file.name);
        let Ok(text) = &file.text else { return Ok(None) };
        // What is no JSON is none that we wrote.
        match conflist::remove(text).unwrap_or(Removed::Unchanged) {
            Removed::Unchanged => return Ok(None),
            Removed::List(text) => files::write(&path, text.as_bytes(), Like::File(&path))?,
            Removed::Single { name, text } => {
                let single = self.configurations.join(name);
                // Its owner may have written it again since.
                if !single.exists() {
                    files::write(&single, text.as_bytes(), Like::File(&path))?;
                }
                files::remove(&path)?;
            }
            Removed::Nothing => files::remove(&path)?,
        }
        Ok(Some(path))
    }
}
