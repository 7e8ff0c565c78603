//! Out of the pod, into it, and questions for names.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::thread;

use lateen_interception::settings::{DnsCapture, RangeSelection};
use lateen_interception::{RedirectPlan, Settings};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::carrier::On;
use crate::world::{APPLICATION, PROXY, World, arrives, both, everything, listen, ready};

pub(crate) fn outbound_goes_to_the_proxy_unless_it_is_its_own(on: On) {
    let world = World::new();
    let settings = Settings {
        outbound_ports_exclude: vec![8443, 8444],
        outbound_ranges_exclude: vec![
            "192.0.2.0/24".parse().unwrap(),
            "fd02::/16".parse().unwrap(),
        ],
        ..everything()
    };
    let remote = world.within(|| [listen(80), listen(8444)]);
    on.apply(&RedirectPlan::new(&settings)).unwrap();
    let proxy = listen(15001);
    for to in both("203.0.113.7", "fd99::7", 80) {
        assert!(arrives(&proxy, APPLICATION, to), "{to} of the application");
        assert!(arrives(&proxy, 0, to), "{to} of root");
        assert!(!arrives(&proxy, PROXY, to), "{to} of the proxy");
    }
    for to in both("10.77.0.2", "fd77::2", 80) {
        assert!(arrives(&remote[0], PROXY, to), "{to} of the proxy goes out");
        assert!(!arrives(&remote[0], APPLICATION, to), "{to} of the application does not");
    }
    for to in both("10.77.0.2", "fd77::2", 8444) {
        assert!(arrives(&remote[1], APPLICATION, to), "{to} has an excluded port");
    }
    for to in both("192.0.2.9", "fd02::9", 80) {
        assert!(!arrives(&proxy, APPLICATION, to), "{to} is in an excluded range");
    }
}

pub(crate) fn only_listed_ranges_are_captured(on: On) {
    let _world = World::new();
    let ranges = ["198.51.100.0/25", "198.51.100.200", "fd05::/32", "fd06::1"];
    let ranges = ranges
        .iter()
        .map(|r| r.parse().or_else(|_| r.parse::<IpAddr>().map(ipnet::IpNet::from)).unwrap());
    let settings = Settings {
        outbound_ranges: RangeSelection::Only(ranges.collect()),
        outbound_ports: vec![9000, 9001],
        ..Settings::default()
    };
    on.apply(&RedirectPlan::new(&settings)).unwrap();
    let proxy = listen(15001);
    for (address, port, captured) in [
        ("198.51.100.0", 80, true),
        ("198.51.100.127", 80, true),
        ("198.51.100.128", 80, false),
        ("198.51.100.200", 80, true),
        ("198.51.100.201", 80, false),
        ("198.51.100.201", 9001, true),
        ("fd05::5", 80, true),
        ("fd05:1::5", 80, false),
        ("fd06::1", 80, true),
        ("fd06::2", 80, false),
        ("fd06::2", 9000, true),
    ] {
        let to = SocketAddr::new(address.parse().unwrap(), port);
        assert_eq!(arrives(&proxy, APPLICATION, to), captured, "{to}");
    }
}

pub(crate) fn inbound_goes_to_the_proxy_except_for_excluded_ports(on: On) {
    let world = World::new();
    let settings = Settings { inbound_ports_exclude: vec![15020, 15021], ..everything() };
    on.apply(&RedirectPlan::new(&settings)).unwrap();
    let (proxy, status, tunnel) = (listen(15006), listen(15021), listen(15008));
    let from_outside = |listener: &TcpListener, to| world.within(|| arrives(listener, 0, to));
    for port in [80, 8080] {
        for to in both("10.77.0.1", "fd77::1", port) {
            assert!(from_outside(&proxy, to), "{to}");
        }
    }
    for to in both("10.77.0.1", "fd77::1", 15021) {
        assert!(from_outside(&status, to), "{to}");
    }
    for to in both("10.77.0.1", "fd77::1", 15008) {
        assert!(from_outside(&tunnel, to), "{to}");
    }
}

pub(crate) fn questions_for_names_go_to_the_proxy(on: On) {
    let world = World::new();
    let settings = Settings { dns: DnsCapture::All, ..everything() };
    let upstream = world.within(|| UdpSocket::bind("[::]:53").unwrap());
    on.apply(&RedirectPlan::new(&settings)).unwrap();
    let proxy = UdpSocket::bind("[::]:15053").unwrap();
    let proxy_tcp = listen(15053);
    let ask = |uid: u32, to: SocketAddr| {
        thread::scope(|scope| {
            let own = scope.spawn(move || {
                setfsgid(Gid::from_raw(uid));
                setfsuid(Uid::from_raw(uid));
                let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.send_to(b"?", to).unwrap();
                socket
            });
            own.join().unwrap()
        })
    };
    let taken = |socket: &UdpSocket| ready(socket) && socket.recv_from(&mut [0; 16]).is_ok();
    for to in both("10.77.0.2", "fd77::2", 53) {
        let question = ask(APPLICATION, to);
        assert!(taken(&proxy), "{to} of the application");
        drop(question);
        // The first datagrams to a new neighbour may be lost while its link comes up.
        let arrived = (0..20).any(|_| {
            drop(ask(PROXY, to));
            taken(&upstream)
        });
        assert!(arrived, "{to} of the proxy");
        assert!(arrives(&proxy_tcp, APPLICATION, to), "{to} over TCP");
    }
}
