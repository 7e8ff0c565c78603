//! Real packets through real rules, each test in a network namespace of its own, for each carrier of
//! rules.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use lateen_interception::settings::flags::{Flags, Surroundings};
use lateen_interception::settings::{
    Backend, DnsCapture, IptablesKind, Mode, PortSelection, RangeSelection,
};
use lateen_interception::{
    RedirectPlan, Settings, State, apply, backend, cleanup, netns, validate, verify,
};
use lateen_testkit::netns::inside;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
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
    nothing_gets_past_while_rules_and_mode_change,
    a_pod_with_only_ipv6_is_captured,
    a_pod_whose_ipv6_is_switched_off_is_captured,
    every_interface_is_captured_unless_it_is_excluded,
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
    // A change of carrier is a change of tables: who meets both may be reset, none may get in.
    drop(nothing_gets_past(40, change));
}

fn changing_plans() -> [RedirectPlan; 4] {
    let tproxy = Settings { mode: Mode::Tproxy, ..everything() };
    let lists = |settings: Settings| Settings {
        outbound_ports_exclude: (9000..9500).collect(),
        inbound_ports_exclude: vec![9],
        outbound_ranges_exclude: vec![
            "192.0.2.0/24".parse().unwrap(),
            "fd02::/16".parse().unwrap(),
        ],
        dns: DnsCapture::All,
        ..settings
    };
    // From each to the next the mode changes, the lists, or both.
    [everything(), tproxy.clone(), lists(everything()), lists(tproxy)]
        .map(|settings| RedirectPlan::new(&settings))
}

/// Ends clients or proxies of [`nothing_gets_past`], also when a change failed.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Source ports of calls. Each is used once: a connection that is still known, by the rules of
/// another mode, would take its successor along.
const SOURCE_PORTS: std::ops::Range<u16> = 16_000..65_000;
/// Calls of one caller for each change of rules.
const CALLS_A_CHANGE: usize = 48;

/// Calls of one direction.
#[derive(Default)]
struct Calls {
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Calls {
    /// Calls as fast as it can. Every call must be answered, by the proxy that writes this byte.
    fn make(&self, to: SocketAddr, by: u8, (changes, done): (&AtomicUsize, &AtomicBool)) {
        for (n, port) in SOURCE_PORTS.enumerate() {
            while n / CALLS_A_CHANGE > changes.load(Ordering::Relaxed)
                && !done.load(Ordering::Relaxed)
            {
                thread::park_timeout(Duration::from_micros(200));
            }
            if done.load(Ordering::Relaxed) {
                return;
            }
            match answer(port, to) {
                Ok(byte) if byte == by => _ = self.answered.fetch_add(1, Ordering::Relaxed),
                other => self.failed.lock().unwrap().push(format!("{port} to {to}: {other:?}")),
            }
        }
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }
}

/// The byte that whoever takes the call writes. The call ends with a reset, which leaves nothing.
fn answer(from: u16, to: SocketAddr) -> io::Result<u8> {
    let (family, any) = match to.ip() {
        IpAddr::V4(_) => (AddressFamily::Inet, IpAddr::from([0; 4])),
        IpAddr::V6(_) => (AddressFamily::Inet6, IpAddr::from([0_u16; 8])),
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // A time for sending would let a call fail when the end of some child process interrupts it.
    setsockopt(&socket, sockopt::TcpUserTimeout, &5000)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, from)))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    let mut byte = [0];
    TcpStream::from(socket).read_exact(&mut byte)?;
    Ok(byte[0])
}

/// Where a proxy is called, also by addresses that are not its own.
fn listen_for_all(port: u16) -> TcpListener {
    let listener = listen(port);
    setsockopt(&listener, sockopt::IpTransparent, &true).unwrap();
    listener
}

/// A proxy that answers every call with one byte.
fn serve(listener: &TcpListener, byte: u8, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        if ready(listener) {
            while let Ok((mut stream, _)) = listener.accept() {
                drop(stream.write_all(&[byte]));
            }
        }
    }
}

/// Connections out of the pod and into it, of both families, all of which must come to the proxy while
/// rules change. Returns what failed on the way in.
fn nothing_gets_past(rounds: usize, change: impl Fn(usize)) -> Vec<String> {
    let world = World::new();
    change(0);
    let (application, remote) = (listen(80), world.within(|| listen(80)));
    // They listen before the first call and answer until after the last.
    let (outbound, inbound) = (listen_for_all(15001), listen_for_all(15006));
    let (outward, inward) = (Calls::default(), Calls::default());
    let (changes, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (until, called) = ((&changes, &done), AtomicBool::new(false));
    thread::scope(|proxies| {
        let _called = End(&called);
        proxies.spawn(|| serve(&outbound, b'o', &called));
        proxies.spawn(|| serve(&inbound, b'i', &called));
        thread::scope(|scope| {
            for to in both("10.77.0.2", "fd77::2", 80) {
                let outward = &outward;
                scope.spawn(move || {
                    setfsgid(Gid::from_raw(APPLICATION));
                    setfsuid(Uid::from_raw(APPLICATION));
                    outward.make(to, b'o', until);
                });
            }
            for to in both("10.77.0.1", "fd77::1", 80) {
                let (world, inward) = (&world, &inward);
                scope.spawn(move || world.within(|| inward.make(to, b'i', until)));
            }
            let _done = End(&done);
            for n in 0..rounds {
                change(n);
                changes.store(n + 1, Ordering::Relaxed);
            }
        });
    });
    let (out, into) = (outward.answered(), inward.answered());
    println!("{out} calls out, {into} in");
    assert!(remote.accept().is_err(), "a connection went out past the proxy");
    assert!(application.accept().is_err(), "a connection came in past the proxy");
    assert_eq!(outward.failed.into_inner().unwrap(), Vec::<String>::new());
    assert!(out > rounds && into > rounds, "only {out} calls out and {into} in");
    inward.failed.into_inner().unwrap()
}

fn nothing_gets_past_while_rules_and_mode_change(on: On) {
    let plans = changing_plans();
    let change = |n: usize| on.apply(&plans[n % plans.len()]).unwrap();
    let rounds = if on == On::Nftables { 1000 } else { 100 };
    let failed = nothing_gets_past(rounds, change);
    // iptables changes a mode in one commit a table: who meets the tables of both may be reset.
    if on == On::Nftables {
        assert_eq!(failed, Vec::<String>::new());
    }
    on.cleanup().unwrap();
    nothing_is_left();
}

/// Asserts that there is nothing of ours in the namespace.
fn nothing_is_left() {
    let shown = |line: &str| {
        let mut words = line.split_whitespace();
        let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for six in ["-4", "-6"] {
        assert!(!shown(&format!("ip {six} rule")).contains("fwmark"));
        assert_eq!(shown(&format!("ip {six} route show table 133")), "");
    }
    assert!(!shown("ip -6 addr show dev lo").contains("::6/128"));
    let rules = shown("nft list ruleset");
    assert!(!rules.to_lowercase().contains("lateen"), "{rules}");
}

#[test]
fn a_killed_run_leaves_the_old_rules_or_the_new_ones() {
    if !inside("a_killed_run_leaves_the_old_rules_or_the_new_ones") {
        return;
    }
    run("ip link set lo up");
    let init = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen-init"));
        command.args(["-b", "*", "-i", "*"]).args(more).stderr(std::process::Stdio::null());
        command
    };
    let sets: [&[&str]; 2] = [&["-o", "9,10,11"], &["-m", "TPROXY", "--drop-invalid"]];
    let listing = || {
        let output = Command::new("nft").args(["-s", "list", "table", "inet", "lateen"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let mut longest = Duration::ZERO;
    let known = sets.map(|flags| {
        let start = Instant::now();
        assert!(init(flags).status().unwrap().success());
        longest = longest.max(start.elapsed());
        listing()
    });
    let (mut now, mut stayed, mut changed) = (1, 0, 0);
    for n in 0..120 {
        let other = 1 - now;
        let mut running = init(sets[other]).spawn().unwrap();
        // From at once to after its end; the last ones are let go on.
        if n < 110 {
            thread::park_timeout(longest * n / 90);
            running.kill().unwrap();
        }
        running.wait().unwrap();
        let found = listing();
        if found == known[now] {
            stayed += 1;
        } else {
            assert_eq!(found, known[other], "neither the old rules nor the new ones");
            changed += 1;
            now = other;
        }
    }
    assert!(stayed > 0 && changed > 9, "{stayed} stayed, {changed} changed");
    for flags in sets {
        assert!(init(flags).status().unwrap().success());
        assert!(init(&[flags, &["--verify"]].concat()).status().unwrap().success());
    }
    assert!(init(&["--cleanup"]).status().unwrap().success());
    nothing_is_left();
}

#[test]
fn what_is_refused_changes_nothing() {
    if !inside("what_is_refused_changes_nothing") {
        return;
    }
    run("ip link set lo up");
    let init = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lateen-init"));
        let done = command.args(["-b", "*", "-i", "*"]).args(args).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    assert_eq!(init(&[]).0, Some(0));
    let ports: Vec<String> = (1..=10_000).map(|n| n.to_string()).collect();
    for (args, words) in [
        (["-o", ports.join(",").as_str()], "--istio-local-outbound-ports-exclude: more than 4096"),
        (["-x", "10.0.0.0/33"], "--istio-service-exclude-cidr: \"10.0.0.0/33\""),
        (["-q", "65536"], "--istio-outbound-ports: \"65536\""),
        (["-c", "eth0; reboot"], "--istio-exclude-interfaces"),
    ] {
        let (code, error) = init(&args);
        assert!(code == Some(1) && error.contains(words), "{error}");
        assert_eq!(init(&["--verify"]).0, Some(0));
    }
}

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

fn a_pod_with_only_ipv6_is_captured(on: On) {
    let world = World::new();
    run("ip -4 addr flush dev eth0");
    captured_both_ways(on, &world, &[("fd77::1", "fd77::2")]);
}

fn a_pod_whose_ipv6_is_switched_off_is_captured(on: On) {
    let world = World::new();
    for which in ["all", "default", "lo", "eth0"] {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        std::fs::write(path, "1").unwrap();
    }
    captured_both_ways(on, &world, &[("10.77.0.1", "10.77.0.2")]);
}

fn every_interface_is_captured_unless_it_is_excluded(on: On) {
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
    if !inside("ids_are_those_that_the_pod_sees") {
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
    if !inside("long_lists_add_no_rules") {
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
