//! The agent's ports over real sockets.

use super::client::{Beyond, send};
use super::*;
use crate::agent::discovery::Summary;
use crate::agent::materials::Materials;
use crate::agent::state::AgentState;
use crate::config::Snapshot;
use crate::listen::ListenShared;
use crate::telemetry::{Build, Hub, Local};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An application with health, metrics and a redirect.
async fn application() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                let host = request.headers()["host"].to_str().unwrap().to_owned();
                let (status, body) = match request.uri().path() {
                    "/metrics" => (200, "app_up 1\n# EOF\n".to_owned()),
                    "/moved" => (302, String::new()),
                    "/sick" => (503, "sick".to_owned()),
                    "/large" => (200, "x".repeat(100_000)),
                    _ => (200, format!("{} {host}", peer.ip())),
                };
                let response = Response::new(Full::new(Bytes::from(body)));
                let (mut head, body) = response.into_parts();
                head.status = StatusCode::from_u16(status).unwrap();
                Ok::<_, Infallible>(Response::from_parts(head, body))
            });
            let io = TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    port
}

struct Agent {
    at: SocketAddr,
    state: Arc<AgentState>,
    end: CancellationToken,
}

async fn agent(site: Site, app: u16) -> Agent {
    let probers = format!(
        r#"{{"/app-health/app/readyz":{{"httpGet":{{"path":"/","port":{app},"scheme":"HTTP"}},"timeoutSeconds":1}},
            "/app-health/app/livez":{{"httpGet":{{"path":"/sick","port":{app}}}}},
            "/app-health/app/startupz":{{"httpGet":{{"path":"moved","port":{app},"httpHeaders":[{{"name":"Host","value":"own.example"}}]}}}},
            "/app-health/large/livez":{{"httpGet":{{"path":"/large","port":{app}}}}},
            "/app-health/tcp/livez":{{"tcpSocket":{{"port":{app}}}}},
            "/app-health/closed/livez":{{"tcpSocket":{{"port":1}}}}}}"#
    );
    let annotations = format!(r#"{{"scrape":"true","port":"{app}","path":"/metrics"}}"#);
    let state = AgentState::new(true, true);
    let materials = Arc::<Materials>::default();
    let pages = Pages::new(PagesParts {
        state: Arc::clone(&state),
        config: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
        summary: Arc::new(ArcSwap::from_pointee(Summary::default())),
        hub: Hub::new(Local::default(), Build { version: "1".to_owned() }),
        listen: ListenShared::new(Arc::clone(&materials) as Arc<_>),
        materials,
        workers: 1,
        probers: Probers::parse(&probers, Ipv4Addr::LOCALHOST.into()).unwrap(),
        targets: Targets::parse(&annotations).0,
        node: "n".to_owned(),
    });
    let listener = bind(0, true).await.unwrap();
    let at = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    tokio::spawn(serve(listener, site, pages, TaskTracker::new(), end.clone()));
    Agent { at, state, end }
}

impl Agent {
    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.at).await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "10.0.0.9:15020")
            .body(Empty::new())
            .unwrap();
        let response = send(stream, request, (1 << 20, Beyond::Refuse)).await.unwrap();
        let text = String::from_utf8_lossy(response.body()).into_owned();
        (response.status().as_u16(), text)
    }
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let agent = agent(Site::Health, 1).await;
    let (status, text) = agent.ask("GET", "/healthz/ready").await;
    assert_eq!(status, 503);
    assert!(text.contains("certificate"), "{text}");
    agent.state.identity_issued();
    assert!(agent.ask("GET", "/healthz/ready").await.1.contains("configuration"));
    agent.state.set_configured();
    assert!(agent.ask("GET", "/healthz/ready").await.1.contains("listeners"));
    assert_eq!(agent.ask("GET", "/quitquitquit").await.0, 404, "health only");
    agent.end.cancel();
}

#[tokio::test]
async fn application_probes_are_repeated_from_the_source_that_is_let_through() {
    let app = application().await;
    let agent = agent(Site::Status, app).await;
    let ready = agent.ask("GET", "/app-health/app/readyz").await;
    assert_eq!(ready, (200, format!("127.0.0.6 10.0.0.9:{app}")));
    assert_eq!(agent.ask("GET", "/app-health/app/livez").await, (503, "sick".to_owned()));
    assert_eq!(agent.ask("GET", "/app-health/app/startupz").await.0, 200, "redirects are fine");
    assert_eq!(agent.ask("GET", "/app-health/large/livez").await.1.len(), 10 << 10);
    assert_eq!(agent.ask("GET", "/app-health/tcp/livez").await.0, 200);
    assert_eq!(agent.ask("GET", "/app-health/closed/livez").await.0, 500);
    assert_eq!(agent.ask("GET", "/app-health/none/livez").await.0, 400);
    agent.end.cancel();
}

#[tokio::test]
async fn metrics_of_application_and_proxy_are_one_text() {
    let app = application().await;
    let agent = agent(Site::Status, app).await;
    let (status, text) = agent.ask("GET", "/stats/prometheus").await;
    assert_eq!(status, 200);
    assert!(text.contains("istio_build{component=\"proxy\",tag=\"1\"} 1\n"), "{text}");
    assert!(text.contains("app_up 1\n") && !text.contains("# EOF"), "{text}");
    assert!(text.contains("istio_agent_scrape_failures_total{type=\"application\"} 0\n"));
    agent.end.cancel();
}

#[tokio::test]
async fn draining_is_asked_for_by_post() {
    let agent = agent(Site::Status, 1).await;
    assert_eq!(agent.ask("GET", "/drain").await.0, 405);
    assert!(!agent.state.drain.is_cancelled());
    assert_eq!(agent.ask("POST", "/drain").await.0, 200);
    assert!(agent.state.drain.is_cancelled() && !agent.state.quit.is_cancelled());
    assert_eq!(agent.ask("GET", "/healthz/ready").await.0, 503);
    agent.end.cancel();
}

#[tokio::test]
async fn admin_pages_are_readable() {
    let agent = agent(Site::Admin, 1).await;
    for path in ["/server_info", "/config_dump", "/certs", "/stats?format=json"] {
        let (status, text) = agent.ask("GET", path).await;
        assert_eq!(status, 200, "{path}");
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{path}: {text}");
    }
    assert!(agent.ask("GET", "/stats?filter=server_live").await.1.contains("server_live: 1\n"));
    assert_eq!(agent.ask("GET", "/nothing").await.0, 404);
    agent.end.cancel();
}
