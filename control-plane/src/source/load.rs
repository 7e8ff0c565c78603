//! What is in force, given the texts of all files and what was in force before.
//!
//! Rules: files are read in order of their paths; a text that did not change gives what it gave;
//! an object that is refused leaves the former one of its name in force; a document that does not
//! parse leaves in force what its file held before and does not say otherwise now; of two objects
//! of one name, the later one is refused. Pure: no files, no clock.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lateen_api::finding::Finding;
use lateen_api::{Object, ObjectRef, Origin, stream, validate};

use super::files::{Files, ReadFailure};
use super::objects::{Item, Objects};

/// What one pass over the files gave.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// What is in force.
    pub objects: Arc<Objects>,
    /// What there is to say, in order of files.
    pub findings: Vec<Finding>,
    /// Input of the next pass.
    pub state: State,
}

/// What each file gave, kept from pass to pass.
#[derive(Debug, Clone, Default)]
pub struct State {
    files: BTreeMap<String, Arc<FileState>>,
}

#[derive(Debug, Clone)]
struct FileState {
    text: Result<Arc<str>, ReadFailure>,
    entries: Vec<Entry>,
    findings: Vec<Finding>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: Key,
    origin: Origin,
    item: Item,
}

/// Group, kind, namespace and name: what may exist once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    group: String,
    object: ObjectRef,
}

/// What was in force before, by name.
type Former<'a> = BTreeMap<&'a Key, &'a Entry>;

/// Longest name of an object.
const MAX_NAME: usize = 253;

/// Kinds that the mesh reads and that belong to no namespace.
const CLUSTER_WIDE: [(&str, &str); 2] = [("", "Namespace"), ("", "Node")];

impl Load {
    /// One pass: `files` by path, `previous` from the pass before (or the default).
    #[must_use]
    pub fn next(previous: &State, files: &Files) -> Self {
        let former = OnceCell::new();
        let former = || former.get_or_init(|| previous.by_key());
        let mut state = State::default();
        for (path, text) in files {
            let known = previous.files.get(path);
            let file = match known {
                Some(known) if known.text == *text => Arc::clone(known),
                _ => Arc::new(read(path, text, &former, known.map(Arc::as_ref))),
            };
            state.files.insert(path.clone(), file);
        }
        let (objects, findings) = state.assemble();
        Self { objects: Arc::new(objects), findings, state }
    }
}

impl State {
    /// Whether nothing was read anew since the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.files.iter().zip(&other.files);
        self.files.len() == other.files.len()
            && pairs.all(|((a, x), (b, y))| a == b && Arc::ptr_eq(x, y))
    }

    fn by_key(&self) -> Former<'_> {
        let mut entries = BTreeMap::new();
        for entry in self.files.values().flat_map(|file| &file.entries) {
            entries.entry(&entry.key).or_insert(entry);
        }
        entries
    }

    fn assemble(&self) -> (Objects, Vec<Finding>) {
        let mut objects = Objects::default();
        let mut findings = Vec::new();
        let entries = self.files.values().map(|file| file.entries.len()).sum();
        let mut seen: HashMap<&Key, &Origin> = HashMap::with_capacity(entries);
        for file in self.files.values() {
            findings.extend(file.findings.iter().cloned());
            for entry in &file.entries {
                if let Some(first) = seen.get(&entry.key) {
                    // What a refused object left in force is the very object of another file.
                    if **first != entry.origin {
                        findings.push(twice(entry, first));
                    }
                    continue;
                }
                seen.insert(&entry.key, &entry.origin);
                objects.push(&entry.item);
            }
        }
        (objects, findings)
    }
}

fn twice(entry: &Entry, first: &Origin) -> Finding {
    let message = format!(
        "there is one of this name already, at {}:{}: this one is refused",
        first.file, first.line
    );
    Finding::error("metadata.name", message).on(&entry.key.object, &entry.origin)
}

fn read<'a>(
    path: &str,
    text: &Result<Arc<str>, ReadFailure>,
    former: &dyn Fn() -> &'a Former<'a>,
    known: Option<&FileState>,
) -> FileState {
    let mut file = FileState { text: text.clone(), entries: Vec::new(), findings: Vec::new() };
    let text = match text {
        Ok(text) => text,
        Err(failure) => {
            let origin = Origin { file: path.into(), document: 1, line: 1 };
            file.findings.push(Finding::error("", failure.to_string()).within(&origin));
            file.entries = known.map(|known| known.entries.clone()).unwrap_or_default();
            return file;
        }
    };
    let parsed = stream::parse(path, text);
    let broken = !parsed.findings.is_empty();
    file.findings = parsed.findings;
    let mut named = BTreeSet::new();
    for object in parsed.objects {
        let key = key(&object);
        named.insert(key.clone());
        match accept(object, &mut file.findings) {
            Some((origin, item)) => file.entries.push(Entry { key, origin, item }),
            None => file.entries.extend(former().get(&key).map(|entry| (*entry).clone())),
        }
    }
    if broken {
        let before = known.map(|known| known.entries.as_slice()).unwrap_or_default();
        file.entries.extend(before.iter().filter(|entry| !named.contains(&entry.key)).cloned());
    }
    file
}

fn key(object: &Object) -> Key {
    let mut reference = object.reference();
    let cluster_wide = CLUSTER_WIDE.contains(&(object.group(), object.kind.as_str()));
    if reference.namespace.is_empty() && !cluster_wide {
        "default".clone_into(&mut reference.namespace);
    }
    Key { group: object.group().to_owned(), object: reference }
}

/// Checks an object and gives its typed form; `None` when it is refused.
pub(super) fn accept(mut object: Object, findings: &mut Vec<Finding>) -> Option<(Origin, Item)> {
    let cluster_wide = CLUSTER_WIDE.contains(&(object.group(), object.kind.as_str()));
    if object.metadata.namespace.is_none() && !cluster_wide {
        object.metadata.namespace = Some("default".to_owned());
        if let Some(metadata) = object.value.get_mut("metadata").and_then(|it| it.as_object_mut()) {
            metadata.insert("namespace".to_owned(), "default".into());
        }
    }
    let checked = validate::check(&object);
    let refused = checked.is_refused();
    findings.extend(checked.findings);
    if refused {
        return None;
    }
    let item = match checked.resource {
        Some(resource) => named(&object).map(|()| resource.into()),
        None => Item::kubernetes(&object).and_then(|item| match item {
            Item::Foreign => Ok(item),
            _ => named(&object).map(|()| item),
        }),
    };
    match item {
        Ok(item) => Some((object.origin, item)),
        Err(finding) => {
            findings.push(finding);
            None
        }
    }
}

/// Names become parts of hosts, and what stands there makes them none. An API server has looked at
/// them already.
fn named(object: &Object) -> Result<(), Finding> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let part = |part: &str| !part.is_empty() && part.bytes().all(plain);
    // A part may be longer than a label of DNS: pods of long names are not asked for by name.
    let fits = |name: &str| name.len() <= MAX_NAME && name.split('.').all(part);
    let metadata = &object.metadata;
    let namespace = metadata.namespace.as_deref();
    for (field, name) in [("name", Some(metadata.name.as_str())), ("namespace", namespace)] {
        if let Some(name) = name.filter(|name| !fits(name)) {
            let message = format!("`{name}` is not a name of letters, digits, `-` and `.`");
            return Err(Finding::error(format!("metadata.{field}"), message).about(object));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
