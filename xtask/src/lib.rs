//! What the repository's chores share with its tests: container images without a container
//! engine. It knows no cluster and no registry.

pub mod images;
pub mod oci;
pub mod statics;
