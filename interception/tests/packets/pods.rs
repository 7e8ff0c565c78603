//! Pods of every kind: of one address family, with more interfaces, with user ids of their own.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use clap::Parser;
use lateen_interception::settings::flags::{Flags, Surroundings};
use lateen_interception::{RedirectPlan, State, apply, cleanup, validate, verify};
use lateen_testkit::netns::inside;

use crate::carrier::On;
use crate::world::{
    APPLICATION, PROXY, World, arrives, both, everything, listen, nothing_is_left, run,
};

/// Calls to a neighbour and from it, by each pair of addresses: this pod's and the neighbour's.
fn captured_both_ways(on: On, world: &World, addresses: &[(&str, &str)]) {
    let plan = RedirectPlan::new(&everything());
    on.apply(&plan).unwrap();
    assert_eq!(on.verify(&plan).unwrap(), State::Planned);
    let (out, inward) = (listen_where_there_is(15001), listen_where_there_is(15006));
    for (own, theirs) in addresses {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
        assert!(arrives(&out, APPLICATION, at(theirs)), "to {theirs}");
        assert!(!arrives(&out, PROXY, at(theirs)), "of the proxy to {theirs}");
        assert!(world.within(|| arrives(&inward, 0, at(own))), "to {own}");
    }
    drop((out, inward));
    validate::validate(&everything(), 15002, Duration::from_secs(5)).unwrap();
    on.cleanup().unwrap();
    assert_eq!(on.verify(&plan).unwrap(), State::Absent);
    nothing_is_left();
}

/// Without IPv6 there is no `[::]`.
fn listen_where_there_is(port: u16) -> TcpListener {
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)));
    let listener = listener.unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

pub(crate) fn a_pod_with_only_ipv6_is_captured(on: On) {
    let world = World::new();
    run("ip -4 addr flush dev eth0");
    captured_both_ways(on, &world, &[("fd77::1", "fd77::2")]);
}

pub(crate) fn a_pod_whose_ipv6_is_switched_off_is_captured(on: On) {
    let world = World::new();
    for which in ["all", "default", "lo", "eth0"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        std::fs::write(path, "1").unwrap();
    }
    captured_both_ways(on, &world, &[("10.77.0.1", "10.77.0.2")]);
}

pub(crate) fn every_interface_is_captured_unless_it_is_excluded(on: On) {
    let world = World::new();
    run(&format!("ip link add net1 type veth peer name net1 netns {}", world.process.id()));
    run("ip addr add 10.78.0.1/24 dev net1");
    run("ip -6 addr add fd78::1/64 dev net1 nodad");
    run("ip link set net1 up");
    world.within(|| {
        run("ip addr add 10.78.0.2/24 dev net1");
        run("ip -6 addr add fd78::2/64 dev net1 nodad");
        run("ip link set net1 up");
    });
    let flags = Flags::parse_from(["lateen-init", "-b", "*", "-i", "*", "-c", "net1"]);
    let around = Surroundings {
        variable: |_: &str| None,
        passwd: String::new(),
        group: String::new(),
        resolv_conf: String::new(),
    };
    let excluded = flags.resolve(&around).unwrap().settings;
    let (application, remote) = (listen(80), world.within(|| listen(80)));
    let (out, inward) = (listen(15001), listen(15006));
    for (settings, captured) in [(everything(), true), (excluded, false)] {
        on.apply(&RedirectPlan::new(&settings)).unwrap();
        let (outward, inward) = if captured { (&out, &inward) } else { (&remote, &application) };
        for (own, theirs) in [("10.78.0.1", "10.78.0.2"), ("fd78::1", "fd78::2")] {
            let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 80);
            // The first packets of a new link may be lost.
            let to = |listener, ip| (0..10).any(|_| arrives(listener, APPLICATION, at(ip)));
            assert!(to(outward, theirs), "captured {captured}, to {theirs}");
            assert!(world.within(|| to(inward, own)), "captured {captured}, to {own}");
        }
        // The first interface stays captured.
        let eth0 = "10.77.0.2:80".parse().unwrap();
        assert!(arrives(&out, APPLICATION, eth0), "captured {captured}");
    }
}

/// Ids of a pod with a user namespace of its own (`hostUsers: false`) are those that it sees itself. The
/// iptables programs cannot do this.
#[test]
fn ids_are_those_that_the_pod_sees() {
    if !inside("pods::ids_are_those_that_the_pod_sees") {
        return;
    }
    const SHIFT: u32 = 10_000;
    run("ip link set lo up");
    let process = Command::new("unshare").args(["--user", "--net", "sleep", "60"]).spawn().unwrap();
    let pod = World { process };
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    while std::fs::read_link(pod.path()).is_ok_and(|theirs| theirs == own) {
        thread::yield_now();
    }
    for map in ["uid_map", "gid_map"] {
        let path = format!("/proc/{}/{map}", pod.process.id());
        std::fs::write(path, format!("0 {SHIFT} 5000\n")).unwrap();
    }
    run(&format!("ip link add host type veth peer name eth0 netns {}", pod.process.id()));
    run("ip addr add 10.77.0.2/24 dev host");
    run("ip -6 addr add fd77::2/64 dev host nodad");
    run("ip link set host up");
    let remote = listen(80);
    pod.within(|| {
        run("ip link set lo up");
        run("ip addr add 10.77.0.1/24 dev eth0");
        run("ip -6 addr add fd77::1/64 dev eth0 nodad");
        run("ip link set eth0 up");
        let plan = RedirectPlan::new(&everything());
        apply(&plan).unwrap();
        assert_eq!(verify(&plan).unwrap(), State::Planned);
        let proxy = listen(15001);
        for to in both("10.77.0.2", "fd77::2", 80) {
            let goes_out = || (0..10).any(|_| arrives(&remote, SHIFT + PROXY, to));
            assert!(goes_out(), "{to} of the proxy");
            assert!(arrives(&proxy, SHIFT + APPLICATION, to), "{to} of the application");
            assert!(!arrives(&remote, SHIFT + APPLICATION, to), "{to} of the application");
        }
        cleanup().unwrap();
        assert_eq!(verify(&plan).unwrap(), State::Absent);
    });
}
