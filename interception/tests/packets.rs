//! Real packets through real rules, each test in a network namespace of its own, for each carrier of
//! rules.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lateen_interception::settings::{
    Backend, DnsCapture, IptablesKind, Mode, PortSelection, RangeSelection,
};
use lateen_interception::{RedirectPlan, Settings, State, apply, backend, cleanup, netns, verify};
use lateen_testkit::netns::inside;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

const APPLICATION: u32 = 2000;
const PROXY: u32 = 1337;
const WAIT: Duration = Duration::from_millis(400);

fn run(line: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    let done = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; install iproute2 and nftables"));
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A neighbour of this namespace behind `eth0`: 10.77.0.2 and fd77::2.
struct World {
    process: Child,
}

impl World {
    fn new() -> Self {
        run("ip link set lo up");
        let process = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
        let world = Self { process };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(world.path()).is_ok_and(|theirs| theirs == own) {
            thread::yield_now();
        }
        run(&format!("ip link add eth0 type veth peer name eth0 netns {}", world.process.id()));
        run("ip addr add 10.77.0.1/24 dev eth0");
        run("ip -6 addr add fd77::1/64 dev eth0 nodad");
        run("ip link set eth0 up");
        run("ip route add default via 10.77.0.2");
        run("ip -6 route add default via fd77::2");
        world.within(|| {
            run("ip link set lo up");
            run("ip addr add 10.77.0.2/24 dev eth0");
            run("ip -6 addr add fd77::2/64 dev eth0 nodad");
            run("ip link set eth0 up");
        });
        // Duplicate address detection of the link must be over: a closed port answers then.
        for to in both("10.77.0.2", "fd77::2", 1) {
            let closed = || connect_as(0, to).is_err_and(|e| e.raw_os_error() == Some(111));
            assert!((0..20).any(|_| closed()), "{to} is not reached");
        }
        world
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.process.id()))
    }

    fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run_in(&self.path(), work).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn everything() -> Settings {
    Settings {
        inbound_ports: PortSelection::All,
        outbound_ranges: RangeSelection::All,
        ..Settings::default()
    }
}

fn listen(port: u16) -> TcpListener {
    let listener = TcpListener::bind(("::", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn ready(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(WAIT).unwrap()).unwrap() > 0
}

fn connect_as(uid: u32, to: SocketAddr) -> io::Result<TcpStream> {
    thread::scope(|scope| {
        let call = scope.spawn(move || {
            setfsgid(Gid::from_raw(uid));
            setfsuid(Uid::from_raw(uid));
            TcpStream::connect_timeout(&to, WAIT)
        });
        call.join().unwrap()
    })
}

/// Whether a call arrives at a listener, with everything before it taken away.
fn arrives(listener: &TcpListener, uid: u32, to: SocketAddr) -> bool {
    while listener.accept().is_ok() {}
    let call = connect_as(uid, to);
    let arrived = ready(listener) && listener.accept().is_ok();
    drop(call);
    arrived
}

fn both(v4: &str, v6: &str, port: u16) -> [SocketAddr; 2] {
    let address = |text: &str| SocketAddr::new(text.parse::<IpAddr>().unwrap(), port);
    [address(v4), address(v6)]
}

/// What carries the rules of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// nftables, as the node agent sets them.
    Nftables,
    Iptables(IptablesKind),
}

impl On {
    fn apply(self, plan: &RedirectPlan) -> Result<(), String> {
        match self {
            Self::Nftables => apply(plan).map_err(|e| e.to_string()),
            Self::Iptables(kind) => backend::apply(plan, Backend::Iptables, Some(kind))
                .map(drop)
                .map_err(|e| e.to_string()),
        }
    }

    fn verify(self, plan: &RedirectPlan) -> Result<State, String> {
        match self {
            Self::Nftables => verify(plan).map_err(|e| e.to_string()),
            Self::Iptables(kind) => {
                backend::verify(plan, Backend::Iptables, Some(kind)).map_err(|e| e.to_string())
            }
        }
    }

    fn cleanup(self) -> Result<(), String> {
        match self {
            Self::Nftables => cleanup().map_err(|e| e.to_string()),
            Self::Iptables(_) => backend::cleanup().map_err(|e| e.to_string()),
        }
    }

    /// Processes take milliseconds where netlink takes microseconds.
    fn rounds(self, nftables: usize) -> usize {
        if self == Self::Nftables { nftables } else { nftables / 5 }
    }

    /// The legacy tables are absent from some kernels, and cannot be listed in a namespace that is
    /// older than its user ids, as that of an ordinary user here.
    fn is_here(self) -> bool {
        let works = |program, args: &[&str]| {
            // The lock cannot be made by an ordinary user.
            let mut command = Command::new(program);
            command.args(args).env("XTABLES_LOCKFILE", "/dev/null");
            command.output().expect("apt-get install iptables").status.success()
        };
        let here = self != Self::Iptables(IptablesKind::Legacy)
            || works("iptables-legacy", &["-t", "nat", "-S"]) && works("iptables-legacy-save", &[]);
        if !here {
            println!("NOT RUN: legacy iptables does not work here");
        }
        here
    }
}

/// Each of the tests, inside a namespace, with the rules carried by this.
macro_rules! carried_by {
    ($module:ident, $on:expr, [$($test:ident),* $(,)?]) => {
        mod $module {
            use super::*;
            $(
                #[test]
                fn $test() {
                    if inside(concat!(stringify!($module), "::", stringify!($test))) && $on.is_here() {
                        super::$test($on);
                    }
                }
            )*
        }
    };
}

macro_rules! on_every_carrier {
    ($tests:tt) => {
        carried_by!(nftables, On::Nftables, $tests);
        carried_by!(iptables_nft, On::Iptables(IptablesKind::Nft), $tests);
        carried_by!(iptables_legacy, On::Iptables(IptablesKind::Legacy), $tests);
    };
}

on_every_carrier!([
    outbound_goes_to_the_proxy_unless_it_is_its_own,
    only_listed_ranges_are_captured,
    inbound_goes_to_the_proxy_except_for_excluded_ports,
    questions_for_names_go_to_the_proxy,
    rules_are_replaced_verified_and_removed,
    two_at_once_leave_the_rules_of_one,
    nothing_gets_past_while_rules_are_replaced,
    nothing_gets_in_past_the_proxy_while_the_mode_changes,
]);

fn outbound_goes_to_the_proxy_unless_it_is_its_own(on: On) {
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

fn only_listed_ranges_are_captured(on: On) {
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

fn inbound_goes_to_the_proxy_except_for_excluded_ports(on: On) {
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

fn questions_for_names_go_to_the_proxy(on: On) {
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

fn rules_are_replaced_verified_and_removed(on: On) {
    run("ip link set lo up");
    run("nft add table inet foreign");
    run("nft add chain inet foreign kept");
    let first = RedirectPlan::new(&everything());
    // An ordinary user's iptables-nft does not get more into its socket.
    let ranges = if on == On::Nftables { 1000u32 } else { 200 };
    let second = RedirectPlan::new(&Settings {
        mode: Mode::Tproxy,
        dns: DnsCapture::Servers(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
        inbound_ports: PortSelection::Only((1000..4000).collect()),
        outbound_ranges: RangeSelection::Only(
            (0..ranges)
                .map(|n| ipnet::Ipv4Net::new((n << 16).into(), 17).unwrap().into())
                .collect(),
        ),
        drop_invalid: true,
        ..Settings::default()
    });
    assert_eq!(on.verify(&first).unwrap(), State::Absent);
    for _ in 0..2 {
        for plan in [&first, &first, &second, &second] {
            on.apply(plan).unwrap();
            assert_eq!(on.verify(plan).unwrap(), State::Planned);
            let other = if plan == &first { &second } else { &first };
            assert!(matches!(on.verify(other).unwrap(), State::Differs(_)));
        }
    }
    on.cleanup().unwrap();
    on.cleanup().unwrap();
    assert_eq!(on.verify(&first).unwrap(), State::Absent);
    run("nft list chain inet foreign kept");
    let left = Command::new("ip").args(["rule"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&left.stdout).contains("fwmark"));
}

fn two_at_once_leave_the_rules_of_one(on: On) {
    run("ip link set lo up");
    let plan = RedirectPlan::new(&everything());
    for _ in 0..on.rounds(50) {
        on.cleanup().unwrap();
        thread::scope(|scope| {
            let both = [scope.spawn(|| on.apply(&plan)), scope.spawn(|| on.apply(&plan))];
            for done in both {
                done.join().unwrap().unwrap();
            }
        });
        assert_eq!(on.verify(&plan).unwrap(), State::Planned);
    }
}

#[test]
fn a_changed_rule_is_named() {
    if !inside("a_changed_rule_is_named") {
        return;
    }
    run("ip link set lo up");
    let plan = RedirectPlan::new(&everything());
    for (change, word) in [
        ("nft insert rule inet lateen nat-output accept", "rule 1"),
        ("nft add rule inet lateen nat-output accept", "is not planned"),
        ("nft flush chain inet lateen nat-prerouting", "missing"),
        ("nft add chain inet lateen more", "chains"),
        ("nft add set inet lateen more { type inet_service; }", "set more"),
        ("ip -6 addr del ::6/128 dev lo", "::6"),
    ] {
        apply(&plan).unwrap();
        run(change);
        match verify(&plan).unwrap() {
            State::Differs(text) => assert!(text.contains(word), "{change}: {text}"),
            other => panic!("{change}: {other:?}"),
        }
    }
}

fn nothing_gets_past_while_rules_are_replaced(on: On) {
    let plans = changing_plans();
    let change = |n: usize| on.apply(&plans[n % plans.len()]).unwrap();
    nothing_gets_past(on.rounds(300), change);
}

#[test]
fn nothing_gets_past_while_the_carrier_changes() {
    if !inside("nothing_gets_past_while_the_carrier_changes") {
        return;
    }
    let plans = changing_plans();
    let kinds = [IptablesKind::Nft, IptablesKind::Legacy];
    let kinds: Vec<_> = kinds.into_iter().filter(|kind| On::Iptables(*kind).is_here()).collect();
    // No run of carriers is a run of plans, so that every change is met with every other.
    let mut wishes = vec![(Backend::Auto, None)];
    wishes.extend(kinds.iter().map(|kind| (Backend::Iptables, Some(*kind))));
    wishes.push((Backend::Nft, None));
    let change = |n: usize| {
        let ((wish, kind), plan) = (wishes[n % wishes.len()], &plans[n / 2 % plans.len()]);
        backend::apply(plan, wish, kind).unwrap();
        assert_eq!(backend::verify(plan, wish, kind).unwrap(), State::Planned);
    };
    nothing_gets_past(40, change);
}

fn changing_plans() -> [RedirectPlan; 3] {
    [
        RedirectPlan::new(&everything()),
        RedirectPlan::new(&Settings { outbound_ports_exclude: vec![9], ..everything() }),
        RedirectPlan::new(&Settings { mode: Mode::Tproxy, ..everything() }),
    ]
}

/// Ends clients and proxy of [`nothing_gets_past`], also when a change failed.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        drop(TcpStream::connect("127.0.0.1:15001"));
    }
}

/// Connections out of the pod, all of which must come to the proxy while rules change.
fn nothing_gets_past(rounds: usize, change: impl Fn(usize)) {
    let world = World::new();
    change(0);
    let remote = world.within(|| listen(80));
    let proxy = TcpListener::bind("0.0.0.0:15001").unwrap();
    let (done, captured) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while proxy.accept().is_ok() {
                captured.fetch_add(1, Ordering::Relaxed);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                setfsgid(Gid::from_raw(APPLICATION));
                setfsuid(Uid::from_raw(APPLICATION));
                let to = "10.77.0.2:80".parse().unwrap();
                while !done.load(Ordering::Relaxed) {
                    TcpStream::connect_timeout(&to, Duration::from_secs(2)).unwrap();
                }
            });
        }
        let _end = End(&done);
        for n in 0..rounds {
            change(n);
        }
    });
    assert!(remote.accept().is_err(), "a connection went past the proxy");
    let captured = captured.into_inner();
    assert!(captured > 100, "only {captured} connections were made");
}

fn nothing_gets_in_past_the_proxy_while_the_mode_changes(on: On) {
    let world = World::new();
    let plans = changing_plans();
    on.apply(&plans[0]).unwrap();
    let application = listen(80);
    let proxy = TcpListener::bind("0.0.0.0:15006").unwrap();
    setsockopt(&proxy, sockopt::IpTransparent, &true).unwrap();
    let (done, captured) = (AtomicBool::new(false), AtomicUsize::new(0));
    let to: SocketAddr = "10.77.0.1:80".parse().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if ready(&proxy) && proxy.accept().is_ok() {
                    captured.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        scope.spawn(|| {
            world.within(|| {
                while !done.load(Ordering::Relaxed) {
                    // One that meets the rules of both modes may be reset; none may get in.
                    drop(TcpStream::connect_timeout(&to, WAIT));
                }
            });
        });
        let _end = End(&done);
        for n in 0..on.rounds(150) {
            on.apply(&plans[n % plans.len()]).unwrap();
        }
    });
    assert!(application.accept().is_err(), "a connection went past the proxy");
    let captured = captured.into_inner();
    assert!(captured > 100, "only {captured} connections were made");
}
