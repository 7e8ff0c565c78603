//! What every proof of a mesh shares, whether it runs in the lab or in a cluster: claims and how
//! they are told, and what metrics and packet captures show.

pub mod claims;
pub mod metrics;
pub mod packets;
