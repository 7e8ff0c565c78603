//! The command line: what Istio's injection template calls, word for word.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Sidecar proxy of the mesh.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "lateen-proxy",
    version,
    about,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Run on a plain Envoy bootstrap (JSON or YAML) with static resources.
    #[arg(short = 'c', long = "config-path", value_name = "FILE")]
    pub bootstrap: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the proxy.
    Proxy(ProxyArgs),
    /// Ask the running proxy something over HTTP.
    Request(RequestArgs),
    /// Wait until the proxy is ready.
    Wait(WaitArgs),
}

/// What the proxy is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Beside an application.
    #[default]
    Sidecar,
    /// Between networks.
    Router,
}

impl Role {
    /// As node ids have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// Flags of `proxy`.
#[derive(Debug, Clone, Default, Args)]
#[command(rename_all = "camelCase")]
pub struct ProxyArgs {
    /// Role of the proxy [default: sidecar].
    pub role: Option<Role>,
    /// DNS domain of the workload.
    #[arg(long)]
    pub domain: Option<String>,
    /// Log level of the data path.
    #[arg(long, default_value = "warning")]
    pub proxy_log_level: String,
    /// Log levels of parts of the data path (accepted; the data path has one level).
    #[arg(long)]
    pub proxy_component_log_level: Option<String>,
    /// Log level of the agent, as `scope:level,...`.
    #[arg(long = "log_output_level", default_value = "default:info")]
    pub log_output_level: String,
    /// Log as JSON.
    #[arg(long = "log_as_json", num_args = 0..=1, default_missing_value = "true", default_value_t = false)]
    pub log_as_json: bool,
    /// Port of the token exchange.
    #[arg(long)]
    pub sts_port: Option<u16>,
    /// Where outliers are logged (accepted, without effect).
    #[arg(long)]
    pub outlier_log_path: Option<String>,
    /// Threads of the data path; 0 is one for each core.
    #[arg(long)]
    pub concurrency: Option<usize>,
}

/// Flags of `request`.
#[derive(Debug, Clone, Args)]
pub struct RequestArgs {
    /// Port of the proxy on loopback.
    #[arg(long = "debug-port", default_value_t = 15000)]
    pub debug_port: u16,
    /// HTTP method.
    pub method: String,
    /// Path, with or without leading slash.
    pub path: String,
}

/// Flags of `wait`.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "camelCase")]
pub struct WaitArgs {
    /// How long to wait, in seconds.
    #[arg(long, default_value_t = 60)]
    pub timeout_seconds: u64,
    /// How often to ask, in milliseconds.
    #[arg(long, default_value_t = 500)]
    pub period_millis: u64,
    /// How long one answer may take, in milliseconds.
    #[arg(long, default_value_t = 500)]
    pub request_timeout_millis: u64,
    /// What to ask.
    #[arg(long, default_value = "http://localhost:15021/healthz/ready")]
    pub url: String,
}
