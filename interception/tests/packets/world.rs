//! A network namespace with a neighbour, and calls between the two.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use lateen_interception::settings::{PortSelection, RangeSelection};
use lateen_interception::{Settings, netns};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

pub(crate) const APPLICATION: u32 = 2000;
pub(crate) const PROXY: u32 = 1337;
pub(crate) const WAIT: Duration = Duration::from_millis(400);

pub(crate) fn run(line: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    let done = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; install iproute2 and nftables"));
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A neighbour of this namespace behind `eth0`: 10.77.0.2 and fd77::2.
pub(crate) struct World {
    pub(crate) process: Child,
}

impl World {
    pub(crate) fn new() -> Self {
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

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.process.id()))
    }

    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::run_in(&self.path(), work).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

pub(crate) fn everything() -> Settings {
    Settings {
        inbound_ports: PortSelection::All,
        outbound_ranges: RangeSelection::All,
        ..Settings::default()
    }
}

pub(crate) fn listen(port: u16) -> TcpListener {
    let listener = TcpListener::bind(("::", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

pub(crate) fn ready(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(WAIT).unwrap()).unwrap() > 0
}

pub(crate) fn connect_as(uid: u32, to: SocketAddr) -> io::Result<TcpStream> {
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
pub(crate) fn arrives(listener: &TcpListener, uid: u32, to: SocketAddr) -> bool {
    while listener.accept().is_ok() {}
    let call = connect_as(uid, to);
    let arrived = ready(listener) && listener.accept().is_ok();
    drop(call);
    arrived
}

pub(crate) fn both(v4: &str, v6: &str, port: u16) -> [SocketAddr; 2] {
    let address = |text: &str| SocketAddr::new(text.parse::<IpAddr>().unwrap(), port);
    [address(v4), address(v6)]
}

/// Asserts that there is nothing of ours in the namespace.
pub(crate) fn nothing_is_left() {
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
