//! The CNI plugin: one call of the container runtime.
//!
//! Blocking, without a Kubernetes client, without netlink: what needs either is the agent's work.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollTimeout, poll};
use serde_json::{Value, json};

use crate::decision::{Skip, without_agent};
use crate::error::{CniError, Code};
use crate::netconf::{NetConf, PodRef, VERSIONS};
use crate::protocol::{Answer, Request, SOCKET, Sandbox, receive, send};
use crate::settings::{Invocation, Verb};

/// The agent answers in milliseconds, or waits some seconds for a pod it does not know yet.
const AGENT_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for an agent to come back, whatever is configured.
const MAX_AGENT_WAIT: u16 = 8000;
/// Milliseconds between attempts to reach it.
const TRY_AGAIN: u8 = 50;

/// Longest network configuration that is read.
pub const MAX_STDIN: u64 = 1 << 20;

/// What a call prints on stdout.
pub type Output = Result<String, (String, CniError)>;

/// Runs one call. The error comes with the version to report it in.
///
/// # Errors
/// As the CNI specification says.
pub fn run(invocation: Result<Invocation, CniError>, stdin: &[u8]) -> Output {
    let version = asked_version(stdin);
    answer(invocation, stdin).map_err(|e| (version, e))
}

/// The version an answer is in, also when nothing else can be read.
fn asked_version(stdin: &[u8]) -> String {
    let conf: Value = serde_json::from_slice(stdin).unwrap_or_default();
    let known = conf["cniVersion"].as_str().filter(|v| VERSIONS.contains(v));
    known.unwrap_or(VERSIONS[VERSIONS.len() - 1]).to_owned()
}

fn answer(invocation: Result<Invocation, CniError>, stdin: &[u8]) -> Result<String, CniError> {
    let invocation = invocation?;
    if invocation.verb == Verb::Version {
        let version = asked_version(stdin);
        return Ok(json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string());
    }
    let conf = NetConf::parse(stdin)?.named()?;
    match invocation.verb {
        // Rules live and die with the network namespace: nothing is ever left to remove.
        Verb::Delete | Verb::Version => Ok(String::new()),
        Verb::Gc => since(&conf, "1.1.0", "GC").map(|()| String::new()),
        Verb::Status => {
            since(&conf, "1.1.0", "STATUS")?;
            status(&conf)
        }
        Verb::Add => {
            let patience = Duration::from_millis(conf.agent_wait.min(MAX_AGENT_WAIT).into());
            ask(&conf, &invocation, patience, Request::Add)?;
            conf.result()
        }
        Verb::Check => {
            since(&conf, "0.4.0", "CHECK")?;
            if conf.previous.is_none() {
                return Err(CniError::new(Code::Config, "CHECK needs prevResult"));
            }
            ask(&conf, &invocation, Duration::ZERO, Request::Check)?;
            Ok(String::new())
        }
    }
}

fn since(conf: &NetConf, version: &str, verb: &str) -> Result<(), CniError> {
    if conf.at_least(version) {
        return Ok(());
    }
    let text = format!("{verb} needs cniVersion {version} or later, not {}", conf.version);
    Err(CniError::new(Code::Version, text))
}

fn ask(
    conf: &NetConf,
    invocation: &Invocation,
    patience: Duration,
    request: fn(Sandbox) -> Request,
) -> Result<(), CniError> {
    let pod = PodRef::parse(&invocation.args)?;
    let pod = match (without_agent(conf, pod.as_ref()), pod) {
        (Some(skip), _) => return note(conf, skip.code()),
        (None, None) => return note(conf, Skip::NotKubernetes.code()),
        (None, Some(pod)) => pod,
    };
    let name = format!("{}/{}", pod.namespace, pod.name);
    let sandbox = Sandbox {
        container: invocation.container.clone(),
        netns: invocation.netns.clone(),
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
    };
    match talk_patiently(&conf.cni_agent_run_dir, &request(sandbox), patience) {
        Ok(Answer::Ok { reason }) => note(conf, &reason),
        Ok(Answer::Error { code, message }) => Err(CniError { code, message }),
        Err(e) => Err(CniError::new(
            Code::TryLater,
            format!(
                "pod {name}: the node agent does not answer at {} ({e}), so that it is not known \
                 whether the pod belongs to the mesh; start lateen-cni-node on this node, or add \
                 the namespace to exclude_namespaces",
                conf.cni_agent_run_dir.join(SOCKET).display()
            ),
        )),
    }
}

fn status(conf: &NetConf) -> Result<String, CniError> {
    match talk(&conf.cni_agent_run_dir, &Request::Status) {
        Ok(Answer::Ok { .. }) => Ok(String::new()),
        Ok(Answer::Error { message, .. }) => Err(CniError::new(Code::NotAvailable, message)),
        Err(e) => {
            let socket = conf.cni_agent_run_dir.join(SOCKET);
            let text = format!("the node agent does not answer at {} ({e})", socket.display());
            Err(CniError::new(Code::NotAvailable, text))
        }
    }
}

/// Asks again for a while where there is no agent: one that is replaced is back in a moment, and
/// what it did not answer can be asked twice.
fn talk_patiently(run_dir: &Path, request: &Request, patience: Duration) -> io::Result<Answer> {
    let deadline = Instant::now() + patience;
    loop {
        match talk(run_dir, request) {
            Err(e) if is_absence(e.kind()) && Instant::now() < deadline => {
                // A pause and nothing else: there is no descriptor to wait on before the socket.
                poll(&mut [], PollTimeout::from(TRY_AGAIN)).ok();
            }
            done => return done,
        }
    }
}

fn is_absence(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    [NotFound, ConnectionRefused, ConnectionReset, BrokenPipe, UnexpectedEof].contains(&kind)
}

fn talk(run_dir: &Path, request: &Request) -> io::Result<Answer> {
    let stream = UnixStream::connect(run_dir.join(SOCKET))?;
    stream.set_read_timeout(Some(AGENT_DEADLINE))?;
    stream.set_write_timeout(Some(AGENT_DEADLINE))?;
    send(&stream, request)?;
    receive(&stream)
}

/// Decisions go to stderr, which the runtime puts in its log.
fn note(conf: &NetConf, reason: &str) -> Result<(), CniError> {
    if ["debug", "info"].contains(&conf.plugin_log_level.as_str()) {
        eprintln!("lateen-cni: {reason}");
    }
    Ok(())
}
