//! What a cluster is made of: its name, its nodes and its addresses, so that several clusters on
//! one machine could be joined. Written to its folder.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ClusterError;

/// Name of the file.
const FILE: &str = "cluster.json";
/// How many clusters have addresses of their own.
const CLUSTERS: u8 = 50;
/// Nodes of a cluster.
const NODES: u8 = 9;
/// Port of the API server inside.
pub(super) const PORT: u16 = 6443;

/// What a cluster is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// How many nodes it has.
    pub nodes: u8,
    /// Its number, from which its addresses follow.
    pub number: u8,
    /// Port on this machine's 127.0.0.1 that leads to its API server.
    pub port: u16,
    /// Whether it has IPv6 beside IPv4.
    pub ipv6: bool,
}

impl Plan {
    /// Chooses a number that no cluster of the folder has, and a port; gives its listener too.
    pub(super) fn make(
        clusters: &Path,
        name: &str,
        nodes: u8,
    ) -> Result<(Self, TcpListener), ClusterError> {
        if !(1..=NODES).contains(&nodes) {
            return Err(ClusterError::Other(format!("a cluster has 1 to {NODES} nodes")));
        }
        let taken: BTreeSet<u8> =
            super::Cluster::all(clusters).iter().map(|cluster| cluster.plan.number).collect();
        let number = (0..CLUSTERS).find(|number| !taken.contains(number));
        let full = || ClusterError::Other(format!("{CLUSTERS} clusters are up: end some"));
        let none = |error| ClusterError::Other(format!("no free port on 127.0.0.1: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(none)?;
        let port = listener.local_addr().map_err(none)?.port();
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let plan =
            Self { name: name.to_owned(), nodes, number: number.ok_or_else(full)?, port, ipv6 };
        Ok((plan, listener))
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), ClusterError> {
        fs::create_dir_all(folder).map_err(ClusterError::file(folder))?;
        let file = folder.join(FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| ClusterError::Other(format!("{}: {error}", file.display())))?;
        fs::write(&file, text).map_err(ClusterError::file(&file))
    }

    /// Reads the plan of the cluster in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, ClusterError> {
        let file = folder.join(FILE);
        let text = fs::read(&file).map_err(ClusterError::file(&file))?;
        serde_json::from_slice(&text)
            .map_err(|error| ClusterError::Other(format!("{}: {error}", file.display())))
    }

    /// Name of a node, from 1.
    pub(super) fn node_name(&self, node: u8) -> String {
        format!("node{node}")
    }

    fn families<const N: usize>(&self, both: [String; N]) -> Vec<String> {
        both.into_iter().take(if self.ipv6 { N } else { 1 }).collect()
    }

    /// Addresses of a node, IPv4 first.
    pub(super) fn node_addresses(&self, node: u8) -> Vec<String> {
        let number = self.number;
        self.families([format!("172.30.{number}.{node}"), format!("fd00:30:{number}::{node}")])
    }

    /// Addresses of the pods of a node.
    pub(super) fn pod_ranges(&self, node: u8) -> Vec<String> {
        let number = self.number;
        self.families([
            format!("10.{}.{node}.0/24", 100 + number),
            format!("fd00:100:{number}:{node}::/64"),
        ])
    }

    /// Addresses of all pods.
    pub(super) fn pods_range(&self) -> Vec<String> {
        let number = self.number;
        self.families([format!("10.{}.0.0/16", 100 + number), format!("fd00:100:{number}::/48")])
    }

    /// Addresses of Services.
    pub(super) fn service_ranges(&self) -> Vec<String> {
        let number = self.number;
        self.families([format!("10.{}.0.0/16", 200 + number), format!("fd00:200:{number}::/112")])
    }

    /// Address of the Service `kubernetes`.
    pub(super) fn api_address(&self) -> String {
        format!("10.{}.0.1", 200 + self.number)
    }

    /// Address of the cluster's DNS.
    pub(super) fn dns_address(&self) -> String {
        format!("10.{}.0.10", 200 + self.number)
    }

    /// The cgroup of a node.
    pub(super) fn cgroup(&self, node: u8) -> String {
        format!("{}/{}", self.cgroups(), self.node_name(node))
    }

    /// The cgroup of all nodes.
    pub(super) fn cgroups(&self) -> String {
        format!("/lateen-{}", self.name)
    }
}

/// Refuses names that cannot be those of folders, cgroups and hosts.
pub(super) fn check_name(name: &str) -> Result<(), ClusterError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let letter = name.starts_with(|c: char| c.is_ascii_lowercase());
    if letter && name.len() <= 40 && name.chars().all(fits) {
        return Ok(());
    }
    Err(ClusterError::Other(format!(
        "{name:?} is not the name of a cluster: lower-case letters, digits and -, beginning with \
         a letter, at most 40 of them"
    )))
}

#[cfg(test)]
mod tests {
    use super::{Plan, check_name};

    #[test]
    fn addresses_of_clusters_and_nodes_do_not_meet() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..super::CLUSTERS {
            let plan = Plan { name: String::new(), nodes: 2, number, port: 1, ipv6: true };
            let mut all = plan.service_ranges();
            for node in 1..=2 {
                all.extend(plan.pod_ranges(node));
                all.extend(plan.node_addresses(node));
            }
            for address in all {
                let bare = address.split('/').next().unwrap();
                bare.parse::<std::net::IpAddr>().unwrap();
                assert!(seen.insert(address));
            }
        }
    }

    #[test]
    fn names_are_those_of_folders() {
        check_name("e2e-17").unwrap();
        for bad in ["", "../x", "A", "a/b", "-a", "7"] {
            check_name(bad).unwrap_err();
        }
    }
}
