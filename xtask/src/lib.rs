//! What the repository's chores share with its tests: container images without a container
//! engine, of Lateen and of sample applications; resource definitions from tables; fuzzing. It knows
//! no cluster and no registry.

pub mod apps;
pub mod crds;
pub mod fuzz;
pub mod images;
pub mod oci;
pub mod statics;
