//! Which pods are asked about: one, those of a workload or namespace, or those of files.

use anyhow::{Context as _, bail};
use lateen_webhook::stream;
use serde_json::{Value, json};

use crate::cluster::{Kind, Live, NAMESPACE, POD, kind_of};

/// A pod that is asked about.
#[derive(Debug)]
pub(crate) struct Subject {
    /// Kind of the object whose pod it is.
    pub(crate) kind: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// The pod, as it is or as its controller would create it.
    pub(crate) pod: Value,
    /// Whether it is one that exists.
    pub(crate) exists: bool,
}

/// The pods of a cluster that the words of a call mean.
pub(crate) async fn live(
    live: &Live,
    namespace: &str,
    subject: Option<&str>,
    selector: Option<&str>,
) -> anyhow::Result<Vec<Subject>> {
    let Some(subject) = subject else {
        let pods = live.list(&POD, Some(namespace), selector).await?;
        let silent = selector.is_none().then(|| silent(namespace));
        return Ok(silent.into_iter().chain(pods.iter().filter_map(of_object)).collect());
    };
    let (kind, name) = meant(subject)?;
    if *kind == NAMESPACE {
        let pods = live.list(&POD, Some(name), None).await?;
        return Ok([silent(name)].into_iter().chain(pods.iter().filter_map(of_object)).collect());
    }
    let found = live.get(kind, Some(namespace), name).await?;
    let found = found.with_context(|| {
        let plural = if *kind == POD { "pods" } else { "all" };
        format!(
            "there is no {} {name} in namespace {namespace}; see: kubectl get {plural} -n \
             {namespace}; a workload is KIND/NAME, such as deployment/{name}",
            kind.kind
        )
    })?;
    Ok(of_object(&found).into_iter().collect())
}

/// Kind and name of `POD` or `KIND/NAME`.
fn meant(subject: &str) -> anyhow::Result<(&'static Kind, &str)> {
    let Some((kind, name)) = subject.split_once('/') else { return Ok((&POD, subject)) };
    let Some(kind) = kind_of(kind) else {
        bail!(
            "{kind:?} has no pods; kinds are pod, deployment, statefulset, daemonset, replicaset, \
             replicationcontroller, job, cronjob, namespace"
        );
    };
    Ok((kind, name))
}

/// The pods among some documents.
pub(crate) fn of_documents(
    documents: &[Value],
    namespace: Option<&str>,
    subject: Option<&str>,
) -> anyhow::Result<Vec<Subject>> {
    let meant = subject.map(meant).transpose()?;
    let mut found: Vec<Subject> = documents.iter().filter_map(of_object).collect();
    for subject in &mut found {
        if subject.namespace.is_empty() {
            namespace.unwrap_or("default").clone_into(&mut subject.namespace);
        }
    }
    found.retain(|it| {
        namespace.is_none_or(|namespace| it.namespace == namespace)
            && meant.is_none_or(|(kind, name)| it.kind == kind.kind && it.name == name)
    });
    if found.is_empty() {
        let of = subject.map(|it| format!(" of {it}")).unwrap_or_default();
        bail!("the files have no pod{of}: neither a Pod nor a workload with a template");
    }
    Ok(found)
}

/// The pod of an object that has one.
fn of_object(object: &Value) -> Option<Subject> {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    Some(Subject {
        exists: kind == POD.kind,
        kind,
        namespace: text("namespace"),
        name: text("name"),
        pod: stream::admitted_pod(object)?,
    })
}

/// A pod that says nothing, as what a namespace means for its pods.
fn silent(namespace: &str) -> Subject {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any", "labels": {}},
        "spec": {"containers": [{"name": "any", "image": "any"}]}});
    Subject {
        kind: NAMESPACE.kind.to_owned(),
        namespace: namespace.to_owned(),
        name: namespace.to_owned(),
        pod,
        exists: false,
    }
}
