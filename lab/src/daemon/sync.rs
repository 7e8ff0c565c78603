//! Whether the proxies have what is in force: asked of the control plane, at `/debug/syncz`.
//!
//! So that whoever applied something can look at its effect when the command returns.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::Lab;

/// Where the control plane is asked; it tells strangers nothing.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15014);
/// How long proxies are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// Time between questions.
const LOOK: Duration = Duration::from_millis(10);
/// Largest answer.
const LIMIT: usize = 16 << 20;

/// How far a proxy is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Proxy {
    proxy: String,
    snapshot: u64,
    types: BTreeMap<String, Type>,
}

/// How far it is with one type of resources.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Type {
    unanswered: usize,
    refused: Option<String>,
}

/// What there is to say when not every proxy has what is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Behind {
    /// Proxies that have not answered yet.
    waiting: Vec<String>,
    /// Proxies that refuse something, with their words.
    refusing: Vec<String>,
}

/// Waits until every connected proxy has what is in force now; gives what to warn of.
pub(super) async fn wait(lab: &Lab) -> Vec<String> {
    if !*lab.components[0].running().borrow() {
        return Vec::new();
    }
    let Some(version) = lab.cluster.published().status().map(|status| status.version) else {
        return Vec::new();
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let behind = match tokio::time::timeout(ANSWER, ask()).await {
            Ok(Ok(proxies)) => judge(&proxies, version),
            Ok(Err(error)) => return vec![format!("the proxies' state is not known: {error}")],
            Err(_) => return vec!["lateend does not say how far the proxies are".to_owned()],
        };
        if behind.waiting.is_empty() || Instant::now() > deadline {
            let late = behind.waiting.iter().map(|proxy| format!("{proxy} has not taken it yet"));
            return behind.refusing.iter().cloned().chain(late).collect();
        }
        sleep(LOOK).await;
    }
}

fn judge(proxies: &[Proxy], version: u64) -> Behind {
    let mut behind = Behind::default();
    for proxy in proxies {
        let open = proxy.types.values().any(|status| status.unanswered > 0);
        if proxy.snapshot < version || open {
            behind.waiting.push(proxy.proxy.clone());
        }
        for (name, status) in &proxy.types {
            if let Some(words) = &status.refused {
                behind.refusing.push(format!("{} refuses {name}: {words}", proxy.proxy));
            }
        }
    }
    behind
}

async fn ask() -> io::Result<Vec<Proxy>> {
    let stream = TcpStream::connect(ADDRESS).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let request = Request::get("/debug/syncz")
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::new()))
        .map_err(io::Error::other)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let body = Limited::new(response.into_body(), LIMIT).collect();
        let body = body.await.map_err(io::Error::other)?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    };
    tokio::pin!(answer);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The answer may have come with the end of the connection.
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::{Behind, Proxy, judge};
    use serde_json::json;

    #[test]
    fn a_proxy_is_behind_until_it_has_answered() {
        let proxies: Vec<Proxy> = serde_json::from_value(json!([
            {"proxy": "a.n", "snapshot": 3, "types": {"CDS": {"unanswered": 0}}, "peer": "x"},
            {"proxy": "b.n", "snapshot": 2},
            {"proxy": "c.n", "snapshot": 3, "types": {"LDS": {"unanswered": 1}}},
            {"proxy": "d.n", "snapshot": 3, "types": {"RDS": {"refused": "no such thing"}}},
        ]))
        .unwrap();
        let behind = judge(&proxies, 3);
        assert_eq!(behind.waiting, ["b.n", "c.n"]);
        assert_eq!(behind.refusing, ["d.n refuses RDS: no such thing"]);
        assert_eq!(judge(&proxies[..1], 3), Behind::default());
    }
}
