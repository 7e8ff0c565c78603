//! `lateen inject`: sidecars for manifests, without a cluster.
//!
//! Reads files and flags, prints what the webhook's library makes of them. What injection does is
//! not decided here. Same flags and files, same bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use lateen_webhook::InjectionSettings;
use lateen_webhook::admission::NamespaceMetadata;
use lateen_webhook::settings::{Options, Sources, values};
use lateen_webhook::stream::{self, Injected, StreamOptions};
use serde_json::{Map, Value, json};

/// Status of a call that could not be carried out; 1 is a refused object.
const WRONG_USE: u8 = 2;

/// Flags of `lateen inject`.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Kubernetes objects, YAML or JSON; `-` is stdin
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    file: PathBuf,
    /// Helm values of the injector
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// What key config of Istio's ConfigMap istio-sidecar-injector says, in place of the values
    #[arg(long, value_name = "FILE")]
    injection_config: Option<PathBuf>,
    /// One Helm value, after those of --values; a dot in a key is written `\.`
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(Vec<String>, Value)>,
    /// Mesh configuration
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Whether the nodes run native sidecars; offline, auto means yes
    #[arg(long, value_enum, default_value_t = Native::Auto)]
    native_sidecars: Native,
    /// Kind of cluster, where it matters
    #[arg(long, value_enum)]
    platform: Option<Platform>,
    /// Namespace objects whose labels and annotations count
    #[arg(long, value_name = "FILE")]
    namespace_metadata: Option<PathBuf>,
    /// Print the pods as the webhook would make them, and nothing else
    #[arg(long)]
    as_webhook: bool,
    /// Form of the output; patch needs --as-webhook and one workload
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Native {
    True,
    False,
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Platform {
    Openshift,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Yaml,
    Json,
    Patch,
}

/// Runs the command.
///
/// # Errors
/// Stdout cannot be written to.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let given = match Given::read(settings) {
        Ok(given) => given,
        Err(error) => return Ok(failed(&error, WRONG_USE)),
    };
    let options = StreamOptions { settings: &given.settings, namespaces: &given.namespaces };
    let injected = if settings.as_webhook {
        stream::inject_as_webhook(&given.documents, &options)
    } else {
        stream::inject_manifests(given.documents, &options)
    };
    let injected = match injected {
        Ok(injected) => injected,
        Err(error) => return Ok(failed(&error.into(), 1)),
    };
    for warning in given.settings.warnings() {
        eprintln!("warning: {warning}");
    }
    for notice in &injected.notices {
        eprintln!("{notice}");
    }
    let text = match print(injected, settings.output) {
        Ok(text) => text,
        Err(error) => return Ok(failed(&error, WRONG_USE)),
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing to stdout")?;
    Ok(ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error, status: u8) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::from(status)
}

/// What flags and files say.
struct Given {
    documents: Vec<Value>,
    settings: InjectionSettings,
    namespaces: BTreeMap<String, NamespaceMetadata>,
}

impl Given {
    fn read(settings: &Settings) -> anyhow::Result<Self> {
        if settings.output == Output::Patch && !settings.as_webhook {
            bail!("-o patch needs --as-webhook");
        }
        let documents = documents(&settings.file)?;
        let mesh = settings.mesh_config.as_deref().map(single).transpose()?;
        let options = Options {
            native_sidecars: settings.native_sidecars != Native::False,
            openshift: settings.platform == Some(Platform::Openshift),
            ..Options::default()
        };
        let helm = helm(settings.values.as_deref(), &settings.set)?;
        let namespaces = match &settings.namespace_metadata {
            Some(file) => stream::namespaces(&documents_of(file)?),
            None => BTreeMap::new(),
        };
        let config = settings.injection_config.as_deref().map(single).transpose()?;
        let sources =
            Sources { values: helm.as_ref(), config: config.as_ref(), mesh: mesh.as_ref() };
        let settings = InjectionSettings::read(sources, options)?;
        Ok(Self { documents, settings, namespaces })
    }
}

fn documents(file: &Path) -> anyhow::Result<Vec<Value>> {
    if file != Path::new("-") {
        return documents_of(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("stdin")?;
    stream::parse(&text).context("stdin")
}

fn documents_of(file: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    stream::parse(&text).with_context(|| file.display().to_string())
}

/// A file with one map; an empty one is an empty map.
fn single(file: &Path) -> anyhow::Result<Value> {
    let mut found = documents_of(file)?;
    ensure!(found.len() <= 1, "{}: one document is expected", file.display());
    let value = found.pop().unwrap_or_else(|| json!({}));
    ensure!(value.is_object(), "{}: a map is expected", file.display());
    Ok(value)
}

/// Values of the file with single ones on top; single ones alone change Lateen's own defaults.
fn helm(file: Option<&Path>, set: &[(Vec<String>, Value)]) -> anyhow::Result<Option<Value>> {
    let mut helm = match file {
        Some(file) => single(file)?,
        None if set.is_empty() => return Ok(None),
        None => values::lateen_defaults(),
    };
    for (path, value) in set {
        put(&mut helm, path, value.clone());
    }
    Ok(Some(helm))
}

fn put(tree: &mut Value, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Value::Object(members) = tree {
        put(members.entry(key.clone()).or_insert(Value::Null), rest, value);
    }
}

/// `a.b\.c=text`: keys and a typed value, as Helm reads them.
fn assignment(text: &str) -> Result<(Vec<String>, Value), String> {
    let (path, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let mut keys = vec![String::new()];
    let mut escaped = false;
    for next in path.chars() {
        match next {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '.' if !escaped => keys.push(String::new()),
            _ => keys.iter_mut().last().into_iter().for_each(|key| key.push(next)),
        }
        escaped = false;
    }
    if keys.iter().any(String::is_empty) {
        return Err(format!("{path:?} has an empty key"));
    }
    Ok((keys, typed(value)))
}

fn typed(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "null" => Value::Null,
        // As in Helm: a number that begins with zero is a text.
        "0" => json!(0),
        _ if text.starts_with('0') || text.starts_with('+') => Value::from(text),
        _ => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
    }
}

fn print(mut injected: Injected, output: Output) -> anyhow::Result<String> {
    let value = match output {
        Output::Yaml => return Ok(stream::to_yaml(&injected.documents)),
        Output::Json if injected.documents.len() == 1 => injected.documents.remove(0),
        Output::Json => json!({"apiVersion": "v1", "kind": "List", "items": injected.documents}),
        Output::Patch => {
            let count = injected.patches.len();
            ensure!(count == 1, "-o patch needs exactly one workload, there are {count}");
            injected.patches.remove(0)
        }
    };
    Ok(format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::{assignment, put};
    use serde_json::{Value, json};

    #[test]
    fn single_values_are_typed_and_placed_as_by_helm() {
        let mut tree = json!({"a": {"b": 1, "keep": 2}, "text": "x"});
        for text in [
            "a.b=true",
            "a.c=12",
            "text.d=0123",
            r"labels.app\.kubernetes\.io/name=x=y",
            "gone=null",
            "empty=",
        ] {
            let (path, value) = assignment(text).unwrap();
            put(&mut tree, &path, value);
        }
        let expected = json!({
            "a": {"b": true, "keep": 2, "c": 12}, "text": {"d": "0123"},
            "labels": {"app.kubernetes.io/name": "x=y"}, "gone": Value::Null, "empty": "",
        });
        assert_eq!(tree, expected);
        for wrong in ["", "a", "=1", "a..b=1", ".a=1"] {
            assert!(assignment(wrong).is_err(), "{wrong}");
        }
    }
}
