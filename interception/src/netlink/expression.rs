//! The nftables expressions a redirect plan needs, and their attributes.
//!
//! Every value passes through register 1. Numbers are those of `linux/netfilter/nf_tables.h`.

use super::wire::{Writer, attributes, find, text};

const REGISTER: u32 = 1;

/// What `meta` reads or sets (`NFT_META_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Meta {
    Mark = 3,
    InInterface = 6,
    OutInterface = 7,
    SocketUid = 10,
    SocketGid = 11,
    NetworkProtocol = 15,
    TransportProtocol = 16,
}

/// What `ct` reads or sets (`NFT_CT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Ct {
    State = 0,
    Mark = 3,
    Zone = 17,
}

/// Header a payload is read from (`NFT_PAYLOAD_*_HEADER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Header {
    Network = 1,
    Transport = 2,
}

/// How a rule ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Verdict {
    Drop = 0,
    Accept = 1,
    /// `NFT_RETURN`, -5.
    Return = u32::MAX - 4,
}

/// One expression of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta(Meta),
    SetMeta(Meta),
    Ct(Ct),
    SetCt(Ct),
    Payload { header: Header, offset: u32, length: u32 },
    Mask(Vec<u8>),
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    InSet(String),
    Immediate(Vec<u8>),
    Counter,
    Redirect,
    Tproxy { family: u32 },
    Verdict(Verdict),
}

impl Expression {
    /// The kernel's name, which is also that of the module that provides it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Meta(_) | Self::SetMeta(_) => "meta",
            Self::Ct(_) | Self::SetCt(_) => "ct",
            Self::Payload { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::Equal(_) | Self::NotEqual(_) => "cmp",
            Self::InSet(_) => "lookup",
            Self::Immediate(_) | Self::Verdict(_) => "immediate",
            Self::Counter => "counter",
            Self::Redirect => "redir",
            Self::Tproxy { .. } => "tproxy",
        }
    }

    /// Writes the expression as one list element.
    pub(crate) fn write(&self, w: &mut Writer) {
        w.nested(1, |w| {
            w.string(1, self.name());
            w.nested(2, |w| self.write_data(w));
        });
    }

    fn write_data(&self, w: &mut Writer) {
        match self {
            Self::Meta(key) => numbers(w, &[(1, REGISTER), (2, *key as u32)]),
            Self::SetMeta(key) => numbers(w, &[(2, *key as u32), (3, REGISTER)]),
            Self::Ct(key) => numbers(w, &[(1, REGISTER), (2, *key as u32)]),
            Self::SetCt(key) => numbers(w, &[(2, *key as u32), (4, REGISTER)]),
            Self::Payload { header, offset, length } => {
                numbers(w, &[(1, REGISTER), (2, *header as u32), (3, *offset), (4, *length)]);
            }
            Self::Mask(mask) => {
                let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
                numbers(w, &[(1, REGISTER), (2, REGISTER), (3, length), (6, 0)]);
                w.nested(4, |w| w.attribute(1, mask));
                w.nested(5, |w| w.attribute(1, &vec![0; mask.len()]));
            }
            Self::Equal(data) | Self::NotEqual(data) => {
                numbers(w, &[(1, REGISTER), (2, u32::from(matches!(self, Self::NotEqual(_))))]);
                w.nested(3, |w| w.attribute(1, data));
            }
            Self::InSet(set) => {
                w.string(1, set);
                numbers(w, &[(2, REGISTER), (5, 0)]);
            }
            Self::Immediate(data) => {
                w.be32(1, REGISTER);
                w.nested(2, |w| w.attribute(1, data));
            }
            Self::Counter => {
                w.attribute(1, &[0; 8]);
                w.attribute(2, &[0; 8]);
            }
            // Flag 2 says that a port is given; the kernel adds it and the upper bound itself.
            Self::Redirect => numbers(w, &[(1, REGISTER), (2, REGISTER), (3, 2)]),
            Self::Tproxy { family } => numbers(w, &[(1, *family), (3, REGISTER)]),
            Self::Verdict(verdict) => {
                w.be32(1, 0);
                w.nested(2, |w| w.nested(2, |w| w.be32(1, *verdict as u32)));
            }
        }
    }
}

fn numbers(w: &mut Writer, values: &[(u16, u32)]) {
    for (kind, value) in values {
        w.be32(*kind, *value);
    }
}

/// An expression as read from the kernel, in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    name: String,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Reads an expression list. Counters lose their values; attributes lose their order.
pub(crate) fn observe(list: &[u8]) -> Vec<Observed> {
    attributes(list)
        .into_iter()
        .map(|(_, element)| {
            let parts = attributes(element);
            let name = find(&parts, 1).map(text).unwrap_or_default();
            let mut found: Vec<(u16, Vec<u8>)> = if name == "counter" {
                Vec::new()
            } else {
                attributes(find(&parts, 2).unwrap_or_default())
                    .into_iter()
                    .map(|(kind, payload)| (kind, payload.to_vec()))
                    .collect()
            };
            found.sort();
            Observed { name, attributes: found }
        })
        .collect()
}
