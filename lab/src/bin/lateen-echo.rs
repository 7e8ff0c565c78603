//! `lateen-echo`: the sample application and its client.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lateen_lab::capture;
use lateen_lab::echo::client::{self, Call};
use lateen_lab::echo::load::{self, Load};
use lateen_lab::echo::{Persona, serve};
use tokio_util::sync::CancellationToken;

/// A sample application that says what it received, and a client for it.
#[derive(Parser)]
#[command(name = "lateen-echo", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer HTTP/1.1, HTTP/2, gRPC, WebSocket and raw TCP on each port.
    Serve(ServeArgs),
    /// Send HTTP requests and print a summary as JSON.
    Get(GetArgs),
    /// Send text over TCP and print what comes back.
    Tcp {
        /// HOST:PORT.
        authority: String,
        /// Text to send.
        #[arg(long, default_value = "hello")]
        send: String,
    },
    /// Send a WebSocket message and print the answer.
    Ws {
        /// http://HOST[:PORT]/PATH.
        url: String,
        /// Text to send.
        #[arg(long, default_value = "hello")]
        send: String,
    },
    /// Record what passes the interfaces of this network namespace, as a pcap file on standard
    /// output; needs CAP_NET_RAW.
    Capture {
        /// How long.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
}

#[derive(Args)]
struct ServeArgs {
    /// Port to listen on; may be repeated.
    #[arg(long = "port", required = true)]
    ports: Vec<u16>,
    /// Container name, used where there is no --app.
    #[arg(long, default_value = "echo")]
    name: String,
    /// Application name in answers.
    #[arg(long, default_value = "")]
    app: String,
    /// Version in answers.
    #[arg(long, default_value = "")]
    version: String,
    /// Pod name in answers.
    #[arg(long, env = "HOSTNAME", default_value = "")]
    pod: String,
    /// Namespace in answers.
    #[arg(long, env = "POD_NAMESPACE", default_value = "")]
    namespace: String,
    /// Milliseconds to serve on after being told to end, as Kubernetes asks of applications:
    /// others learn of the end while it happens.
    #[arg(long, default_value_t = 0)]
    linger_ms: u64,
    /// URL to fetch for every request; may be repeated.
    #[arg(long = "call")]
    calls: Vec<String>,
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
struct GetArgs {
    /// http://HOST[:PORT]/PATH.
    url: String,
    /// Header `NAME: VALUE`; may be repeated.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Method.
    #[arg(short = 'X', long, default_value = "GET")]
    method: Method,
    /// Body.
    #[arg(short = 'd', long, default_value = "")]
    data: String,
    /// Requests; 0 with --seconds is without limit.
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u64,
    /// Stop sending after this many seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Requests at once.
    #[arg(short = 'c', long, default_value_t = 1)]
    concurrency: usize,
    /// Milliseconds between the requests of one connection.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// Milliseconds to wait for an answer.
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
    /// HTTP/2 by prior knowledge.
    #[arg(long)]
    http2: bool,
    /// POST the body as one gRPC message.
    #[arg(long)]
    grpc: bool,
    /// Stop sending when standard input ends.
    #[arg(long)]
    until_eof: bool,
    /// End with a failure where a request has no answer, or one with status 400 or above.
    #[arg(long)]
    fail: bool,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match Cli::parse().command {
            Command::Serve(args) => serve_until_told(args).await,
            Command::Get(args) => get(args).await,
            Command::Tcp { authority, send } => {
                let back = client::tcp(&authority, send.as_bytes()).await?;
                println!("{}", String::from_utf8_lossy(&back));
                Ok(())
            }
            Command::Ws { url, send } => {
                println!("{}", client::web_socket(&url, &send).await?);
                Ok(())
            }
            Command::Capture { seconds } => {
                let out = std::io::stdout().as_fd().try_clone_to_owned()?;
                let time = Duration::from_secs_f64(seconds);
                let record = move || capture::record(None, time, out, &CancellationToken::new());
                let frames = tokio::task::spawn_blocking(record).await??;
                eprintln!("{frames} frames");
                Ok(())
            }
        }
    })
}

async fn serve_until_told(args: ServeArgs) -> anyhow::Result<()> {
    let app = if args.app.is_empty() { args.name } else { args.app };
    let persona = Persona {
        app,
        version: args.version,
        pod: args.pod,
        namespace: args.namespace,
        calls: args.calls,
    };
    let stop = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let serving = serve::serve(persona, &args.ports, stop.clone());
    tokio::pin!(serving);
    tokio::select! {
        done = serving.as_mut() => return Ok(done?),
        _ = terminate.recv() => {}
    }
    let linger = tokio::time::sleep(Duration::from_millis(args.linger_ms));
    tokio::select! {
        done = serving.as_mut() => return Ok(done?),
        () = linger => stop.cancel(),
    }
    Ok(serving.await?)
}

async fn get(args: GetArgs) -> anyhow::Result<()> {
    let mut headers = HeaderMap::new();
    for header in &args.headers {
        let Some((name, value)) = header.split_once(':') else {
            bail!("header {header:?} is not of the form NAME: VALUE");
        };
        let name: HeaderName = name.trim().parse().with_context(|| format!("header {header:?}"))?;
        headers.append(name, HeaderValue::from_str(value.trim())?);
    }
    let data = args.data.into_bytes();
    let call = Call::get(&args.url)?.method(args.method).headers(headers).http2(args.http2);
    let call = if args.grpc { call.grpc(&data) } else { call.body(data.into()) };
    let load = Load {
        count: args.count,
        seconds: args.seconds.map(Duration::from_secs_f64),
        concurrency: args.concurrency,
        pause: Duration::from_millis(args.pause_ms),
        timeout: Duration::from_millis(args.timeout_ms),
    };
    let stop = CancellationToken::new();
    if args.until_eof {
        let ended = stop.clone().drop_guard();
        // Ends with its input or with the process; nothing waits for it.
        drop(std::thread::spawn(move || {
            let read = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            drop((read, ended));
        }));
    }
    let summary = load::run(call, load, &stop).await;
    println!("{}", serde_json::to_string(&summary)?);
    let refused: u64 = summary.status.range(400..).map(|(_, count)| count).sum();
    let bad = summary.failed + refused;
    if args.fail && bad > 0 {
        bail!("{bad} of {} requests failed", summary.requests);
    }
    Ok(())
}
