//! The workload of a pod that is still plain JSON.

use lateen_api::core::Workload;
use lateen_api::meta::ObjectMeta;
use serde::Deserialize as _;
use serde_json::Value;

/// The workload of a pod; metadata that is not of Kubernetes' shape counts as none.
pub(crate) fn of_pod(pod: &Value) -> Workload {
    Workload::of_pod(&ObjectMeta::deserialize(&pod["metadata"]).unwrap_or_default())
}
