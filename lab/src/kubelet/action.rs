//! What probes and hooks do: ask by HTTP, connect, ask by gRPC, run a command, wait.

mod grpc;
mod http;

use std::net::IpAddr;
use std::time::Duration;

use lateen_api::core::{Container, HttpGet, LifecycleHandler, Probe, TargetPort};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::{Handle, join_for};
use crate::launch::{Join, Process};
use crate::node::NodeContext;

/// One thing to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action<'a> {
    Http(&'a HttpGet),
    Tcp(&'a Value),
    Grpc(&'a Value),
    Exec(&'a Value),
    Sleep(&'a Value),
    /// Nothing is said: it succeeds.
    Nothing,
}

impl<'a> From<&'a Probe> for Action<'a> {
    fn from(probe: &'a Probe) -> Self {
        let http = probe.http_get.as_ref().map(Action::Http);
        http.or_else(|| probe.tcp_socket.as_ref().map(Action::Tcp))
            .or_else(|| probe.grpc.as_ref().map(Action::Grpc))
            .or_else(|| probe.exec.as_ref().map(Action::Exec))
            .unwrap_or(Action::Nothing)
    }
}

impl<'a> From<&'a LifecycleHandler> for Action<'a> {
    fn from(handler: &'a LifecycleHandler) -> Self {
        let http = handler.http_get.as_ref().map(Action::Http);
        http.or_else(|| handler.tcp_socket.as_ref().map(Action::Tcp))
            .or_else(|| handler.exec.as_ref().map(Action::Exec))
            .or_else(|| handler.sleep.as_ref().map(Action::Sleep))
            .unwrap_or(Action::Nothing)
    }
}

/// Whom it is done to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) node: &'a NodeContext,
    pub(super) container: &'a Container,
    pub(super) handle: &'a Handle,
    /// Address of the pod.
    pub(super) address: IpAddr,
}

impl Target<'_> {
    /// Does it within `time`.
    pub(super) async fn act(self, action: Action<'_>, time: Duration) -> Result<(), String> {
        if let Action::Exec(exec) = action {
            return self.run(exec, time).await;
        }
        let done = timeout(time, async {
            match action {
                Action::Http(get) => self.get(get).await,
                Action::Tcp(socket) => self.connect(socket).await,
                Action::Grpc(grpc) => self.ask(grpc).await,
                Action::Sleep(sleep) => {
                    let seconds = sleep["seconds"].as_u64().unwrap_or_default();
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    Ok(())
                }
                Action::Exec(_) | Action::Nothing => Ok(()),
            }
        });
        done.await.unwrap_or_else(|_| Err(format!("no answer within {} s", time.as_secs())))
    }

    async fn run(self, exec: &Value, time: Duration) -> Result<(), String> {
        let words = exec["command"].as_array().map(Vec::as_slice).unwrap_or_default();
        let command = words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
        let join = Join {
            container: Some(self.handle.pid),
            network: self.handle.network.clone(),
            process: Process { command, ..self.handle.process.clone() },
        };
        let (code, text) = join_for(self.node, &join, time).await?;
        if code == 0 { Ok(()) } else { Err(format!("command ended with {code}: {text}")) }
    }

    async fn get(self, get: &HttpGet) -> Result<(), String> {
        let port = self.port(&get.port)?;
        let (status, body) = http::get(get, self.host(get.host.as_deref()), port).await?;
        if (200..400).contains(&status) {
            return Ok(());
        }
        let text: String = body.chars().take(200).collect();
        Err(format!("HTTP status {status}: {}", text.trim()))
    }

    async fn connect(self, socket: &Value) -> Result<(), String> {
        let port = self.port_of(socket)?;
        let host = self.host(socket["host"].as_str());
        let connected = TcpStream::connect((host.as_str(), port)).await;
        connected.map(drop).map_err(|e| format!("{host} port {port}: {e}"))
    }

    async fn ask(self, grpc: &Value) -> Result<(), String> {
        let service = grpc["service"].as_str().unwrap_or_default();
        grpc::check(self.address, self.port_of(grpc)?, service).await
    }

    fn host(self, given: Option<&str>) -> String {
        let given = given.filter(|host| !host.is_empty());
        given.map_or_else(|| self.address.to_string(), str::to_owned)
    }

    fn port_of(self, value: &Value) -> Result<u16, String> {
        let port: TargetPort =
            serde_json::from_value(value["port"].clone()).map_err(|e| format!("port: {e}"))?;
        self.port(&port)
    }

    fn port(self, port: &TargetPort) -> Result<u16, String> {
        match port {
            TargetPort::Number(number) => Ok(*number),
            TargetPort::Name(name) => {
                let ports = &self.container.ports;
                let found = ports.iter().find(|port| port.name.as_deref() == Some(name));
                let found = found.map(|port| port.container_port);
                found.ok_or_else(|| format!("the container has no port named {name:?}"))
            }
        }
    }
}
