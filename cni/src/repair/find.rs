//! Finds the network namespaces of pods: the runtime keeps each at a path of one folder, and the
//! pod's address is in it. No process is looked at, so that no right over processes is needed.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use lateen_interception::netns;
use nix::ifaddrs::getifaddrs;

/// The namespaces of a folder by the addresses in them. One that cannot be entered is left out: it
/// may be on its way out.
///
/// # Errors
/// When the folder cannot be listed.
pub fn by_address(folder: &Path) -> io::Result<HashMap<IpAddr, Vec<PathBuf>>> {
    let mut found: HashMap<IpAddr, Vec<PathBuf>> = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match netns::run_in(&path, addresses) {
            Ok(Ok(addresses)) => {
                for address in addresses {
                    found.entry(address).or_default().push(path.clone());
                }
            }
            Ok(Err(e)) => tracing::debug!("{}: {e}", path.display()),
            Err(e) => tracing::debug!("{e}"),
        }
    }
    Ok(found)
}

/// The addresses of the calling thread's namespace, without those of every one.
fn addresses() -> nix::Result<Vec<IpAddr>> {
    let all = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    Ok(all.filter(|ip| !ip.is_loopback() && !is_link_local(ip)).collect())
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
