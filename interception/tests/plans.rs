//! What holds of plans whatever the settings: no gap between two of them, and long lists that add no
//! rules.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::net::SocketAddr;

use lateen_interception::plan::{Chain, Hook, Protocol};
use lateen_interception::settings::{Mode, PortSelection, RangeSelection};
use lateen_interception::trace::{Origin, Packet, Tracking, Way, trace};
use lateen_interception::{RedirectPlan, Settings};
use proptest::prelude::*;

fn inbound() -> impl Strategy<Value = Settings> {
    let ports = || prop::collection::vec(78_u16..82, 0..3);
    let mode = prop::sample::select(vec![Mode::Redirect, Mode::Tproxy]);
    (mode, any::<bool>(), ports(), ports(), any::<bool>(), any::<bool>()).prop_map(
        |(mode, all, only, exclude, drop_invalid, virtual_machine)| Settings {
            mode,
            inbound_ports: if all { PortSelection::All } else { PortSelection::Only(only) },
            inbound_ports_exclude: exclude,
            outbound_ranges: RangeSelection::All,
            drop_invalid,
            tproxy_mark: if drop_invalid { 1337 } else { 7 },
            ..virtual_machines(virtual_machine)
        },
    )
}

fn virtual_machines(some: bool) -> Settings {
    use clap::Parser;
    use lateen_interception::settings::flags::{Flags, Surroundings};
    let flags: &[&str] = if some { &["lateen-init", "-k", "net1"] } else { &["lateen-init"] };
    let around = Surroundings {
        variable: |_: &str| None,
        passwd: String::new(),
        group: String::new(),
        resolv_conf: String::new(),
    };
    Flags::parse_from(flags).resolve(&around).unwrap().settings
}

/// The chains of `old` up to the `met`-th hook, those of `new` after it: what a packet meets while
/// the one replaces the other. Each chain is exchanged whole, but not at the same time as another
/// that the packet has passed already.
fn between(old: &RedirectPlan, new: &RedirectPlan, met: usize) -> RedirectPlan {
    let hooks = [
        Hook::RawPrerouting,
        Hook::RawOutput,
        Hook::ManglePrerouting,
        Hook::MangleOutput,
        Hook::NatPrerouting,
        Hook::NatOutput,
    ];
    let chains = hooks.iter().enumerate().filter_map(|(at, hook)| {
        let plan = if at < met { old } else { new };
        plan.chains.iter().find(|chain| chain.hook == *hook).cloned()
    });
    RedirectPlan { chains: chains.collect::<Vec<Chain>>(), mark_route: None }
}

/// What is included and excluded at once: exclusions win, but for inbound ports that are listed, as with
/// Istio.
#[test]
fn contradictions_are_decided_as_by_others() {
    let ranges = |text: &str| vec![text.parse().unwrap()];
    let settings = Settings {
        inbound_ports: PortSelection::Only(vec![80]),
        inbound_ports_exclude: vec![80],
        outbound_ranges: RangeSelection::Only(ranges("10.0.0.0/8")),
        outbound_ranges_exclude: ranges("10.0.0.0/8"),
        outbound_ports: vec![80, 81],
        outbound_ports_exclude: vec![80],
        ..Settings::default()
    };
    let plan = RedirectPlan::new(&settings);
    let way = |outbound: bool, to: &str| {
        let interface = "eth0".to_owned();
        let packet = Packet {
            origin: if outbound {
                Origin::Process { uid: 7, gid: 7, interface }
            } else {
                Origin::Network { interface }
            },
            protocol: Some(Protocol::Tcp),
            source: "0.0.0.0:0".parse().unwrap(),
            destination: to.parse().unwrap(),
            mark: 0,
            tracking: Tracking::New,
        };
        trace(&plan, &packet).way
    };
    assert_eq!(way(true, "10.0.0.1:443"), Way::Untouched, "the range that is excluded");
    assert_eq!(way(true, "10.0.0.1:81"), Way::Untouched, "a port of that range");
    assert_eq!(way(true, "11.0.0.1:81"), Way::Redirected(15001), "that port of another range");
    assert_eq!(way(true, "11.0.0.1:80"), Way::Untouched, "the port that is excluded");
    assert_eq!(
        way(false, "10.0.0.1:80"),
        Way::Redirected(15006),
        "the inbound port that is listed"
    );
}

proptest! {
    #[test]
    fn a_packet_between_two_plans_does_not_get_in_past_the_proxy(
        old in inbound(),
        new in inbound(),
        port in 77_u16..83,
        met in 0_usize..7,
        interface in prop::sample::select(vec!["eth0", "net1"]),
        six in any::<bool>(),
    ) {
        let ip = if six { "[fd00::1]" } else { "10.0.0.1" };
        let destination: SocketAddr = format!("{ip}:{port}").parse().unwrap();
        let packet = Packet {
            origin: Origin::Network { interface: interface.to_owned() },
            protocol: Some(Protocol::Tcp),
            source: if six { "[fd00::2]:9" } else { "10.0.0.2:9" }.parse().unwrap(),
            destination,
            mark: 0,
            tracking: Tracking::New,
        };
        let captured = |plan: &RedirectPlan| {
            matches!(trace(plan, &packet).way, Way::Redirected(_) | Way::Tproxied(_))
        };
        let (old, new) = (RedirectPlan::new(&old), RedirectPlan::new(&new));
        if captured(&old) && captured(&new) {
            prop_assert!(captured(&between(&old, &new, met)), "{old:?}\n{new:?}");
        }
    }
}
