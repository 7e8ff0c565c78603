//! What the repository's chores share with its tests: container images without a container
//! engine, resource definitions from tables. It knows no cluster and no registry.

pub mod crds;
pub mod images;
pub mod oci;
pub mod statics;
