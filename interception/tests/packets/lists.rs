//! Long lists of ports and ranges.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use lateen_interception::settings::{PortSelection, RangeSelection};
use lateen_interception::{RedirectPlan, Settings, State, apply, verify};
use lateen_testkit::netns::inside;

use crate::world::{APPLICATION, World, arrives, listen};

/// Every list as long as it is, and the rules that carry them.
fn long_lists(length: u32) -> Settings {
    let ports: Vec<u16> = (1..=length).map(|n| u16::try_from(n * 2).unwrap()).collect();
    let ranges = |first: u8| -> Vec<ipnet::IpNet> {
        let four = (0..length).map(|n| {
            let address = u32::from_be_bytes([first, 0, 0, 0]) + (n << 9);
            ipnet::Ipv4Net::new(address.into(), 24).unwrap().into()
        });
        four.collect()
    };
    Settings {
        inbound_ports: PortSelection::Only(ports.clone()),
        outbound_ports: ports.clone(),
        outbound_ports_exclude: ports,
        outbound_ranges: RangeSelection::Only(ranges(100)),
        outbound_ranges_exclude: ranges(200),
        ..Settings::default()
    }
}

/// By nftables; iptables has one rule for each range, as with Istio.
#[test]
fn long_lists_add_no_rules() {
    if !inside("lists::long_lists_add_no_rules") {
        return;
    }
    let _world = World::new();
    let rules = || {
        let output = Command::new("nft").args(["-s", "list", "table", "inet", "lateen"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().filter(|line| line.contains(" comment ")).count()
    };
    let count = |length| {
        let plan = RedirectPlan::new(&long_lists(length));
        apply(&plan).unwrap();
        assert_eq!(verify(&plan).unwrap(), State::Planned);
        rules()
    };
    let short = count(1);
    // 4096 is the most that a list may have.
    let most = if on_real_root() { 4096 } else { 200 };
    for length in [2, 200, 1000.min(most), most] {
        let long = count(length);
        assert!(
            long <= short + 25 && long <= 40,
            "{length} entries: {long} rules, {short} for one"
        );
    }
    let proxy = listen(15001);
    let last = (most - 1) << 9;
    let to = |address: u32, port| SocketAddr::new(IpAddr::V4(address.into()), port);
    let base = u32::from_be_bytes([100, 0, 0, 0]);
    assert!(arrives(&proxy, APPLICATION, to(base + last + 255, 9001)), "in the last range");
    assert!(!arrives(&proxy, APPLICATION, to(base + last + 256, 9001)), "past the last range");
    assert!(!arrives(&proxy, APPLICATION, to(base + last, 4)), "an excluded port");
}

/// Whether the sizes of sockets are not bounded, as they are for an ordinary user.
fn on_real_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace().nth(1) == Some("0")
}
