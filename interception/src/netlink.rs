//! Netlink messages: the little of the wire format that nftables and rtnetlink need.
//!
//! Knows attributes, messages, batches and sockets. Must not know what a redirect plan is.

pub(crate) mod expression;
pub(crate) mod route;
pub(crate) mod socket;
pub(crate) mod wire;
