//! The DNS name table.

use super::field::ip;
use super::{At, Refusal};
use crate::config::NameTable;
use lateen_xds::istio::NameTable as Proto;
use std::collections::HashMap;

/// Longest list of addresses of one name.
const MAX_ADDRESSES: usize = 10_000;

/// Takes a name table.
///
/// # Errors
/// When an address is not one.
pub fn name_table(proto: &Proto) -> Result<NameTable, Refusal> {
    let mut hosts = HashMap::with_capacity(proto.table.len());
    for (host, info) in &proto.table {
        let addresses = super::each("ips", &info.ips, |text| ip(text))
            .at(&format!("table[{host}]"))
            .of("names", "NameTable")?;
        if addresses.len() > MAX_ADDRESSES {
            return Err(Refusal::new(format!("more than {MAX_ADDRESSES} addresses")))
                .at(&format!("table[{host}]"))
                .of("names", "NameTable");
        }
        hosts.insert(canonical(host), addresses);
    }
    Ok(NameTable { hosts })
}

fn canonical(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}
