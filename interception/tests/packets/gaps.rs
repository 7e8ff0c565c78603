//! Whether anything gets past, or is reset, while rules, modes and carriers change under load.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lateen_interception::settings::{Backend, DnsCapture, IptablesKind, Mode};
use lateen_interception::{RedirectPlan, Settings, State, backend};
use lateen_testkit::netns::inside;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use crate::carrier::On;
use crate::world::{APPLICATION, World, both, everything, listen, nothing_is_left, ready};

#[test]
fn nothing_gets_past_while_the_carrier_changes() {
    if !inside("gaps::nothing_gets_past_while_the_carrier_changes") {
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

pub(crate) fn nothing_gets_past_while_rules_and_mode_change(on: On) {
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
