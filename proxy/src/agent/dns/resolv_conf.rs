//! `resolv.conf`: name servers and search domains. Pure.

use std::net::{IpAddr, SocketAddr};

/// Most name servers and search domains that are used.
const MAX_ENTRIES: usize = 16;

/// What is read of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers.
    pub servers: Vec<SocketAddr>,
    /// Search domains, lower case, without dots at the ends.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads the text of the file; what is malformed is left out, as resolvers do.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    if let Some(address) = address
                        && conf.servers.len() < MAX_ENTRIES
                    {
                        conf.servers.push(SocketAddr::new(address, 53));
                    }
                }
                // The last one counts.
                Some("search" | "domain") => {
                    let clean = |word: &str| word.trim_matches('.').to_ascii_lowercase();
                    conf.search =
                        words.map(clean).filter(|w| !w.is_empty()).take(MAX_ENTRIES).collect();
                }
                _ => {}
            }
        }
        conf
    }
}
