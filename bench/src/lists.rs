//! What long lists cost a connection: calls of a pod whose settings name a thousand ports and ranges
//! beside calls of one whose settings name one of each.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};

use crate::figure::{Figure, percentile};
use crate::rules::{apart, finish};

/// Entries of each long list.
const LONG: u32 = 1_000;
/// Turns of each pod, and calls in each.
const TURNS: usize = 30;
const CALLS: usize = 1_000;
/// An address in none of the ranges; calls to it are captured after all lists were asked.
const TO: ([u8; 4], u16) = ([203, 0, 113, 7], 80);

/// An interface over which calls would leave.
const INTERFACE: [&str; 5] = [
    "link add eth0 type veth peer name other",
    "addr add 10.77.0.1/24 dev eth0",
    "link set eth0 up",
    "link set other up",
    "route add default via 10.77.0.2",
];

/// How much longer the median call takes.
pub(crate) fn measure(bin: &Path) -> anyhow::Result<Vec<Figure>> {
    let program = bin.join("lateen-init");
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        short.push(apart(|| median_call(&program, 1))?);
        long.push(apart(|| median_call(&program, LONG))?);
    }
    let (short, long) = (percentile(&mut short, 50), percentile(&mut long, 50));
    let name = format!("rules: a call, with lists of 1,000 beside lists of one ({short:.2} us)");
    Ok(vec![Figure::at_most(&name, long - short, 1.0, "us")])
}

/// Microseconds of the median call of a pod with such lists. The pod ends with the thread.
fn median_call(program: &Path, entries: u32) -> anyhow::Result<f64> {
    let ports: Vec<_> = (0..entries).map(|n| (20_000 + 2 * n).to_string()).collect();
    let ranges: Vec<_> =
        (0..entries).map(|n| format!("100.{}.{}.0/25", n / 250, n % 250)).collect();
    let mut command = Command::new(program);
    command.args(["-b", "*", "-i", "*", "--backend", "nft"]);
    finish(command.args(["-o", &ports.join(","), "-x", &ranges.join(",")]), "")?;
    for line in INTERFACE {
        finish(Command::new("ip").args(line.split(' ')), "")?;
    }
    let proxy = TcpListener::bind("0.0.0.0:15001")?;
    let mut micros = (0..CALLS).map(|_| call(&proxy)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(percentile(&mut micros, 50))
}

/// Microseconds until a call is taken. It ends with a reset, which leaves nothing behind.
fn call(proxy: &TcpListener) -> anyhow::Result<f64> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    let to = SockaddrStorage::from(SocketAddr::new(IpAddr::from(TO.0), TO.1));
    let started = Instant::now();
    connect(socket.as_raw_fd(), &to)?;
    let micros = started.elapsed().as_secs_f64() * 1e6;
    proxy.accept()?;
    Ok(micros)
}
