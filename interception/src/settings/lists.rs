//! Comma lists of ports, ranges, ids and interfaces, as flags and annotations hold them.
//!
//! Everything here may come from a pod's author: sizes are bounded and each error names the value.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{PortSelection, RangeSelection};

/// Most entries of one list. Far above what a person writes, and one transaction still holds it.
const MAX_ENTRIES: usize = 4096;
/// `IFNAMSIZ` without the terminating zero.
const MAX_INTERFACE: usize = 15;
const ALL: &str = "*";
/// Most characters of a value that an error repeats.
const MAX_SHOWN: usize = 64;

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not a port.
    #[error("{0:?} is not a port (1-65535)")]
    Port(String),
    /// Not an address range.
    #[error("{0:?} is not an IP address or CIDR range")]
    Range(String),
    /// Not a user or group id.
    #[error("{0:?} is not a numeric id")]
    Id(String),
    /// Not an interface name.
    #[error("{0:?} is not an interface name (1 to 15 characters, no spaces, no '/', no '-' first)")]
    Interface(String),
    /// `*` where it has no meaning.
    #[error("\"*\" must stand alone and is not possible in a list of exclusions")]
    Star,
    /// Too long.
    #[error("more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// The name of a network interface; a `+` at the end stands for any rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface(String);

impl Interface {
    /// The loopback interface.
    #[must_use]
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// The name without its wildcard.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.strip_suffix('+').unwrap_or(&self.0)
    }

    /// Whether every interface whose name begins like this is meant.
    #[must_use]
    pub fn is_prefix(&self) -> bool {
        self.0.ends_with('+')
    }

    /// Whether the interface of this name is meant.
    #[must_use]
    pub fn includes(&self, name: &str) -> bool {
        if self.is_prefix() { name.starts_with(self.name()) } else { name == self.name() }
    }
}

/// As much of an entry as an error repeats: it may be of any length.
fn shown(entry: &str) -> String {
    entry.chars().take(MAX_SHOWN).collect()
}

fn entries(list: &str) -> Result<Vec<&str>, ListError> {
    let found: Vec<&str> = list.split(',').map(str::trim).filter(|e| !e.is_empty()).collect();
    if found.len() > MAX_ENTRIES { Err(ListError::TooMany) } else { Ok(found) }
}

fn each<T: PartialEq>(
    list: &str,
    parse: impl Fn(&str) -> Result<T, ListError>,
) -> Result<Vec<T>, ListError> {
    let mut found = Vec::new();
    for entry in entries(list)? {
        let value = parse(entry)?;
        if !found.contains(&value) {
            found.push(value);
        }
    }
    Ok(found)
}

fn one_port(entry: &str) -> Result<u16, ListError> {
    if entry == ALL {
        return Err(ListError::Star);
    }
    let digits = entry.bytes().all(|b| b.is_ascii_digit());
    match entry.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(ListError::Port(shown(entry))),
    }
}

/// Ports in the order given, without repetition.
pub(crate) fn ports(list: &str) -> Result<Vec<u16>, ListError> {
    each(list, one_port)
}

/// `*`, or ports.
pub(crate) fn port_selection(list: &str) -> Result<PortSelection, ListError> {
    if list.trim() == ALL {
        return Ok(PortSelection::All);
    }
    ports(list).map(PortSelection::Only)
}

fn one_range(entry: &str) -> Result<IpNet, ListError> {
    if entry == ALL {
        return Err(ListError::Star);
    }
    let parsed = match entry.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => entry.parse::<IpNet>(),
    };
    parsed.map(|net| net.trunc()).map_err(|_| ListError::Range(shown(entry)))
}

/// Ranges; host bits are cut off, a plain address is a range of one.
pub(crate) fn ranges(list: &str) -> Result<Vec<IpNet>, ListError> {
    each(list, one_range)
}

/// `*`, or ranges.
pub(crate) fn range_selection(list: &str) -> Result<RangeSelection, ListError> {
    if list.trim() == ALL {
        return Ok(RangeSelection::All);
    }
    ranges(list).map(RangeSelection::Only)
}

/// Numeric ids; `lookup` answers for names.
pub(crate) fn ids(list: &str, lookup: impl Fn(&str) -> Option<u32>) -> Result<Vec<u32>, ListError> {
    each(list, |entry| {
        let parsed = entry.parse().ok().or_else(|| lookup(entry));
        parsed.ok_or_else(|| ListError::Id(shown(entry)))
    })
}

/// Interface names.
pub(crate) fn interfaces(list: &str) -> Result<Vec<Interface>, ListError> {
    each(list, |entry| {
        let clean = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b'"';
        let name = entry.strip_suffix('+').unwrap_or(entry);
        // With a dash first it would be read as a flag by what takes it as an argument.
        let flag = name.starts_with('-');
        if name.is_empty() || flag || entry.len() > MAX_INTERFACE || !entry.bytes().all(clean) {
            return Err(ListError::Interface(shown(entry)));
        }
        Ok(Interface(entry.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_may_end_in_a_comma_and_repeat() {
        assert_eq!(ports("80, 443,80,").unwrap(), [80, 443]);
        assert_eq!(port_selection("*").unwrap(), PortSelection::All);
        assert_eq!(port_selection("").unwrap(), PortSelection::Only(Vec::new()));
        assert_eq!(ranges("1.1.5.5/16,::1").unwrap()[0].to_string(), "1.1.0.0/16");
    }

    #[test]
    fn what_is_no_value_is_named() {
        for (list, error) in [
            ("80,abc", ListError::Port("abc".to_owned())),
            ("0", ListError::Port("0".to_owned())),
            ("+80", ListError::Port("+80".to_owned())),
            ("65536", ListError::Port("65536".to_owned())),
            ("80,*", ListError::Star),
        ] {
            assert_eq!(ports(list).unwrap_err(), error, "{list}");
        }
        assert_eq!(ranges("*").unwrap_err(), ListError::Star);
        assert!(ranges("10.0.0.0/33").is_err());
        assert!(interfaces("averyveryverylongname").is_err());
        assert!(interfaces("a b").is_err());
        assert!(interfaces("+").is_err());
        assert!(interfaces("eth0,--cleanup").is_err());
        assert_eq!(ports(&"1,".repeat(5000)).unwrap_err(), ListError::TooMany);
    }
}
