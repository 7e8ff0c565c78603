//! Which addresses are taken: one file each, made only where there is none, so that two calls at
//! once never get the same.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

/// Addresses tried before a range counts as full; also the most there are of IPv4 in the lab.
const MOST_TRIES: u128 = 1 << 16;
const LAST: &str = "last";

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum IpamError {
    /// All are taken.
    #[error("no address of {0} is free; remove pods")]
    Full(IpNet),
    /// The sandbox has one already.
    #[error("sandbox {0} has an address already; a runtime deletes it before it adds it again")]
    Duplicate(String),
    /// The folder of addresses.
    #[error("{path}: {source}")]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The addresses of a network.
#[derive(Debug)]
pub struct Ipam {
    folder: PathBuf,
}

impl Ipam {
    /// Addresses noted in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Takes one address of each range; all or none.
    ///
    /// # Errors
    /// When a range is full, or the sandbox has addresses.
    pub fn reserve(
        &self,
        ranges: &[(IpNet, IpAddr)],
        container: &str,
        interface: &str,
    ) -> Result<Vec<IpNet>, IpamError> {
        fs::create_dir_all(&self.folder).map_err(|source| self.io(&self.folder, source))?;
        let owner = owner(container, interface);
        if self.entries()?.iter().any(|(_, text)| *text == owner) {
            return Err(IpamError::Duplicate(container.to_owned()));
        }
        let mut taken = Vec::new();
        for (number, (net, gateway)) in ranges.iter().enumerate() {
            match self.take(*net, *gateway, &owner, number) {
                Ok(address) => taken.push(address),
                Err(e) => {
                    self.release(container, interface)?;
                    return Err(e);
                }
            }
        }
        Ok(taken)
    }

    /// Gives the addresses of a sandbox back; none is fine.
    ///
    /// # Errors
    /// When the folder cannot be read or a file not be removed.
    pub fn release(&self, container: &str, interface: &str) -> Result<(), IpamError> {
        let owner = owner(container, interface);
        self.remove(|text| text == owner)
    }

    /// Gives all addresses back but those of the sandboxes named.
    ///
    /// # Errors
    /// When the folder cannot be read or a file not be removed.
    pub fn keep_only(&self, valid: &[(&str, &str)]) -> Result<(), IpamError> {
        let owners: Vec<String> = valid.iter().map(|(id, name)| owner(id, name)).collect();
        self.remove(|text| !owners.iter().any(|owner| owner == text))
    }

    fn take(
        &self,
        net: IpNet,
        gateway: IpAddr,
        owner: &str,
        number: usize,
    ) -> Result<IpNet, IpamError> {
        // After the last one given, so that an address is not soon another pod's.
        let last = self.folder.join(format!("{LAST}.{number}"));
        let after = fs::read_to_string(&last).ok().and_then(|text| text.parse().ok());
        for address in candidates(net, gateway, after) {
            let path = self.folder.join(address.to_string());
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    file.write_all(owner.as_bytes()).map_err(|source| self.io(&path, source))?;
                    fs::write(&last, address.to_string())
                        .map_err(|source| self.io(&last, source))?;
                    return IpNet::new(address, net.prefix_len()).map_err(|_| IpamError::Full(net));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(self.io(&path, source)),
            }
        }
        Err(IpamError::Full(net))
    }

    fn remove(&self, gone: impl Fn(&str) -> bool) -> Result<(), IpamError> {
        for (path, text) in self.entries()? {
            if gone(&text) {
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(self.io(&path, e)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Files of addresses with their owners.
    fn entries(&self) -> Result<Vec<(PathBuf, String)>, IpamError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.io(&self.folder, source)),
        };
        let files = entries.flatten().filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.parse::<IpAddr>().is_ok())
        });
        // One that is removed meanwhile is no longer taken.
        Ok(files
            .filter_map(|file| Some((file.path(), fs::read_to_string(file.path()).ok()?)))
            .collect())
    }

    fn io(&self, path: &Path, source: io::Error) -> IpamError {
        IpamError::Io { path: path.to_owned(), source }
    }
}

fn owner(container: &str, interface: &str) -> String {
    format!("{container}\n{interface}\n")
}

/// Addresses of a range in the order they are tried: those after `after`, then the others. Neither
/// the range's own address, nor its broadcast address, nor the gateway. Pure.
fn candidates(net: IpNet, gateway: IpAddr, after: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let first = number(net.network()) + 1;
    let last = number(net.broadcast()) - u128::from(net.addr().is_ipv4());
    let start =
        after.map(number).filter(|it| (first..last).contains(it)).map_or(first, |it| it + 1);
    let is_ipv4 = net.addr().is_ipv4();
    let ordered = (start..=last).chain(first..start).take(usize::try_from(MOST_TRIES).unwrap_or(1));
    ordered.map(move |number| address(number, is_ipv4)).filter(move |address| *address != gateway)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, is_ipv4: bool) -> IpAddr {
    if is_ipv4 {
        Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)).into()
    } else {
        Ipv6Addr::from_bits(number).into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Ipam, IpamError, candidates};
    use std::collections::BTreeSet;

    #[test]
    fn the_first_last_and_gateway_are_never_given() {
        let net = "10.0.0.0/29".parse().unwrap();
        let gateway = "10.0.0.1".parse().unwrap();
        let text = |after: Option<&str>| -> Vec<String> {
            let after = after.map(|it| it.parse().unwrap());
            candidates(net, gateway, after).map(|it| it.to_string()).collect()
        };
        assert_eq!(text(None), ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        let later = ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        assert_eq!(text(Some("10.0.0.4")), later);
        assert_eq!(text(Some("10.9.9.9")), text(None));
    }

    #[test]
    fn addresses_are_unique_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let ipam = Ipam::new(folder.path());
        let ranges = [
            ("10.0.0.0/29".parse().unwrap(), "10.0.0.1".parse().unwrap()),
            ("fd00::/64".parse().unwrap(), "fd00::1".parse().unwrap()),
        ];
        let names: Vec<String> = (0..5).map(|number| format!("c{number}")).collect();
        let given: BTreeSet<_> = std::thread::scope(|scope| {
            let started: Vec<_> = names
                .iter()
                .map(|name| scope.spawn(|| ipam.reserve(&ranges, name, "eth0").unwrap()))
                .collect();
            started.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(given.len(), 10, "{given:?}");
        let error = ipam.reserve(&ranges, "c0", "eth0").unwrap_err();
        assert!(matches!(error, IpamError::Duplicate(_)), "{error}");
        let error = ipam.reserve(&ranges, "c9", "eth0").unwrap_err();
        assert!(matches!(error, IpamError::Full(_)), "{error}");
        ipam.release("c3", "eth0").unwrap();
        ipam.release("c3", "eth0").unwrap();
        assert_eq!(ipam.reserve(&ranges, "c9", "eth0").unwrap().len(), 2);
        ipam.keep_only(&[("c9", "eth0")]).unwrap();
        assert_eq!(ipam.entries().unwrap().len(), 2);
    }
}
