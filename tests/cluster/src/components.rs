//! The command lines of the components, as pure functions: what each is told.

use std::path::Path;

use crate::certificates::Signed;

/// Issuer of service account tokens.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Where the API server listens and what it knows.
#[derive(Debug)]
pub(crate) struct ApiServerFlags<'a> {
    /// Address it listens on.
    pub(crate) bind: &'a str,
    /// Address others are told.
    pub(crate) advertise: &'a str,
    /// Its port.
    pub(crate) port: u16,
    /// URL of etcd.
    pub(crate) etcd: &'a str,
    /// Addresses of Services.
    pub(crate) service_range: &'a str,
    /// Folder of certificates.
    pub(crate) certificates: &'a Path,
    /// Its own.
    pub(crate) serving: &'a Signed,
    /// How it speaks to kubelets.
    pub(crate) kubelet_client: Option<&'a Signed>,
}

/// etcd: one member that forgets nothing while it runs; nobody needs its data after that.
pub(crate) fn etcd(data: &Path, client: &str, peer: &str) -> Vec<String> {
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=warn".to_owned(),
        // A test cluster that loses power is made again.
        "--unsafe-no-fsync".to_owned(),
    ]
}

/// The API server, with the default admission plugins and the Node and RBAC authorizers.
pub(crate) fn api_server(flags: &ApiServerFlags) -> Vec<String> {
    let file = |name: &str| flags.certificates.join(name).display().to_string();
    let mut words = vec![
        format!("--bind-address={}", flags.bind),
        format!("--advertise-address={}", flags.advertise),
        format!("--secure-port={}", flags.port),
        format!("--etcd-servers={}", flags.etcd),
        format!("--service-cluster-ip-range={}", flags.service_range),
        format!("--tls-cert-file={}", flags.serving.certificate.display()),
        format!("--tls-private-key-file={}", flags.serving.key.display()),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--anonymous-auth=false".to_owned(),
        // Leave quickly: nothing balances load over one API server.
        "--shutdown-delay-duration=0s".to_owned(),
    ];
    if let Some(client) = flags.kubelet_client {
        words.push(format!("--kubelet-client-certificate={}", client.certificate.display()));
        words.push(format!("--kubelet-client-key={}", client.key.display()));
        words.push("--kubelet-preferred-address-types=InternalIP".to_owned());
    } else {
        // Alone on loopback: nobody reaches it by the Service `kubernetes`.
        words.push("--endpoint-reconciler-type=none".to_owned());
    }
    words
}

/// The controller manager.
pub(crate) fn controller_manager(kubeconfig: &Path, certificates: &Path) -> Vec<String> {
    let file = |name: &str| certificates.join(name).display().to_string();
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("sa.key")),
        format!("--cluster-signing-cert-file={}", file("ca.crt")),
        format!("--cluster-signing-key-file={}", file("ca.key")),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ]
}

/// The scheduler.
pub(crate) fn scheduler(kubeconfig: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ]
}
