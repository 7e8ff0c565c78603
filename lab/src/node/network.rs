//! The node's own network: `lo`, the bridge with the gateway addresses, forwarding.

use std::net::IpAddr;
use std::path::Path;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};

use super::{BRIDGE, NodeError};

/// Length of the prefix of pod addresses, IPv4 and IPv6.
pub(crate) const PREFIXES: [u8; 2] = [16, 64];

/// Makes the network; tells whether there is IPv6 on this machine.
pub(super) async fn make(gateway: [IpAddr; 2]) -> Result<bool, NodeError> {
    let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    // Addresses are ours alone: looking for duplicates would only delay their use.
    let mut settings = vec![("ipv4/ip_forward", "1")];
    if ipv6 {
        settings.extend([
            ("ipv6/conf/all/disable_ipv6", "0"),
            ("ipv6/conf/default/disable_ipv6", "0"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/forwarding", "1"),
        ]);
    }
    for (name, value) in settings {
        set(name, value)?;
    }
    let failed = |e: &dyn std::fmt::Display| NodeError(format!("network of the node: {e}"));
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| failed(&e))?;
    let connection = tokio::spawn(connection);
    let made = bridge(&handle, gateway, ipv6).await.map_err(|e| failed(&e));
    connection.abort();
    made.map(|()| ipv6)
}

async fn bridge(handle: &Handle, gateway: [IpAddr; 2], ipv6: bool) -> Result<(), rtnetlink::Error> {
    up(handle, "lo").await?;
    handle.link().add(LinkBridge::new(BRIDGE).build()).execute().await?;
    let index = up(handle, BRIDGE).await?;
    for (address, prefix) in gateway.into_iter().zip(PREFIXES) {
        if address.is_ipv4() || ipv6 {
            add_address(handle, index, address, prefix).await?;
        }
    }
    Ok(())
}

/// Switches an interface on and gives its index.
pub(crate) async fn up(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let index = index_of(handle, name).await?;
    handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    Ok(index)
}

/// Index of an interface.
pub(crate) async fn index_of(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await?;
    link.map(|link| link.header.index).ok_or(rtnetlink::Error::RequestFailed)
}

/// Puts an address on an interface, usable at once.
pub(crate) async fn add_address(
    handle: &Handle,
    index: u32,
    address: IpAddr,
    prefix: u8,
) -> Result<(), rtnetlink::Error> {
    let mut request = handle.address().add(index, address, prefix);
    if address.is_ipv6() {
        let flags = AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Permanent);
        request.message_mut().attributes.push(flags);
    }
    request.execute().await
}

/// Sets a value below `/proc/sys/net` in the network namespace of this thread.
pub(crate) fn set(name: &str, value: &str) -> Result<(), NodeError> {
    let file = Path::new("/proc/sys/net").join(name);
    std::fs::write(&file, value).map_err(|e| NodeError(format!("{}: {e}", file.display())))
}
