//! A redirect plan in the words of a backend.
//!
//! [`nft`] makes the nftables transaction, [`iptables`] the rules of iptables, [`text`] what a person
//! reads, [`difference`] what changes between two texts. Must not touch the kernel.

pub mod difference;
pub(crate) mod iptables;
pub(crate) mod nft;
mod spans;
pub mod text;
