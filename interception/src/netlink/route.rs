//! rtnetlink: the policy rule and route of the TPROXY mark, and the `::6` address on `lo`.
//!
//! What is made here carries the protocol number [`PROTOCOL`], so that it can be told from what
//! others made. All operations may be repeated.

use std::net::Ipv6Addr;

use netlink_sys::protocols::NETLINK_ROUTE;

use super::socket::{Connection, NetlinkError};
use super::wire::{ACK, CREATE, DUMP, EXCLUSIVE, REQUEST, Writer, attributes, find, host32};
use crate::plan::MarkRoute;

/// Who made a rule or route; free in the kernel's list.
const PROTOCOL: u8 = 108;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `lo` is the first interface of every network namespace.
const LOOPBACK: u32 = 1;

const EPERM_DISABLED: i32 = 13;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const EEXIST: i32 = 17;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;
const EADDRNOTAVAIL: i32 = 99;
const ENODEV: i32 = 19;

/// A connection to the routing tables of one network namespace.
#[derive(Debug)]
pub(crate) struct Routes {
    connection: Connection,
}

impl Routes {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self { connection: Connection::open(NETLINK_ROUTE)? })
    }

    /// Puts `address` on `lo`; without effect where IPv6 is switched off.
    pub(crate) fn add_address(&self, address: Ipv6Addr) -> Result<(), NetlinkError> {
        let send = self.address(NEW_ADDRESS, CREATE | EXCLUSIVE, address);
        tolerate(send, &[EEXIST, EPERM_DISABLED, EOPNOTSUPP, EAFNOSUPPORT])
    }

    /// Takes `address` from `lo`.
    pub(crate) fn delete_address(&self, address: Ipv6Addr) -> Result<(), NetlinkError> {
        let send = self.address(DELETE_ADDRESS, 0, address);
        tolerate(send, &[EADDRNOTAVAIL, ENODEV, EOPNOTSUPP, EAFNOSUPPORT])
    }

    /// Whether `address` is on `lo`.
    pub(crate) fn has_address(&self, address: Ipv6Addr) -> Result<bool, NetlinkError> {
        let answers = self.dump(GET_ADDRESS, &[IPV6, 0, 0, 0, 0, 0, 0, 0])?;
        Ok(answers.iter().any(|body| {
            host32(body.get(4..).unwrap_or_default()) == LOOPBACK
                && find(&attributes(body.get(8..).unwrap_or_default()), 1)
                    == Some(address.octets().as_slice())
        }))
    }

    fn address(&self, kind: u16, flags: u16, address: Ipv6Addr) -> Result<(), NetlinkError> {
        const NO_DUPLICATE_DETECTION: u8 = 2;
        self.change(kind, flags, |w| {
            w.raw(&[IPV6, 128, NO_DUPLICATE_DETECTION, 0]);
            w.raw(&LOOPBACK.to_ne_bytes());
            w.attribute(2, &address.octets());
            w.attribute(1, &address.octets());
        })
    }

    /// Brings `lo` up: a route through an interface that is down is refused, and a runtime need not
    /// have done it yet.
    fn raise_loopback(&self) -> Result<(), NetlinkError> {
        const UP: u32 = 1;
        self.change(NEW_LINK, 0, |w| {
            w.raw(&[0; 4]);
            for field in [LOOPBACK, UP, UP] {
                w.raw(&field.to_ne_bytes());
            }
        })
    }

    /// Adds what `wanted` needs, in both families.
    pub(crate) fn add(&self, wanted: MarkRoute) -> Result<(), NetlinkError> {
        self.raise_loopback()?;
        for family in [IPV4, IPV6] {
            let absent = [EOPNOTSUPP, EAFNOSUPPORT];
            if !self.rules(family)?.contains(&wanted) {
                tolerate(self.rule(NEW_RULE, CREATE | EXCLUSIVE, family, wanted), &absent)?;
            }
            if !self.tables(family)?.contains(&wanted.table) {
                let send = self.route(NEW_ROUTE, CREATE | EXCLUSIVE, family, wanted.table);
                tolerate(send, &[EOPNOTSUPP, EAFNOSUPPORT, EPERM_DISABLED, EEXIST])?;
            }
        }
        Ok(())
    }

    /// Removes whatever is ours and not wanted.
    pub(crate) fn remove_others(&self, wanted: Option<MarkRoute>) -> Result<(), NetlinkError> {
        for family in [IPV4, IPV6] {
            let mut kept = false;
            for found in self.rules(family)? {
                if Some(found) == wanted && !kept {
                    kept = true;
                    continue;
                }
                tolerate(self.rule(DELETE_RULE, 0, family, found), &[ENOENT])?;
            }
            for table in self.tables(family)? {
                if wanted.is_none_or(|w| w.table != table) {
                    tolerate(self.route(DELETE_ROUTE, 0, family, table), &[ESRCH])?;
                }
            }
        }
        Ok(())
    }

    /// Whether exactly `wanted` is there. Where IPv6 is switched off its routes cannot be.
    pub(crate) fn matches(
        &self,
        wanted: Option<MarkRoute>,
        ipv6: bool,
    ) -> Result<bool, NetlinkError> {
        for family in [IPV4, IPV6].into_iter().filter(|f| *f == IPV4 || ipv6) {
            let rules = self.rules(family)?;
            let tables = self.tables(family)?;
            let wanted_tables: Vec<u32> = wanted.iter().map(|w| w.table).collect();
            if rules != Vec::from_iter(wanted) || tables != wanted_tables {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Mark rules that are ours.
    fn rules(&self, family: u8) -> Result<Vec<MarkRoute>, NetlinkError> {
        let mut header = [0; 12];
        header[0] = family;
        let answers = self.dump(GET_RULE, &header)?;
        let ours = answers.iter().filter_map(|body| {
            let found = attributes(body.get(12..).unwrap_or_default());
            (find(&found, 21) == Some([PROTOCOL].as_slice())).then_some(MarkRoute {
                mark: host32(find(&found, 10)?),
                table: host32(find(&found, 15)?),
            })
        });
        Ok(ours.collect())
    }

    /// Tables with a route that is ours.
    fn tables(&self, family: u8) -> Result<Vec<u32>, NetlinkError> {
        let mut header = [0; 12];
        header[0] = family;
        let answers = self.dump(GET_ROUTE, &header)?;
        let ours = answers.iter().filter_map(|body| {
            let protocol = *body.get(5)?;
            let found = attributes(body.get(12..)?);
            (protocol == PROTOCOL).then(|| find(&found, 15).map(host32)).flatten()
        });
        Ok(ours.collect())
    }

    fn rule(&self, kind: u16, flags: u16, family: u8, r: MarkRoute) -> Result<(), NetlinkError> {
        const TO_TABLE: u8 = 1;
        self.change(kind, flags, |w| {
            w.raw(&[family, 0, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0]);
            w.attribute(10, &r.mark.to_ne_bytes());
            w.attribute(15, &r.table.to_ne_bytes());
            w.attribute(21, &[PROTOCOL]);
        })
    }

    fn route(&self, kind: u16, flags: u16, family: u8, table: u32) -> Result<(), NetlinkError> {
        const HOST_SCOPE: u8 = 254;
        const LOCAL: u8 = 2;
        self.change(kind, flags, |w| {
            w.raw(&[family, 0, 0, 0, 0, PROTOCOL, HOST_SCOPE, LOCAL, 0, 0, 0, 0]);
            w.attribute(15, &table.to_ne_bytes());
            w.attribute(4, &LOOPBACK.to_ne_bytes());
        })
    }

    fn dump(&self, kind: u16, header: &[u8]) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let mut w = Writer::default();
        w.message(kind, REQUEST | DUMP, 1, |w| w.raw(header));
        match self.connection.request(&w.finish().unwrap_or_default()) {
            Ok(answers) => Ok(answers.into_iter().map(|(_, body)| body).collect()),
            Err(e) if [EOPNOTSUPP, EAFNOSUPPORT].contains(&e.errno()) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    fn change(
        &self,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), NetlinkError> {
        let mut w = Writer::default();
        w.message(kind, REQUEST | ACK | flags, 1, body);
        self.connection.transact(&w.finish().unwrap_or_default(), 1, 1)
    }
}

fn tolerate(result: Result<(), NetlinkError>, errors: &[i32]) -> Result<(), NetlinkError> {
    match result {
        Err(e) if errors.contains(&e.errno()) => Ok(()),
        other => other,
    }
}
