//! TLS at the edge of the mesh, asked from outside with a library that is not ours: ended by the
//! gateway, with and without a certificate of the client, and passed through to an application. All
//! on the ports of the web, which the gateway opens without a privilege.

use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::lab::{Lab, text};

/// Longest time a rule may take to hold.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks once by name over TLS; with `own` it shows its own certificate. Prints what it was told.
const CLIENT: &str = r#"
import json, socket, ssl, sys
address, name, own = sys.argv[1:]
context = ssl.create_default_context(cafile="/tls/ca.crt")
if own == "own":
    context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
try:
    with socket.create_connection((address, 443), 5) as raw, context.wrap_socket(raw, server_hostname=name) as tls:
        tls.sendall(f"GET /there HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
        head, body = b"".join(iter(lambda: tls.recv(65536), b"")).decode().split("\r\n\r\n", 1)
        print(json.dumps({"status": int(head.split()[1]), "head": head, "body": body}))
except OSError as error:
    print(json.dumps({"error": str(error)}))
"#;

/// Image of an application that speaks TLS itself, and its program.
const OWN: &str = "example.com/own:1";
const SERVER: &str = r#"
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from the application")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server = http.server.ThreadingHTTPServer(("", 8443), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// An authority of the test, and what it signs.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "edge");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A Secret with a certificate of this name, and the authority that clients are to have.
    fn secret(&self, namespace: &str, name: &str, host: &str) -> Value {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, host);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
            "stringData": {
                "tls.crt": certificate, "tls.key": key.serialize_pem(), "ca.crt": self.certificate,
            },
        })
    }
}

fn deployment(namespace: &str, name: &str, template: &Value) -> Value {
    let mut template = template.clone();
    template["metadata"]["labels"]["app"] = json!(name);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
    })
}

fn service(name: &str, port: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [port]},
    })
}

fn rules() -> Vec<Value> {
    let tls = |name: &str, protocol: &str, tls: Value| {
        json!({"port": {"number": 443, "name": name, "protocol": protocol}, "tls": tls,
            "hosts": [format!("{name}.example.com")]})
    };
    let gateway = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
        "metadata": {"name": "edge", "namespace": "default"},
        "spec": {"selector": {"app": "edge"}, "servers": [
            tls("simple", "HTTPS", json!({"mode": "SIMPLE", "credentialName": "simple"})),
            tls("mutual", "HTTPS", json!({"mode": "MUTUAL", "credentialName": "mutual"})),
            tls("through", "TLS", json!({"mode": "PASSTHROUGH"})),
            {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"],
                "tls": {"httpsRedirect": true}},
        ]},
    });
    let routed = |name: &str, hosts: Value, route: Value| {
        let mut spec = route;
        spec["hosts"] = hosts;
        spec["gateways"] = json!(["edge"]);
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": name, "namespace": "default"}, "spec": spec})
    };
    let to =
        |host: &str, port: u16| json!([{"destination": {"host": host, "port": {"number": port}}}]);
    vec![
        gateway,
        routed(
            "web",
            json!(["simple.example.com", "mutual.example.com"]),
            json!({"http": [{"route": to("web", 80)}]}),
        ),
        routed(
            "through",
            json!(["through.example.com"]),
            json!({"tls": [{"match": [{"sniHosts": ["through.example.com"]}],
                "route": to("own", 443)}]}),
        ),
    ]
}

fn world(authority: &Authority) -> Vec<Value> {
    let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let secret = |name: &str| json!([{"name": "tls", "secret": {"secretName": name}}]);
    let mounts = json!([{"name": "tls", "mountPath": "/tls"}]);
    let edge = json!({
        "metadata": {"annotations": {"inject.istio.io/templates": "gateway"},
            "labels": {"sidecar.istio.io/inject": "true"}},
        "spec": {"containers": [{"name": "istio-proxy", "image": "auto"}]},
    });
    let outside = json!({"metadata": {"labels": {}}, "spec": {"volumes": secret("outside"),
        "containers": [{"name": "app", "image": "example.com/outside:1", "volumeMounts": mounts}]}});
    let web = json!({"metadata": {"labels": {}}, "spec": {"containers": [
        {"name": "app", "image": "example.com/web:1", "ports": [{"containerPort": 8080}]}]}});
    let own = json!({"metadata": {"labels": {}}, "spec": {"volumes": secret("own"), "containers": [
        {"name": "app", "image": OWN, "ports": [{"containerPort": 8443}], "volumeMounts": mounts}]}});
    vec![
        namespace("default", json!({"istio-injection": "enabled"})),
        namespace("edge", json!({})),
        authority.secret("edge", "simple", "simple.example.com"),
        authority.secret("edge", "mutual", "mutual.example.com"),
        authority.secret("edge", "outside", "client.example.com"),
        authority.secret("default", "own", "through.example.com"),
        deployment("edge", "edge", &edge),
        deployment("edge", "outside", &outside),
        deployment("default", "web", &web),
        deployment("default", "own", &own),
        service("web", &json!({"name": "http", "port": 80, "targetPort": 8080})),
        service("own", &json!({"name": "tls", "port": 443, "targetPort": 8443})),
    ]
}

struct Edge {
    lab: Lab,
    outside: String,
    address: String,
}

impl Edge {
    /// The answer, or the error, of a host.
    fn ask(&self, name: &str, own: &str) -> Value {
        let host = format!("{name}.example.com");
        let command = ["python3", "-c", CLIENT, &self.address, &host, own];
        let all = [&["-n", "edge", &self.outside, "--"], &command[..]].concat();
        let output = self.lab.run("exec", &all);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
    }

    fn until_served(&self, name: &str, own: &str) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.ask(name, own);
            if answer["status"] == 200 {
                return answer;
            }
            assert!(begun.elapsed() < PATIENCE, "{name}: {answer}");
        }
    }

    /// What the application was asked, as it tells.
    fn asked(answer: &Value) -> Value {
        serde_json::from_str(answer["body"].as_str().unwrap()).unwrap()
    }
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn tls_ends_at_the_gateway_or_goes_through() {
    let authority = Authority::new();
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let all: Vec<String> =
        world(&authority).iter().chain(&rules()).map(ToString::to_string).collect();
    std::fs::write(file.path(), all.join("\n---\n")).unwrap();
    let image = format!("{OWN}=python3 -c '{SERVER}'");
    let lab = Lab::up("edge", &["-f", &file.path().to_string_lossy(), "--image", &image]);
    let pods = lab.pods();
    let pod = pods.iter().find(|pod| pod["name"].as_str().unwrap().starts_with("edge-"));
    let address = pod.unwrap()["addresses"][0].as_str().unwrap().to_owned();
    let outside = lab.pod("outside");
    let edge = Edge { lab, outside, address };

    let asked = Edge::asked(&edge.until_served("simple", "none"));
    assert_eq!(asked["headers"]["x-forwarded-proto"], "https", "{asked}");
    assert_eq!(asked["path"], "/there", "{asked}");

    edge.until_served("mutual", "own");
    let stranger = edge.ask("mutual", "none");
    assert!(stranger["error"].as_str().is_some_and(|it| it.contains("required")), "{stranger}");

    let through = edge.until_served("through", "none");
    assert_eq!(through["body"], "from the application");

    // No certificate is shown for a name that nobody serves.
    assert!(edge.ask("nobody", "none")["error"].is_string());

    let url = format!("http://{}/a", edge.address);
    let sent = edge.lab.get_in("edge", &edge.outside, &[&url, "-H", "host: simple.example.com"]);
    assert_eq!(sent["last_status"], 301, "{sent}");
    assert_eq!(sent["last_headers"]["location"], "https://simple.example.com/a", "{sent}");

    // A certificate that is exchanged is shown at once, and what was open is not lost.
    let other = Authority::new();
    let exchanged = other.secret("edge", "simple", "simple.example.com");
    let output = edge.lab.apply_text(&exchanged.to_string());
    assert!(output.status.success(), "{}", text(&output));
    let begun = Instant::now();
    while edge.ask("simple", "none")["error"].is_null() {
        assert!(begun.elapsed() < PATIENCE, "the former certificate is still shown");
    }
    assert_eq!(edge.ask("mutual", "own")["status"], 200, "another host is not touched");
}
