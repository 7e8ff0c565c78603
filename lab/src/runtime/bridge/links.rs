//! The interfaces of the bridge plugin, over rtnetlink, in both network namespaces.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use lateen_interception::netns::run_in;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::{Error, Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::CniError;
use crate::node::network::{add_address, index_of, set, up};

/// What a sandbox is to get.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) netns: &'a Path,
    pub(super) interface: &'a str,
    pub(super) host: &'a str,
    pub(super) addresses: &'a [IpNet],
    pub(super) gateways: &'a [IpAddr],
}

/// Hardware addresses of both ends.
#[derive(Debug)]
pub(super) struct Macs {
    pub(super) host: String,
    pub(super) sandbox: String,
}

/// The links of the node.
#[derive(Debug)]
pub(super) struct Links<'a> {
    bridge: &'a str,
    own: File,
}

impl<'a> Links<'a> {
    pub(super) fn open(bridge: &'a str) -> Result<Self, CniError> {
        let path = "/proc/self/ns/net";
        let own = File::open(path).map_err(|e| CniError::new(5, format!("{path}: {e}")))?;
        Ok(Self { bridge, own })
    }

    /// Hardware address of the bridge.
    pub(super) fn bridge(&self) -> Result<String, CniError> {
        let mac = with(async |handle| mac_of(&handle, self.bridge).await);
        mac.map_err(|e| {
            let bridge = self.bridge;
            CniError::new(50, format!("bridge {bridge}: {}; the node makes it", e.message))
        })
    }

    /// Makes the pair, connects it and configures the sandbox's end. On failure nothing is left
    /// of it, and nothing of others is touched.
    pub(super) fn connect(&self, wanted: &Wanted<'_>) -> Result<Macs, CniError> {
        inside(wanted.netns, || {
            with(async |handle| {
                let pair = LinkVeth::new(wanted.interface, wanted.host).build();
                handle.link().add(pair).execute().await
            })
        })?;
        let done = self.attach(wanted);
        if done.is_err() {
            self.disconnect(wanted.netns, wanted.interface, wanted.host);
        }
        done
    }

    fn attach(&self, wanted: &Wanted<'_>) -> Result<Macs, CniError> {
        inside(wanted.netns, || {
            with(async |handle| {
                let outwards = LinkUnspec::new_with_name(wanted.host)
                    .setns_by_fd(self.own.as_raw_fd())
                    .build();
                handle.link().set(outwards).execute().await
            })
        })?;
        let host = with(async |handle| {
            let bridge = index_of(&handle, self.bridge).await?;
            let joined = LinkUnspec::new_with_name(wanted.host).controller(bridge).up().build();
            handle.link().set(joined).execute().await?;
            mac_of(&handle, wanted.host).await
        })?;
        let sandbox = inside(wanted.netns, || configure(wanted))?;
        Ok(Macs { host, sandbox })
    }

    /// Removes the pair, by either end; what is gone is fine.
    pub(super) fn disconnect(&self, netns: &Path, interface: &str, host: &str) {
        let remove = |name: &str| with(async |handle| delete(&handle, name).await);
        if !netns.as_os_str().is_empty() && netns.exists() {
            drop(inside(netns, || remove(interface)));
        }
        drop(remove(host));
    }

    /// Addresses of an interface of a sandbox.
    pub(super) fn addresses(&self, netns: &Path, interface: &str) -> Result<Vec<IpAddr>, CniError> {
        inside(netns, || {
            with(async |handle| {
                let index = index_of(&handle, interface).await?;
                let request = handle.address().get().set_link_index_filter(index);
                let messages: Vec<_> = request.execute().try_collect().await?;
                let addresses = messages.iter().flat_map(|message| &message.attributes);
                Ok(addresses
                    .filter_map(|attribute| match attribute {
                        AddressAttribute::Address(address) => Some(*address),
                        _ => None,
                    })
                    .collect())
            })
        })
    }
}

/// Inside of the sandbox: `lo`, the interface, addresses, default routes.
fn configure(wanted: &Wanted<'_>) -> Result<String, CniError> {
    if Path::new("/proc/sys/net/ipv6").exists() {
        // Nobody else gives addresses here, so nothing is waited for.
        for of in ["all", "default", wanted.interface] {
            for (name, value) in [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0")] {
                set(&format!("ipv6/conf/{of}/{name}"), value)
                    .map_err(|e| CniError::new(5, e.to_string()))?;
            }
        }
    }
    with(async |handle| {
        up(&handle, "lo").await?;
        let index = up(&handle, wanted.interface).await?;
        for address in wanted.addresses {
            add_address(&handle, index, address.addr(), address.prefix_len()).await?;
        }
        for gateway in wanted.gateways {
            let route = match gateway {
                IpAddr::V4(gateway) => {
                    RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(*gateway).build()
                }
                IpAddr::V6(gateway) => {
                    RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(*gateway).build()
                }
            };
            handle.route().add(route).execute().await?;
        }
        mac_of(&handle, wanted.interface).await
    })
}

async fn delete(handle: &Handle, name: &str) -> Result<(), Error> {
    let index = index_of(handle, name).await?;
    handle.link().del(index).execute().await
}

async fn mac_of(handle: &Handle, name: &str) -> Result<String, Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await?.ok_or(Error::RequestFailed)?;
    Ok(mac(&link))
}

fn mac(link: &LinkMessage) -> String {
    let bytes = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    let parts = bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}"));
    parts.collect::<Vec<_>>().join(":")
}

fn inside<T: Send>(
    netns: &Path,
    work: impl FnOnce() -> Result<T, CniError> + Send,
) -> Result<T, CniError> {
    run_in(netns, work).map_err(|e| CniError::new(5, e.to_string()))?
}

/// Talks to the kernel in the network namespace of this thread.
fn with<T, F>(work: impl FnOnce(Handle) -> F) -> Result<T, CniError>
where
    F: Future<Output = Result<T, Error>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(|e| CniError::new(5, format!("runtime: {e}")))?;
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|e| CniError::new(5, format!("netlink socket: {e}")))?;
        let connection = tokio::spawn(connection);
        let done = work(handle).await;
        connection.abort();
        done.map_err(|e| CniError::new(102, format!("network interfaces: {e}")))
    })
}
