//! The chart's object that what is written here belongs to: when the chart goes, the API server's
//! garbage collector takes along what lateend wrote.

use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use super::ask::{Failure, ask};
use super::denied::Tried;
use crate::cluster::Cluster;

/// The reference to a cluster role of our chart, or `None` when there is no such role: lateend was
/// not installed by the chart, and nobody takes along what it writes.
///
/// # Errors
/// When the API server does not answer, or says no.
pub async fn reference(cluster: &Cluster, role: &str) -> Result<Option<Value>, Failure> {
    let roles = Api::<ClusterRole>::all(cluster.client.clone());
    let tried = Tried::new("get", "clusterroles").of("rbac.authorization.k8s.io").named(role);
    let found = ask(tried, roles.get_opt(role)).await?;
    Ok(found.and_then(|it| of(role, &it.uid()?)))
}

fn of(role: &str, uid: &str) -> Option<Value> {
    (!uid.is_empty()).then(|| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "name": role, "uid": uid,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn a_role_without_uid_owns_nothing() {
        assert_eq!(of("x", ""), None);
        assert_eq!(of("x", "u").unwrap()["uid"], "u");
    }
}
