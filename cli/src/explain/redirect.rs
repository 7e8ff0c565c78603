//! `lateen explain redirect`: where a connection of a pod goes, by which rule, and who asked for that.
//!
//! Finds the settings of the pod and lets the interception library walk a packet through the plan that
//! they make. Must not know what the rules are.

mod show;
mod subject;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use lateen_interception::RedirectPlan;
use lateen_interception::plan::Protocol;
use lateen_interception::trace::{Origin, Packet, Tracking, trace};

use crate::cluster::Connection;
use crate::output::{Format, unreadable};
use crate::surroundings::Files;
use subject::Subject;

/// What `lateen explain redirect` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lateen explain redirect --pod cart-x2v9q -n shop --to 10.0.0.5:443   what the pod calls\n  \
    lateen explain redirect --pod cart-x2v9q -n shop --to catalog.shop:80  a Service, by name\n  \
    lateen explain redirect --pod cart-x2v9q -n shop --inbound --to 8080   who calls the pod\n  \
    lateen explain redirect -f cart.yaml --to '[fd00::5]:53' --proto udp   a manifest, no cluster\n  \
    lateen explain redirect --to 10.0.0.5:80 -- -b '*' -i 10.0.0.0/8     flags of lateen-init\n\n\
    The rules are those that Lateen makes for the pod. A workload, or a pod in a file, counts as\n\
    what injection would make of it. See docs/interception.md.")]
pub(crate) struct Question {
    /// A pod, or KIND/NAME; with -f the only one if there is one
    #[arg(long, value_name = "POD|KIND/NAME")]
    pod: Option<String>,
    /// Namespace; else that of the context
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Where to: an address, or the name of a Service; only a port with --inbound
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Protocol
    #[arg(long, value_enum, default_value_t)]
    proto: Proto,
    /// The connection comes from outside
    #[arg(long, conflicts_with_all = ["uid", "gid"])]
    inbound: bool,
    /// User id of the process; else what the pod says, else 0
    #[arg(long, value_name = "ID")]
    uid: Option<u32>,
    /// Group id of the process; else what the pod says, else 0
    #[arg(long, value_name = "ID")]
    gid: Option<u32>,
    /// Source address, where that matters: 127.0.0.6 and ::6 are the proxy calling the application
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Interface by which it leaves or arrives; else lo for the pod's own addresses, else eth0
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    #[command(flatten)]
    given: Files,
    #[command(flatten)]
    connection: Connection,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// Flags of lateen-init, instead of a pod
    #[arg(last = true, value_name = "FLAGS", conflicts_with_all = ["pod", "files"])]
    flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Proto {
    #[default]
    Tcp,
    Udp,
}

/// Runs the command.
///
/// # Errors
/// The cluster cannot be asked, there is no such pod, or the question cannot be understood.
pub(crate) async fn run(question: &Question) -> anyhow::Result<ExitCode> {
    let subject = if question.flags.is_empty() && question.given.files.is_empty() {
        subject::live(question).await?
    } else {
        let found = match question.flags.as_slice() {
            [] => subject::of_files(question),
            flags => subject::of_flags(flags),
        };
        match found {
            Ok(found) => found,
            Err(error) => return Ok(unreadable(&error)),
        }
    };
    let target = Target::parse(&question.to)?;
    let addresses = match &target.host {
        Some(Host::Address(ip)) => vec![*ip],
        Some(Host::Name(name)) => subject.addresses(name).await?,
        None => {
            ensure!(
                question.inbound,
                "--to {}: an address is missing, such as 10.0.0.5:{}; with --inbound a port is enough",
                question.to,
                target.port
            );
            vec![subject.own_addresses().first().copied().unwrap_or_else(|| [0; 4].into())]
        }
    };
    let plan = subject.settings.as_ref().map(RedirectPlan::new);
    let plan = plan.unwrap_or(RedirectPlan { chains: Vec::new(), mark_route: None });
    let answers: Vec<_> = addresses
        .into_iter()
        .map(|ip| packet(question, &subject, SocketAddr::new(ip, target.port)))
        .map(|packet| packet.map(|packet| (trace(&plan, &packet), packet)))
        .collect::<Result<_, _>>()?;
    for warning in &subject.warnings {
        eprintln!("warning: {warning}");
    }
    match question.output {
        Format::Json => println!("{:#}", show::json(&subject, &answers)),
        Format::Table => print!("{}", show::text(&subject, &answers)),
    }
    Ok(ExitCode::SUCCESS)
}

fn packet(question: &Question, subject: &Subject, to: SocketAddr) -> anyhow::Result<Packet> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let source = question.from.unwrap_or(any);
    ensure!(
        source.is_ipv4() == to.is_ipv4(),
        "--from {source} and --to {to} are addresses of two families"
    );
    let interface = question.interface.clone();
    let origin = if question.inbound {
        Origin::Network { interface: interface.unwrap_or_else(|| "eth0".to_owned()) }
    } else {
        let own = to.ip().is_loopback() || subject.own_addresses().contains(&to.ip());
        let usual = if own { "lo" } else { "eth0" };
        Origin::Process {
            uid: question.uid.unwrap_or_else(|| subject.application_id("runAsUser")),
            gid: question.gid.unwrap_or_else(|| subject.application_id("runAsGroup")),
            interface: interface.unwrap_or_else(|| usual.to_owned()),
        }
    };
    let protocol = match question.proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
    };
    Ok(Packet {
        origin,
        protocol: Some(protocol),
        source: SocketAddr::new(source, 0),
        destination: to,
        mark: 0,
        tracking: Tracking::New,
    })
}

/// Where a connection goes, in the words of the question.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: Option<Host>,
    port: u16,
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl Target {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Self::checked(Some(Host::Address(address.ip())), address.port(), text);
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port = port.parse().with_context(|| {
            format!("--to {text}: HOST:PORT is meant, such as 10.0.0.5:80 or [fd00::5]:80")
        })?;
        if host.contains(':') {
            bail!("--to {text}: an IPv6 address stands in brackets: [{host}]:{port}");
        }
        let host = (!host.is_empty()).then(|| Host::Name(host.to_owned()));
        Self::checked(host, port, text)
    }

    fn checked(host: Option<Host>, port: u16, text: &str) -> anyhow::Result<Self> {
        ensure!(port != 0, "--to {text}: ports are 1 to 65535");
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, Target};

    #[test]
    fn a_target_is_an_address_a_name_or_a_port() {
        let address = |text: &str| Some(Host::Address(text.parse().unwrap()));
        for (text, host, port) in [
            ("10.0.0.5:80", address("10.0.0.5"), 80),
            ("[fd00::5]:53", address("fd00::5"), 53),
            ("catalog.shop:80", Some(Host::Name("catalog.shop".to_owned())), 80),
            (":8080", None, 8080),
            ("8080", None, 8080),
        ] {
            assert_eq!(Target::parse(text).unwrap(), Target { host, port }, "{text}");
        }
        for text in ["", "10.0.0.5", "10.0.0.5:0", "fd00::5:80", "a:b", "1.2.3.4:65536"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }
}
