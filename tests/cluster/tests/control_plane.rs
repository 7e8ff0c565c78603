//! What `lateend` reads from a real API server: objects, permissions, tokens.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::unreachable,
    reason = "a test that panics has failed"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use lateen_cluster::Kubectl;
use lateen_cluster::api_server::ApiServer;
use lateen_cluster::binaries::Version;
use lateen_control_plane::cluster::Cluster;
use lateen_control_plane::review::Reviewer;
use lateen_control_plane::serve::metrics::Metrics;
use lateen_control_plane::serve::readiness::Readiness;
use lateen_control_plane::source::{Load, Source, Watched};
use lateen_control_plane::token::{ServiceAccount, TokenError};
use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The objects of an API server, followed.
struct Followed {
    source: Source,
    loads: Receiver<Arc<Load>>,
    readiness: Arc<Readiness>,
    stop: CancellationToken,
}

impl Followed {
    fn begin(client: Client) -> Self {
        let readiness = Arc::new(Readiness::new("test", "never met"));
        readiness.met("test");
        let stop = CancellationToken::new();
        let pod = "lateend-test".to_owned();
        let watched = Watched {
            cluster: Cluster { client, namespace: "mesh".to_owned(), pod },
            config_maps: vec!["istio".to_owned(), "istio-sidecar-injector".to_owned()],
            readiness: Arc::clone(&readiness),
            metrics: Arc::new(Metrics::default()),
        };
        let source = Source::watch(watched, stop.clone());
        Self { loads: source.loads(), source, readiness, stop }
    }

    /// Waits until everything has been listed.
    async fn listed(&self) {
        let listed = timeout(PATIENCE, self.source.listed()).await;
        assert!(listed.is_ok(), "{:?}", self.readiness.missing());
    }

    /// Waits until what is in force is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Load) -> bool) -> Arc<Load> {
        let arrived = timeout(PATIENCE, self.loads.wait_for(|load| wanted(load))).await;
        match arrived {
            Ok(load) => Arc::clone(&load.unwrap()),
            Err(_) => panic!("{what}: not in time; {}", self.readiness.remarks()),
        }
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.source.stopped()).await.unwrap();
    }
}

/// Waits until a text is as wanted.
async fn until(what: &str, text: impl Fn() -> String, wanted: impl Fn(&str) -> bool) {
    let waited = timeout(PATIENCE, async {
        while !wanted(&text()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: {}", text());
}

async fn config(kubeconfig: &Path) -> Config {
    let parsed = Kubeconfig::read_from(kubeconfig).unwrap();
    Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.unwrap()
}

async fn admin(server: &ApiServer) -> Client {
    Client::try_from(config(server.kubeconfig()).await).unwrap()
}

/// A client that is a service account of the namespace `mesh`.
async fn account(server: &ApiServer, name: &str) -> Client {
    let kubectl = server.kubectl();
    kubectl.run(["create", "serviceaccount", name, "--namespace=mesh"]).await.unwrap();
    let token = kubectl.run(["create", "token", name, "--namespace=mesh"]).await.unwrap();
    let mut config = config(server.kubeconfig()).await;
    config.auth_info = kube::config::AuthInfo::default();
    config.auth_info.token = Some(token.trim().to_owned().into());
    Client::try_from(config).unwrap()
}

async fn server() -> ApiServer {
    let server = ApiServer::start(Version::V1_36).await.unwrap();
    server.kubectl().run(["create", "namespace", "mesh"]).await.unwrap();
    server.kubectl().run(["create", "namespace", "shop"]).await.unwrap();
    server
}

fn service(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\n\
         spec: {{selector: {{app: cart}}, ports: [{{port: {port}, name: http}}]}}\n"
    )
}

/// A rule whose subsets may be there twice, which only `lateend` refuses.
fn rule(host: &str, subsets: [&str; 2]) -> String {
    let [first, second] = subsets;
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: cart, namespace: shop}}\n\
         spec: {{host: {host}, subsets: [{{name: {first}}}, {{name: {second}}}]}}\n"
    )
}

fn port(load: &Load) -> Option<u16> {
    let mut services = load.objects.services.iter().map(|it| &it.object);
    let cart = services.find(|it| it.metadata.name == "cart")?;
    cart.spec.ports.first().map(|port| port.port)
}

fn host(load: &Load) -> Option<&str> {
    load.objects.destination_rules.first().map(|rule| rule.spec.host.as_str())
}

async fn install(kubectl: &Kubectl) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/base/files/crds");
    kubectl.run(["create", "-f", folder]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn objects_come_and_change_and_go() {
    let server = server().await;
    let kubectl = server.kubectl();
    let mut followed = Followed::begin(admin(&server).await);
    followed.listed().await;
    let first = Arc::clone(&followed.loads.borrow());
    assert!(first.objects.namespaces.iter().any(|it| it.object.metadata.name == "shop"));
    assert_eq!(port(&first), None);

    kubectl.apply(&service(80)).await.unwrap();
    followed.until("a new service", |load| port(load) == Some(80)).await;
    kubectl.apply(&service(81)).await.unwrap();
    followed.until("a changed service", |load| port(load) == Some(81)).await;
    kubectl.run(["delete", "service", "cart", "--namespace=shop"]).await.unwrap();
    followed.until("no service", |load| port(load).is_none()).await;

    let map = |key: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: mesh}}\n\
             data: {{mesh: 'trustDomain: {key}'}}\n"
        )
    };
    kubectl.apply(&map("one").replace("namespace: mesh", "namespace: shop")).await.unwrap();
    kubectl.apply(&map("two")).await.unwrap();
    let text = |load: &Load| {
        load.objects.config_text("mesh", "istio", "mesh").map(|(text, _)| text.to_owned())
    };
    let wanted = "trustDomain: two";
    let load = followed.until("its ConfigMap", |load| text(load).as_deref() == Some(wanted)).await;
    assert_eq!(load.objects.config_maps.len(), 1, "those of others are not read");
    followed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn kinds_are_followed_when_they_are_installed_and_mistakes_leave_what_was_there() {
    let server = server().await;
    let kubectl = server.kubectl();
    let mut followed = Followed::begin(admin(&server).await);
    followed.listed().await;
    install(kubectl).await;
    kubectl
        .run(["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])
        .await
        .unwrap();
    kubectl.apply(&rule("cart", ["a", "b"])).await.unwrap();
    followed.until("a rule of a kind installed late", |load| host(load) == Some("cart")).await;

    kubectl.apply(&rule("other", ["a", "a"])).await.unwrap();
    let load = followed.until("a refusal", |load| !load.findings.is_empty()).await;
    assert_eq!(host(&load), Some("cart"), "the former stays");
    let said = load.findings[0].to_string();
    assert!(said.starts_with("cluster: DestinationRule shop/cart: spec.subsets[1].name"), "{said}");
    kubectl.apply(&rule("third", ["a", "b"])).await.unwrap();
    let load = followed.until("the repaired rule", |load| host(load) == Some("third")).await;
    assert!(load.findings.is_empty(), "{:?}", load.findings);

    let sidecar = "apiVersion: networking.istio.io/v1\nkind: Sidecar\n\
                   metadata: {name: s, namespace: shop}\nspec: {egress: [{hosts: ['*/*']}]}\n";
    kubectl.apply(sidecar).await.unwrap();
    let load = followed.until("a remark", |load| !load.findings.is_empty()).await;
    assert!(load.findings[0].to_string().contains("Sidecar shop/s"), "{}", load.findings[0]);
    // The objects of a kind go with its definition.
    let gone = "destinationrules.networking.istio.io";
    kubectl.run(["delete", "crd", gone, "--timeout=60s"]).await.unwrap();
    followed.until("no rule without its kind", |load| host(load).is_none()).await;
    followed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn while_the_api_server_is_away_everything_stays() {
    let mut server = server().await;
    let kubectl = server.kubectl().clone();
    install(&kubectl).await;
    kubectl
        .run(["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])
        .await
        .unwrap();
    kubectl.apply(&service(80)).await.unwrap();
    kubectl.apply(&rule("cart", ["a", "b"])).await.unwrap();
    let mut followed = Followed::begin(admin(&server).await);
    followed.listed().await;
    let complete = |load: &Load| port(load) == Some(80) && host(load) == Some("cart");
    followed.until("everything", complete).await;

    for round in 0..2 {
        server.pause().await;
        let readiness = Arc::clone(&followed.readiness);
        let away = |text: &str| text.contains("the API server does not answer");
        until("it is said to be away", || readiness.remarks(), away).await;
        assert_eq!(readiness.missing(), None, "readiness stays");
        assert!(complete(&followed.loads.borrow()));
        // Nothing may go on the way back, not even for a moment.
        let mut watched = followed.loads.clone();
        let (done, mut finished) = tokio::sync::oneshot::channel::<()>();
        let witness = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut finished => return None,
                    changed = watched.changed() => {
                        changed.unwrap();
                        let load = Arc::clone(&watched.borrow_and_update());
                        if host(&load) != Some("cart") || port(&load).is_none() {
                            return Some(load);
                        }
                    }
                }
            }
        });
        server.resume().await.unwrap();
        kubectl.apply(&service(100 + round)).await.unwrap();
        followed.until("a change after it", |load| port(load) == Some(100 + round)).await;
        until("it is well again", || followed.readiness.remarks(), str::is_empty).await;
        done.send(()).unwrap_or_default();
        assert!(witness.await.unwrap().is_none(), "something was lost on the way back");
        kubectl.apply(&service(80)).await.unwrap();
        followed.until("everything as before", complete).await;
    }
    followed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn secrets_are_read_while_a_gateway_names_them() {
    let server = server().await;
    let kubectl = server.kubectl();
    install(kubectl).await;
    for secret in ["named", "unnamed"] {
        for namespace in ["--namespace=shop", "--namespace=mesh"] {
            let words = ["create", "secret", "generic", secret, "--from-literal=cert=one"];
            kubectl.run([&words[..], &[namespace]].concat()).await.unwrap();
        }
    }
    kubectl.run(["create", "serviceaccount", "default", "--namespace=shop"]).await.unwrap();
    let pod = "apiVersion: v1\nkind: Pod\n\
               metadata: {name: edge, namespace: shop, labels: {istio: ingress}}\n\
               spec: {containers: [{name: c, image: i}]}\n";
    kubectl.apply(pod).await.unwrap();
    let mut followed = Followed::begin(admin(&server).await);
    followed.listed().await;
    assert!(followed.loads.borrow().objects.secrets.is_empty());

    let gateway = "apiVersion: networking.istio.io/v1\nkind: Gateway\n\
                   metadata: {name: edge, namespace: mesh}\n\
                   spec: {selector: {istio: ingress}, servers: [{hosts: ['*'], \
                   port: {number: 443, name: https, protocol: HTTPS}, \
                   tls: {mode: SIMPLE, credentialName: named}}]}\n";
    kubectl
        .run(["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])
        .await
        .unwrap();
    kubectl.apply(gateway).await.unwrap();
    let names = |load: &Load| -> Vec<String> {
        let metadata = load.objects.secrets.iter().map(|it| &it.object.metadata);
        metadata.map(|it| format!("{}/{}", it.namespace_or_empty(), it.name)).collect()
    };
    let one = |load: &Load| names(load) == ["shop/named"];
    followed.until("the Secret of the pod's namespace", one).await;
    let changed = "{\"stringData\": {\"cert\": \"two\"}}";
    kubectl
        .run(["patch", "secret", "named", "--namespace=shop", "--patch", changed])
        .await
        .unwrap();
    let two = |load: &Load| {
        let mut secrets = load.objects.secrets.iter();
        secrets.any(|it| it.object.data.get("cert").is_some_and(|text| text == "dHdv"))
    };
    followed.until("the changed Secret", two).await;
    kubectl
        .run(["delete", "gateway.networking.istio.io", "edge", "--namespace=mesh"])
        .await
        .unwrap();
    followed.until("no Secret", |load| load.objects.secrets.is_empty()).await;
    followed.end().await;
}

const ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lateend-test}
rules:
- {apiGroups: [''], resources: [namespaces, nodes, services, configmaps], verbs: [get, list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lateend-test}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lateend-test}
subjects: [{kind: ServiceAccount, name: istiod, namespace: mesh}]
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_missing_permission_is_named_and_awaited() {
    let server = server().await;
    let kubectl = server.kubectl();
    kubectl.apply(ROLE).await.unwrap();
    let client = account(&server, "istiod").await;
    let followed = Followed::begin(client.clone());
    let readiness = Arc::clone(&followed.readiness);
    let named = |text: &str| {
        text.contains("\"system:serviceaccount:mesh:istiod\" cannot ")
            && text.contains("resource \"pods\" in API group \"\" at the cluster scope")
            && text.contains("the chart `lateend` grants it")
            && text.contains("not listed yet: pods;")
    };
    until("pods", || readiness.missing().unwrap_or_default(), named).await;

    // Tokens may not be reviewed either: nobody is refused for that, and it is said.
    let reviewer = Arc::new(reviewer(client, &readiness));
    let stop = CancellationToken::new();
    let begun = tokio::spawn(Arc::clone(&reviewer).begin(stop.clone()));
    let tokens = |text: &str| text.contains("cannot create resource \"tokenreviews\"");
    until("token reviews", || readiness.missing().unwrap_or_default(), tokens).await;

    let role = ROLE.replace("[namespaces,", "[pods, namespaces,").replace(
        "rules:",
        "rules:\n- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}",
    );
    kubectl.apply(&role).await.unwrap();
    followed.listed().await;
    until("ready", || readiness.missing().unwrap_or_default(), str::is_empty).await;
    timeout(PATIENCE, begun).await.unwrap().unwrap();
    followed.end().await;
}

fn reviewer(client: Client, readiness: &Arc<Readiness>) -> Reviewer {
    Reviewer::new(client, Arc::new(Metrics::default()), Arc::clone(readiness))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn tokens_are_believed_as_the_api_server_believes_them() {
    let mut server = server().await;
    server.start_controllers().await.unwrap();
    let kubectl = server.kubectl().clone();
    let readiness = Arc::new(Readiness::new("test", ""));
    let reviewer = reviewer(admin(&server).await, &readiness);
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: cart-1, namespace: shop}\n\
               spec: {serviceAccountName: cart, containers: [{name: c, image: i}]}\n";
    kubectl.run(["create", "serviceaccount", "cart", "--namespace=shop"]).await.unwrap();
    kubectl.apply(pod).await.unwrap();
    let token = |account: &'static str, audience: &'static str, more: &'static str| {
        let kubectl = kubectl.clone();
        async move {
            let audience = format!("--audience={audience}");
            let mut words = vec!["create", "token", account, "--namespace=shop", &audience];
            words.extend(more.split_whitespace());
            kubectl.run(words).await.unwrap().trim().to_owned()
        }
    };
    let bound = "--bound-object-kind=Pod --bound-object-name=cart-1";
    let good = token("cart", "istio-ca", bound).await;
    let caller = reviewer.review(&good, now()).await.unwrap();
    assert_eq!(caller.account, ServiceAccount { namespace: "shop".into(), name: "cart".into() });
    assert_eq!(caller.pod.unwrap().name, "cart-1");

    let foreign = token("cart", "vault", bound).await;
    let refused = reviewer.review(&foreign, now()).await.unwrap_err();
    assert_eq!(refused.to_string(), "the token is for `vault`, not for the audience `istio-ca`");
    let (claims, _) = good.rsplit_once('.').unwrap();
    let (_, signature) = foreign.rsplit_once('.').unwrap();
    let refused = reviewer.review(&format!("{claims}.{signature}"), now()).await.unwrap_err();
    assert!(refused.to_string().contains("the API server says: "), "{refused}");
    let late = reviewer.review(&good, now() + 100_000_000).await.unwrap_err();
    assert_eq!(late, TokenError::Time("has expired"));

    // While it is away: who was believed stays so, others are told to try again.
    let unknown = token("cart", "istio-ca", "").await;
    server.pause().await;
    let later = now() + 300;
    assert!(reviewer.review(&good, later).await.is_ok());
    let put_off = reviewer.review(&unknown, later).await.unwrap_err();
    assert!(matches!(put_off, TokenError::Unavailable(_)), "{put_off}");
    server.resume().await.unwrap();
    assert!(reviewer.review(&unknown, later).await.is_ok());

    // A token ends with its pod.
    let gone = ["delete", "pod", "cart-1", "--namespace=shop", "--force", "--grace-period=0"];
    kubectl.run(gone).await.unwrap();
    let ended = timeout(PATIENCE, async {
        for seconds in 0.. {
            // Later and later, so that no answer is a kept one.
            match reviewer.review(&good, later + 100 + seconds * 60).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(error) => return error,
            }
        }
        unreachable!("the loop has no end")
    });
    let ended = ended.await.unwrap();
    assert!(matches!(ended, TokenError::Refused(_)), "{ended}");
}
