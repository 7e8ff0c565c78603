//! How often each verdict of our rules was met, read from the counters that every rule has.
//!
//! Says nothing of why; that is in the rule's comment. A chain of type nat sees the first packet of a
//! connection only, so that its verdicts count connections.

use std::collections::BTreeMap;
use std::fmt;

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::apply::{ApplyError, step};
use crate::netlink::socket::Connection;
use crate::netlink::wire::{DUMP, REQUEST, Writer, attributes, be32, find, text};
use crate::render::nft::{self, GET_RULE, INET, NEW_RULE, TABLE};

/// `NF_DROP` and `NFT_RETURN`.
const DROP: u32 = 0;
const RETURN: u32 = u32::MAX - 4;
/// Chains whose "return" lets a connection pass; in others it only ends a chain.
const DECIDING: [&str; 2] = ["nat-prerouting", "nat-output"];

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Its connection was redirected to this local port.
    Redirect(u16),
    /// It went to this local port with its addresses as they were.
    Tproxy(u16),
    /// Its connection was let pass by a rule.
    Pass,
    /// It was dropped.
    Drop,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirect(port) => write!(f, "redirect:{port}"),
            Self::Tproxy(port) => write!(f, "tproxy:{port}"),
            Self::Pass => f.write_str("pass"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// Packets by verdict in the network namespace of the calling thread; empty without our rules.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn read() -> Result<BTreeMap<Verdict, u64>, ApplyError> {
    let connection = Connection::open(NETLINK_NETFILTER).map_err(step("opening netfilter"))?;
    let mut w = Writer::default();
    w.message(nft::message_type(GET_RULE), REQUEST | DUMP, 1, |w| {
        w.raw(&nft::netfilter_header(INET, 0));
        w.string(1, TABLE);
    });
    let request = w.finish().unwrap_or_default();
    let answers = connection.request(&request).map_err(step("reading counters"))?;
    let mut found = BTreeMap::new();
    let rules = answers.iter().filter(|(kind, _)| *kind == nft::message_type(NEW_RULE));
    for (verdict, packets) in rules.filter_map(|(_, body)| counted(body)) {
        *found.entry(verdict).or_default() += packets;
    }
    Ok(found)
}

/// Verdict and packets of one rule.
fn counted(body: &[u8]) -> Option<(Verdict, u64)> {
    let rule = attributes(body.get(4..)?);
    if find(&rule, 1).map(text)? != TABLE {
        return None;
    }
    let chain = find(&rule, 2).map(text)?;
    let (mut packets, mut port, mut verdict) = (0, 0, None);
    for (_, expression) in attributes(find(&rule, 4)?) {
        let parts = attributes(expression);
        let data = attributes(find(&parts, 2).unwrap_or_default());
        match find(&parts, 1).map(text)?.as_str() {
            "counter" => packets = be64(find(&data, 2)?),
            "immediate" => match immediate(&data) {
                Immediate::Port(value) => port = value,
                Immediate::Verdict(DROP) => verdict = Some(Verdict::Drop),
                Immediate::Verdict(RETURN) if DECIDING.contains(&chain.as_str()) => {
                    verdict = Some(Verdict::Pass);
                }
                Immediate::Verdict(_) | Immediate::Other => {}
            },
            "redir" => verdict = Some(Verdict::Redirect(port)),
            "tproxy" => verdict = Some(Verdict::Tproxy(port)),
            _ => {}
        }
    }
    Some((verdict?, packets))
}

/// What an expression loads.
enum Immediate {
    Port(u16),
    Verdict(u32),
    Other,
}

fn immediate(parts: &[(u16, &[u8])]) -> Immediate {
    let data = attributes(find(parts, 2).unwrap_or_default());
    if let Some(verdict) = find(&data, 2) {
        return Immediate::Verdict(find(&attributes(verdict), 1).map_or(u32::MAX, be32));
    }
    match find(&data, 1) {
        Some([high, low]) => Immediate::Port(u16::from_be_bytes([*high, *low])),
        _ => Immediate::Other,
    }
}

fn be64(payload: &[u8]) -> u64 {
    payload.try_into().map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::{Verdict, counted};
    use crate::netlink::wire::{attributes, find, messages, text};
    use crate::plan::RedirectPlan;
    use crate::render::nft;
    use crate::settings::{Mode, PortSelection, RangeSelection, Settings};

    /// The rules of a transaction have the form in which the kernel gives them back.
    #[test]
    fn every_rule_that_decides_is_read() {
        for (mode, inbound) in
            [(Mode::Redirect, Verdict::Redirect(15006)), (Mode::Tproxy, Verdict::Tproxy(15006))]
        {
            let settings = Settings {
                mode,
                inbound_ports: PortSelection::All,
                outbound_ranges: RangeSelection::All,
                drop_invalid: true,
                ..Settings::default()
            };
            let transaction = nft::replace(&RedirectPlan::new(&settings)).unwrap();
            let mut found = Vec::new();
            for message in messages(&transaction.bytes) {
                if message.kind != nft::message_type(nft::NEW_RULE) {
                    continue;
                }
                let verdict = counted(message.payload);
                let rule = attributes(&message.payload[4..]);
                let chain = text(find(&rule, 2).unwrap());
                let decides = chain.starts_with("nat-");
                assert!(!decides || verdict.is_some(), "a rule of {chain}");
                found.extend(verdict.map(|(verdict, _)| verdict));
            }
            for wanted in [inbound, Verdict::Redirect(15001), Verdict::Pass, Verdict::Drop] {
                assert!(found.contains(&wanted), "{mode:?}: {wanted}: {found:?}");
            }
        }
        assert_eq!(counted(&[0; 3]), None);
        assert_eq!(counted(&[0; 64]), None);
    }
}
