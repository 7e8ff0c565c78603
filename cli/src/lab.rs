//! `lateen lab`: a mesh on this machine, from plain Kubernetes YAML.

mod files;
mod show;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use lateen_lab::api_server::manifest;
use lateen_lab::client::{self, Connection};
use lateen_lab::protocol::{Reply, Request};
use lateen_lab::settings::{MESH_CONFIG, Settings, parse_image};
use tokio::io::AsyncReadExt;

use crate::output::Format;

/// What `lateen lab` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring up a lab and run the pods of some manifests in it
    #[command(after_help = UP_HELP)]
    Up(Up),
    /// List the pods: ready or why not, injected or why not, addresses
    Ls(Ls),
    /// Run a command in a container
    #[command(after_help = EXEC_HELP)]
    Exec(Exec),
    /// Show the output of a container, of lateend or of lateen-cni-node
    Logs(Logs),
    /// Apply manifests: all of them or, when one is wrong, none
    Apply(Apply),
    /// Write what goes over the pods' bridge into a file for tcpdump or Wireshark
    Capture(Capture),
    /// Kill a part of the mesh, or start it again, to see what happens
    Component(Component),
    /// Take a lab down: nothing of it is left
    Down(Which),
    /// The lab itself; `up` starts it
    #[command(hide = true)]
    Daemon(Daemon),
}

const UP_HELP: &str = "Examples:
  lateen lab up -f samples/shop
  lateen lab up -f app.yaml --image example.com/web:1='python3 -m http.server 8080'
  kustomize build overlay | lateen lab up -f - --detach

Pods run as processes of this machine, in namespaces of their own; no image is pulled. An image is
the command that --image gives for it, else the sample application `lateen-echo` on the ports the
container declares. A namespace labelled istio-injection=enabled gets sidecars.";

const EXEC_HELP: &str = "Examples:
  lateen lab exec -n shop front-5d9c7-x2x4k -- lateen-echo get http://catalog/
  lateen lab exec -n shop front-5d9c7-x2x4k --root -- ip addr
  lateen lab exec -n shop front-5d9c7-x2x4k -- sh";

/// Which lab.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Name of the lab; without it the only one that is up
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// `lateen lab up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Manifests: a file, a folder of *.yaml, *.yml and *.json, or - for standard input
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// Name of the lab
    #[arg(long, value_name = "NAME", default_value = client::DEFAULT_NAME)]
    name: String,
    /// Mesh configuration, as under `mesh` in Istio's ConfigMap `istio`
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// What stands in for an image
    #[arg(long = "image", value_name = "NAME=COMMAND", value_parser = parse_image)]
    images: Vec<(String, Vec<String>)>,
    /// Return once all pods are ready, and leave the lab up
    #[arg(long)]
    detach: bool,
}

/// `lateen lab ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    which: Which,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `lateen lab exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    which: Which,
    /// Namespace of the pod; not needed where only one pod has the name
    #[arg(short, long)]
    namespace: Option<String>,
    /// Pod
    pod: String,
    /// Container; without it the first that is no sidecar
    #[arg(short, long)]
    container: Option<String>,
    /// As root, with the machine's files, in the pod's network
    #[arg(long)]
    root: bool,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `lateen lab logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    which: Which,
    /// Namespace of the pod; not needed where only one pod has the name
    #[arg(short, long)]
    namespace: Option<String>,
    /// Pod, `lateend` or `lateen-cni-node`
    pod: String,
    /// Container; without it the first that is no sidecar
    #[arg(short, long)]
    container: Option<String>,
    /// Go on as more comes
    #[arg(short, long)]
    follow: bool,
}

/// `lateen lab apply`.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    which: Which,
    /// Manifests: a file, a folder of *.yaml, *.yml and *.json, or - for standard input
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
}

/// `lateen lab capture`.
#[derive(Debug, Args)]
pub(crate) struct Capture {
    #[command(flatten)]
    which: Which,
    /// For how long
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    seconds: f64,
    /// File to write
    #[arg(short, long, value_name = "FILE.pcap")]
    output: PathBuf,
}

/// `lateen lab component`.
#[derive(Debug, Args)]
pub(crate) struct Component {
    #[command(flatten)]
    which: Which,
    /// What to do with it
    #[arg(value_enum)]
    action: Action,
    /// lateend (the control plane) or lateen-cni-node (the node agent)
    component: String,
}

/// What can be done with a part of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Kill it; it stays down until it is started.
    Kill,
    /// Start it again; returns when it serves.
    Start,
}

/// `lateen lab daemon`.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// State folder
    #[arg(long)]
    state: PathBuf,
}

/// Runs a command.
pub(crate) async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(up) => bring_up(up).await,
        Command::Ls(ls) => list(ls).await,
        Command::Exec(exec) => execute(exec).await,
        Command::Logs(logs) => print_logs(logs).await,
        Command::Apply(apply) => apply_files(apply).await,
        Command::Capture(capture) => record(capture).await,
        Command::Component(component) => control(component).await,
        Command::Down(which) => {
            let name = client::choose(which.name.as_deref())?;
            client::down(&name).await?;
            show::say(&format!("lab {name} is down"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Daemon(daemon) => {
            let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
            log.init();
            lateen_lab::daemon::run(&daemon.state).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn bring_up(up: Up) -> anyhow::Result<ExitCode> {
    let texts = files::read(&up.files)?;
    if let Err(findings) = manifest::read(&texts) {
        bail!("nothing was started:\n{}", show::findings(&findings));
    }
    let mesh_config = match &up.mesh_config {
        Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
        None => MESH_CONFIG.to_owned(),
    };
    let file = up.mesh_config.as_ref().map_or_else(String::new, |it| it.display().to_string());
    if let Err(finding) = lateen_api::mesh::MeshConfig::parse(&file, &mesh_config) {
        bail!("{finding}");
    }
    let program = std::env::current_exe().context("finding this program")?;
    let binaries = program.parent().context("this program lies nowhere")?.to_owned();
    let settings = Settings { name: up.name.clone(), binaries, mesh_config, images: up.images };
    let request = Request::Up { texts, detach: up.detach };
    let starting = client::start(&settings, &request).await?;
    show::say(&format!("lab {} runs {}", up.name, starting.mode));
    let mut connection = starting.connection;
    let told = tokio::select! {
        told = tell_progress(&mut connection, up.detach) => told,
        _ = tokio::signal::ctrl_c() => {
            show::say("taking the lab down ...");
            client::down(&up.name).await?;
            show::say(&format!("lab {} is down", up.name));
            return Ok(ExitCode::SUCCESS);
        }
    };
    match told {
        Ok(()) => {
            show::say(&format!("look around: lateen lab ls --name {}", up.name));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            client::clear(&up.name, connection).await?;
            Err(error.into())
        }
    }
}

/// Tells how far the lab is, until it is up (`detach`) or goes away.
async fn tell_progress(
    connection: &mut Connection,
    detach: bool,
) -> Result<(), client::ClientError> {
    loop {
        match connection.next().await? {
            Reply::Ready(text) => {
                show::say(&text);
                if detach {
                    return Ok(());
                }
                show::say("Ctrl-C takes the lab down");
            }
            reply => show::reply(&reply),
        }
    }
}

async fn list(ls: Ls) -> anyhow::Result<ExitCode> {
    let name = client::choose(ls.which.name.as_deref())?;
    let mut connection = Connection::ask(&name, &Request::List, &[]).await?;
    let Reply::Pods(pods) = connection.next().await? else { bail!("lab {name} sent no pods") };
    let text = match ls.output {
        Format::Json => serde_json::to_string_pretty(&pods)?,
        Format::Table => show::table(&pods),
    };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

async fn execute(exec: Exec) -> anyhow::Result<ExitCode> {
    let name = client::choose(exec.which.name.as_deref())?;
    let request = Request::Exec {
        namespace: exec.namespace,
        pod: exec.pod,
        container: exec.container,
        root: exec.root,
        command: exec.command,
    };
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let stdio = [input.as_fd(), output.as_fd(), error.as_fd()];
    let mut connection = Connection::ask(&name, &request, &stdio).await?;
    let Reply::Exit(code) = connection.next().await? else { bail!("lab {name} sent no status") };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

async fn print_logs(logs: Logs) -> anyhow::Result<ExitCode> {
    let name = client::choose(logs.which.name.as_deref())?;
    let request = Request::Logs {
        namespace: logs.namespace,
        pod: logs.pod,
        container: logs.container,
        follow: logs.follow,
    };
    let mut connection = Connection::ask(&name, &request, &[]).await?;
    ensure!(connection.next().await? == Reply::Raw, "lab {name} sent no log");
    let (mut output, mut chunk) = (std::io::stdout(), vec![0; 64 << 10]);
    loop {
        let count = connection.raw().read(&mut chunk).await?;
        let bytes = chunk.get(..count).unwrap_or_default();
        match output.write_all(bytes).and_then(|()| output.flush()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            result => result?,
        }
        if count == 0 {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn apply_files(apply: Apply) -> anyhow::Result<ExitCode> {
    let texts = files::read(&apply.files)?;
    if let Err(findings) = manifest::read(&texts) {
        bail!("nothing was applied:\n{}", show::findings(&findings));
    }
    let name = client::choose(apply.which.name.as_deref())?;
    let mut connection = Connection::ask(&name, &Request::Apply { texts }, &[]).await?;
    loop {
        match connection.next().await {
            Ok(Reply::Done) => return Ok(ExitCode::SUCCESS),
            Ok(Reply::Changed(text)) => writeln!(std::io::stdout(), "{text}")?,
            Ok(reply) => show::reply(&reply),
            Err(client::ClientError::Refused(reasons)) => {
                bail!("nothing was applied:\n{}", reasons.join("\n"))
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn record(capture: Capture) -> anyhow::Result<ExitCode> {
    let name = client::choose(capture.which.name.as_deref())?;
    let time = std::time::Duration::try_from_secs_f64(capture.seconds)
        .context("--seconds: a number of seconds that is not negative")?;
    let path = &capture.output;
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let request = Request::Capture { milliseconds };
    let mut connection = Connection::ask(&name, &request, &[file.as_fd()]).await?;
    let Reply::Packets(count) = connection.next().await? else { bail!("lab {name} sent no count") };
    show::say(&format!("{count} packets; look: tcpdump -r {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

async fn control(component: Component) -> anyhow::Result<ExitCode> {
    let name = client::choose(component.which.name.as_deref())?;
    let start = component.action == Action::Start;
    let request = Request::Component { name: component.component, start };
    let mut connection = Connection::ask(&name, &request, &[]).await?;
    ensure!(connection.next().await? == Reply::Done, "lab {name} did not say that it is done");
    Ok(ExitCode::SUCCESS)
}
