//! A small API server over plain HTTP: pods, nodes and a DaemonSet with list, watch, get, delete and
//! patch, and events. It refuses what a test says, and can go away and come back on its port.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

type Body = BoxBody<Bytes, Infallible>;
type Watcher = (String, mpsc::UnboundedSender<Value>);

#[derive(Default)]
struct State {
    /// Objects by path.
    objects: BTreeMap<String, Value>,
    watchers: Vec<Watcher>,
    /// Verb and resource of what is forbidden.
    denied: Vec<(&'static str, &'static str)>,
    /// Objects that watch and list do not show.
    hidden: Vec<String>,
    version: u64,
    /// The resource that a get waits for until it is another.
    held: &'static str,
    /// Gets that wait.
    waiting: usize,
    /// Patches that are answered as if somebody had been faster.
    conflicts: usize,
    /// Verb, path and body of every change that was asked for.
    changes: Vec<(String, String, Value)>,
}

/// The server; ends when dropped.
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Api {
    pub(crate) fn new() -> Self {
        let mut api = Self {
            state: Arc::default(),
            runtime: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        api.up();
        api
    }

    /// Listens, on the port it had before.
    pub(crate) fn up(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _context = runtime.enter();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(self.address).unwrap();
            socket.listen(64).unwrap()
        };
        self.address = listener.local_addr().unwrap();
        let state = Arc::clone(&self.state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    drop(
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
                    );
                });
            }
        });
        self.runtime = Some(runtime);
    }

    /// Goes away, connections and all.
    pub(crate) fn down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.lock().watchers.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn kubeconfig(&self, folder: &Path) -> std::path::PathBuf {
        let path = folder.join("kubeconfig");
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    pub(crate) fn deny(&self, verb: &'static str, resource: &'static str) {
        self.lock().denied.push((verb, resource));
    }

    pub(crate) fn hide(&self, path: &str) {
        self.lock().hidden.push(path.to_owned());
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.lock().change(path, Some(object));
    }

    pub(crate) fn delete(&self, path: &str) {
        self.lock().change(path, None);
    }

    /// Answers this many patches as if somebody had been faster.
    pub(crate) fn conflict(&self, times: usize) {
        self.lock().conflicts = times;
    }

    pub(crate) fn object(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    /// Lets gets of this resource wait, and no others.
    pub(crate) fn hold(&self, resource: &'static str) {
        self.lock().held = resource;
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.lock().waiting > 0
    }

    pub(crate) fn is_watched(&self, resource: &str) -> bool {
        self.lock().watchers.iter().any(|(of, _)| of == resource)
    }

    pub(crate) fn changes(&self) -> Vec<(String, String, Value)> {
        self.lock().changes.clone()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.down();
    }
}

impl State {
    fn change(&mut self, path: &str, object: Option<Value>) {
        self.version += 1;
        let kind = match (&object, self.objects.contains_key(path)) {
            (None, _) => "DELETED",
            (Some(_), true) => "MODIFIED",
            (Some(_), false) => "ADDED",
        };
        let mut shown = object.or_else(|| self.objects.get(path).cloned()).unwrap();
        shown["metadata"]["resourceVersion"] = json!(self.version.to_string());
        match kind {
            "DELETED" => drop(self.objects.remove(path)),
            _ => drop(self.objects.insert(path.to_owned(), shown.clone())),
        }
        if !self.hidden.iter().any(|hidden| hidden == path) {
            let event = json!({"type": kind, "object": shown});
            let resource = resource(path);
            self.watchers
                .retain(|(of, watcher)| of != resource || watcher.send(event.clone()).is_ok());
        }
    }

    fn list(&self, resource_: &str) -> Value {
        let shown = |path: &&String| resource(path) == resource_ && !self.hidden.contains(path);
        let items: Vec<&Value> =
            self.objects.iter().filter(|(path, _)| shown(path)).map(|(_, object)| object).collect();
        json!({"kind": "List", "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }
}

fn resource(path: &str) -> &'static str {
    ["pods", "daemonsets", "events", "nodes"]
        .into_iter()
        .find(|r| path.contains(&format!("/{r}")))
        .unwrap()
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.path().to_owned();
    let resource = resource(&path);
    let single = !path.ends_with(resource);
    let watching = parts.uri.query().is_some_and(|query| query.contains("watch="));
    let verb = match (&parts.method, single, watching) {
        (&Method::GET, true, _) => "get",
        (&Method::GET, _, true) => "watch",
        (&Method::GET, _, _) => "list",
        (&Method::POST, ..) => "create",
        (&Method::DELETE, ..) => "delete",
        _ => "patch",
    };
    while verb == "get" && state.lock().unwrap().held == resource {
        state.lock().unwrap().waiting += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut state = state.lock().unwrap();
    if state.denied.contains(&(verb, resource)) {
        let text = format!("{resource} is forbidden: cannot {verb}");
        return Ok(status(StatusCode::FORBIDDEN, "Forbidden", &text));
    }
    if ["create", "delete", "patch"].contains(&verb) {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        state.changes.push((verb.to_owned(), path.clone(), body));
    }
    Ok(match verb {
        "list" => whole(&state.list(resource)),
        "watch" => {
            let (send, events) = mpsc::unbounded_channel();
            state.watchers.push((resource.to_owned(), send));
            let frames = futures_util::stream::unfold(events, |mut events| async move {
                let line = format!("{}\n", events.recv().await?);
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(line))), events))
            });
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
        "create" => whole(&state.changes.last().unwrap().2),
        _ => match state.objects.get(&path).cloned() {
            None => status(StatusCode::NOT_FOUND, "NotFound", &format!("{path} not found")),
            Some(_) if verb == "patch" => patched(&mut state, &path),
            Some(object) => {
                if verb == "delete" {
                    state.change(&path, None);
                }
                whole(&object)
            }
        },
    })
}

/// A merge patch; one that names another version than there is is refused.
fn patched(state: &mut State, path: &str) -> Response<Body> {
    let patch = state.changes.last().unwrap().2.clone();
    let mut object = state.objects[path].clone();
    let version = &patch["metadata"]["resourceVersion"];
    if state.conflicts > 0
        || !(version.is_null() || *version == object["metadata"]["resourceVersion"])
    {
        state.conflicts = state.conflicts.saturating_sub(1);
        return status(StatusCode::CONFLICT, "Conflict", "the object has been modified");
    }
    merge(&mut object, &patch);
    state.change(path, Some(object));
    whole(&state.objects[path])
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(parts) = patch.as_object() else { return object.clone_from(patch) };
    for (key, value) in parts {
        merge(&mut object[key.as_str()], value);
    }
}

fn whole(value: &Value) -> Response<Body> {
    Response::new(http_body_util::Full::new(Bytes::from(value.to_string())).boxed())
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let mut response = whole(&json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": message}));
    *response.status_mut() = code;
    response
}
