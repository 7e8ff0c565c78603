//! The one table of names that users, tools and the parts of the mesh agree on: labels,
//! annotations, ports, ids, container and volume names, environment variables, paths.
//!
//! The strings are Istio's, because dashboards, scripts and manifests in the field match on them.
//! Nothing here has behaviour.

/// Labels of namespaces, pods and other objects.
pub mod label {
    /// Namespace label: `enabled` asks for injection, any other value refuses it.
    pub const NAMESPACE_INJECTION: &str = "istio-injection";
    /// Namespace and pod label: the revision (or revision tag) that is in charge.
    pub const REVISION: &str = "istio.io/rev";
    /// Marks webhook configurations that belong to a revision tag.
    pub const REVISION_TAG: &str = "istio.io/tag";
    /// Pod label `true` or `false`; also read as (deprecated) annotation.
    pub const INJECT: &str = "sidecar.istio.io/inject";
    /// `istio` when the workload speaks mutual TLS through a sidecar, else `disabled`.
    pub const TLS_MODE: &str = "security.istio.io/tlsMode";
    /// Canonical service name of a workload.
    pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
    /// Canonical revision of a workload.
    pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
    /// Overrides the workload's name.
    pub const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
    /// Network of a workload.
    pub const NETWORK: &str = "topology.istio.io/network";
    /// Cluster of a workload.
    pub const CLUSTER: &str = "topology.istio.io/cluster";
    /// Subzone of a node or workload.
    pub const SUBZONE: &str = "topology.istio.io/subzone";
    /// `http` when the workload accepts HBONE.
    pub const TUNNEL: &str = "networking.istio.io/tunnel";
    /// Region of a node.
    pub const REGION: &str = "topology.kubernetes.io/region";
    /// Zone of a node.
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    /// Locality override of a workload, `region.zone.subzone`.
    pub const LOCALITY: &str = "istio-locality";
    /// Conventional name of an application.
    pub const APP: &str = "app";
    /// Conventional version of an application.
    pub const VERSION: &str = "version";
    /// Kubernetes' recommended name label.
    pub const KUBE_NAME: &str = "app.kubernetes.io/name";
    /// Kubernetes' recommended version label.
    pub const KUBE_VERSION: &str = "app.kubernetes.io/version";
    /// Names the Service that an EndpointSlice belongs to.
    pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
    /// Name of the namespace, set by the API server on every namespace.
    pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
    /// Hash that a Deployment puts on its pods.
    pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
    /// Hash that an Argo Rollout puts on its pods.
    pub const ROLLOUTS_POD_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";
    /// Name of the DeploymentConfig of an OpenShift pod.
    pub const DEPLOYMENT_CONFIG: &str = "deploymentconfig";
}

/// Annotations of pods, services and namespaces.
pub mod annotation {
    /// What injection did to the pod (JSON); its presence says that the pod is injected.
    pub const STATUS: &str = "sidecar.istio.io/status";
    /// Containers the user defined over ours (JSON), kept so that injection can be repeated.
    pub const OVERRIDES: &str = "proxy.istio.io/overrides";
    /// Proxy configuration of one pod (YAML).
    pub const PROXY_CONFIG: &str = "proxy.istio.io/config";
    /// Set by the kubelet on a pod that stands for one it runs from a file.
    pub const MIRROR: &str = "kubernetes.io/config.mirror";
    /// What the settings made of the pod, as a digest; one that no longer holds is a stale sidecar.
    pub const DIGEST: &str = "inject.lateen.dev/digest";
    /// Labels and annotations that injection added (JSON), so that it can be judged without them.
    pub const ADDED: &str = "inject.lateen.dev/added";
    /// Comma list of injection templates.
    pub const INJECT_TEMPLATES: &str = "inject.istio.io/templates";
    /// `true` or `false`: whether the proxy is a native sidecar.
    pub const NATIVE_SIDECAR: &str = "sidecar.istio.io/nativeSidecar";
    /// Image of the proxy.
    pub const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";
    /// Variant of the proxy image.
    pub const PROXY_IMAGE_TYPE: &str = "sidecar.istio.io/proxyImageType";
    /// CPU request of the proxy.
    pub const PROXY_CPU: &str = "sidecar.istio.io/proxyCPU";
    /// CPU limit of the proxy.
    pub const PROXY_CPU_LIMIT: &str = "sidecar.istio.io/proxyCPULimit";
    /// Memory request of the proxy.
    pub const PROXY_MEMORY: &str = "sidecar.istio.io/proxyMemory";
    /// Memory limit of the proxy.
    pub const PROXY_MEMORY_LIMIT: &str = "sidecar.istio.io/proxyMemoryLimit";
    /// `REDIRECT`, `TPROXY` or `NONE`.
    pub const INTERCEPTION_MODE: &str = "sidecar.istio.io/interceptionMode";
    /// `true` lets the proxy bind low ports.
    pub const CAP_NET_BIND_SERVICE: &str = "sidecar.istio.io/capNetBindService";
    /// ConfigMap with a bootstrap override.
    pub const BOOTSTRAP_OVERRIDE: &str = "sidecar.istio.io/bootstrapOverride";
    /// Log level of the proxy.
    pub const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
    /// Log levels of the proxy's components.
    pub const COMPONENT_LOG_LEVEL: &str = "sidecar.istio.io/componentLogLevel";
    /// Log level of the agent.
    pub const AGENT_LOG_LEVEL: &str = "sidecar.istio.io/agentLogLevel";
    /// Additional volumes (JSON map).
    pub const USER_VOLUME: &str = "sidecar.istio.io/userVolume";
    /// Additional volume mounts of the proxy (JSON map).
    pub const USER_VOLUME_MOUNT: &str = "sidecar.istio.io/userVolumeMount";
    /// Whether application probes are rewritten to go through the agent.
    pub const REWRITE_PROBES: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
    /// Control plane address of one pod.
    pub const DISCOVERY_ADDRESS: &str = "sidecar.istio.io/discoveryAddress";
    /// Status port of the proxy; `0` switches probes off.
    pub const STATUS_PORT: &str = "status.sidecar.istio.io/port";
    /// `initialDelaySeconds` of the proxy's readiness probe.
    pub const READINESS_INITIAL_DELAY: &str =
        "readiness.status.sidecar.istio.io/initialDelaySeconds";
    /// `periodSeconds` of the proxy's readiness probe.
    pub const READINESS_PERIOD: &str = "readiness.status.sidecar.istio.io/periodSeconds";
    /// `failureThreshold` of the proxy's readiness probe.
    pub const READINESS_FAILURE: &str = "readiness.status.sidecar.istio.io/failureThreshold";
    /// Application ports of the proxy's readiness (accepted, without effect).
    pub const READINESS_PORTS: &str = "readiness.status.sidecar.istio.io/applicationPorts";
    /// Outbound ranges to redirect, `*` or a CIDR list.
    pub const INCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/includeOutboundIPRanges";
    /// Outbound ranges not to redirect.
    pub const EXCLUDE_OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";
    /// Inbound ports to redirect, `*` or a list.
    pub const INCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeInboundPorts";
    /// Inbound ports not to redirect.
    pub const EXCLUDE_INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
    /// Outbound ports to redirect whatever their address.
    pub const INCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/includeOutboundPorts";
    /// Outbound ports not to redirect.
    pub const EXCLUDE_OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
    /// Interfaces whose traffic is left alone.
    pub const EXCLUDE_INTERFACES: &str = "traffic.sidecar.istio.io/excludeInterfaces";
    /// Interfaces whose inbound traffic is treated as outbound (deprecated name).
    pub const KUBEVIRT_INTERFACES: &str = "traffic.sidecar.istio.io/kubevirtInterfaces";
    /// Interfaces whose inbound traffic is treated as outbound.
    pub const REROUTE_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
    /// Whether application metrics are merged with the proxy's.
    pub const MERGE_METRICS: &str = "prometheus.istio.io/merge-metrics";
    /// Application metrics targets after merging.
    pub const SCRAPE_TARGETS: &str = "prometheus.istio.io/scrape-targets";
    /// Port of merged metrics over TLS.
    pub const SECURE_METRICS_PORT: &str = "prometheus.istio.io/secure-port";
    /// Prometheus' own convention: scrape this pod.
    pub const PROMETHEUS_SCRAPE: &str = "prometheus.io/scrape";
    /// Prometheus' own convention: port of metrics.
    pub const PROMETHEUS_PORT: &str = "prometheus.io/port";
    /// Prometheus' own convention: path of metrics.
    pub const PROMETHEUS_PATH: &str = "prometheus.io/path";
    /// Container that `kubectl logs` shows.
    pub const DEFAULT_LOGS_CONTAINER: &str = "kubectl.kubernetes.io/default-logs-container";
    /// Container that `kubectl exec` enters.
    pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
    /// Additional networks of multus.
    pub const CNCF_NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
    /// Namespaces that may see a Kubernetes Service.
    pub const EXPORT_TO: &str = "networking.istio.io/exportTo";
    /// Additional SPIFFE ids that serve a Kubernetes Service.
    pub const CANONICAL_SERVICE_ACCOUNTS: &str = "alpha.istio.io/canonical-serviceaccounts";
    /// Additional Kubernetes service accounts that serve a Kubernetes Service.
    pub const KUBERNETES_SERVICE_ACCOUNTS: &str = "alpha.istio.io/kubernetes-serviceaccounts";
    /// An AuthorizationPolicy with value `true` is only logged, not enforced.
    pub const DRY_RUN: &str = "istio.io/dry-run";
}

/// Ports of the sidecar and of the control plane.
pub mod port {
    /// Admin interface, loopback only.
    pub const PROXY_ADMIN: u16 = 15000;
    /// Outbound listener.
    pub const PROXY_OUTBOUND: u16 = 15001;
    /// Debug port of the agent.
    pub const AGENT_DEBUG: u16 = 15004;
    /// Inbound listener.
    pub const PROXY_INBOUND: u16 = 15006;
    /// HBONE.
    pub const HBONE: u16 = 15008;
    /// Status, merged metrics, application probes, drain.
    pub const STATUS: u16 = 15020;
    /// Health of the proxy.
    pub const HEALTH: u16 = 15021;
    /// DNS, loopback only.
    pub const DNS: u16 = 15053;
    /// Prometheus metrics of the proxy.
    pub const PROMETHEUS: u16 = 15090;
    /// Plaintext discovery service.
    pub const DISCOVERY: u16 = 15010;
    /// Discovery service and certificate authority over TLS.
    pub const DISCOVERY_TLS: u16 = 15012;
    /// Metrics, readiness and debugging of the control plane.
    pub const MONITORING: u16 = 15014;
    /// Webhooks of the control plane.
    pub const WEBHOOK: u16 = 15017;
    /// Ports of a sidecar that an application cannot use.
    pub const RESERVED: [u16; 9] = [
        PROXY_ADMIN,
        PROXY_OUTBOUND,
        AGENT_DEBUG,
        PROXY_INBOUND,
        HBONE,
        STATUS,
        HEALTH,
        DNS,
        PROMETHEUS,
    ];
}

/// User and group ids.
pub mod user {
    /// User the proxy runs as; its traffic is never redirected.
    pub const PROXY_UID: u32 = 1337;
    /// Group the proxy runs as.
    pub const PROXY_GID: u32 = 1337;
}

/// Container names, and the name part of images.
pub mod container {
    /// The sidecar.
    pub const PROXY: &str = "istio-proxy";
    /// Init container that sets up redirection.
    pub const INIT: &str = "istio-init";
    /// Init container that checks redirection where the CNI plugin set it up.
    pub const VALIDATION: &str = "istio-validation";
    /// Image name of all of them.
    pub const PROXY_IMAGE: &str = "proxyv2";
    /// Port name of the proxy's metrics.
    pub const PROMETHEUS_PORT_NAME: &str = "http-envoy-prom";
    /// Port name of metrics where there is an agent and no proxy.
    pub const AGENT_PORT_NAME: &str = "mesh-metrics";
    /// Exit code of validation when rules are absent.
    pub const VALIDATION_FAILED: i32 = 126;
}

/// Volume names of an injected pod.
pub mod volume {
    /// Socket of an external workload API.
    pub const WORKLOAD_SOCKET: &str = "workload-socket";
    /// Socket of an external credential service.
    pub const CREDENTIAL_SOCKET: &str = "credential-socket";
    /// Certificates from outside.
    pub const WORKLOAD_CERTS: &str = "workload-certs";
    /// Scratch memory of the proxy.
    pub const ENVOY: &str = "istio-envoy";
    /// Bootstrap and discovery socket for applications that speak xDS themselves.
    pub const XDS: &str = "istio-xds";
    /// Scratch space of the agent.
    pub const DATA: &str = "istio-data";
    /// Labels and annotations of the pod.
    pub const POD_INFO: &str = "istio-podinfo";
    /// Service account token for the certificate authority.
    pub const TOKEN: &str = "istio-token";
    /// Root certificate of the control plane.
    pub const CA_CERT: &str = "istiod-ca-cert";
    /// Revocation list.
    pub const CA_CRL: &str = "istio-ca-crl";
}

/// Environment variables of `istio-proxy` and of the init containers.
pub mod env {
    /// Who signs certificates.
    pub const PILOT_CERT_PROVIDER: &str = "PILOT_CERT_PROVIDER";
    /// Address of the certificate authority.
    pub const CA_ADDR: &str = "CA_ADDR";
    /// Name of the pod.
    pub const POD_NAME: &str = "POD_NAME";
    /// Namespace of the pod.
    pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
    /// Address of the pod.
    pub const INSTANCE_IP: &str = "INSTANCE_IP";
    /// All addresses of the pod, comma separated.
    pub const INSTANCE_IPS: &str = "INSTANCE_IPS";
    /// Service account of the pod.
    pub const SERVICE_ACCOUNT: &str = "SERVICE_ACCOUNT";
    /// Address of the node.
    pub const HOST_IP: &str = "HOST_IP";
    /// CPU limit of the proxy in cores.
    pub const CPU_LIMIT: &str = "ISTIO_CPU_LIMIT";
    /// Memory limit of the proxy in bytes.
    pub const MEMORY_LIMIT: &str = "GOMEMLIMIT";
    /// Proxy configuration (JSON).
    pub const PROXY_CONFIG: &str = "PROXY_CONFIG";
    /// Trust domain of the mesh.
    pub const TRUST_DOMAIN: &str = "TRUST_DOMAIN";
    /// Rewritten application probes (JSON).
    pub const APP_PROBERS: &str = "ISTIO_KUBE_APP_PROBERS";
    /// Application metrics to merge (JSON).
    pub const PROMETHEUS_ANNOTATIONS: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
    /// Prefix of variables that become node metadata.
    pub const META_PREFIX: &str = "ISTIO_META_";
    /// Ports of all application containers (JSON).
    pub const META_POD_PORTS: &str = "ISTIO_META_POD_PORTS";
    /// Names of the application containers.
    pub const META_APP_CONTAINERS: &str = "ISTIO_META_APP_CONTAINERS";
    /// Cluster of the pod.
    pub const META_CLUSTER_ID: &str = "ISTIO_META_CLUSTER_ID";
    /// Network of the pod.
    pub const META_NETWORK: &str = "ISTIO_META_NETWORK";
    /// Node of the pod.
    pub const META_NODE_NAME: &str = "ISTIO_META_NODE_NAME";
    /// How traffic is intercepted.
    pub const META_INTERCEPTION_MODE: &str = "ISTIO_META_INTERCEPTION_MODE";
    /// Name of the workload.
    pub const META_WORKLOAD_NAME: &str = "ISTIO_META_WORKLOAD_NAME";
    /// Owner of the workload.
    pub const META_OWNER: &str = "ISTIO_META_OWNER";
    /// Mesh of the pod.
    pub const META_MESH_ID: &str = "ISTIO_META_MESH_ID";
    /// `true` redirects DNS to the proxy.
    pub const META_DNS_CAPTURE: &str = "ISTIO_META_DNS_CAPTURE";
    /// What kind of resources the control plane makes.
    pub const META_GENERATOR: &str = "ISTIO_META_GENERATOR";
    /// `true` leaves the data path away: `istio-proxy` is the agent alone.
    pub const DISABLE_ENVOY: &str = "DISABLE_ENVOY";
    /// Folder into which certificate, key and roots are written.
    pub const OUTPUT_CERTS: &str = "OUTPUT_CERTS";
    /// Bootstrap file that gRPC libraries read.
    pub const GRPC_XDS_BOOTSTRAP: &str = "GRPC_XDS_BOOTSTRAP";
    /// Lifetime of workload certificates.
    pub const SECRET_TTL: &str = "SECRET_TTL";
    /// Part of the lifetime that is left when a certificate is renewed.
    pub const SECRET_GRACE_PERIOD_RATIO: &str = "SECRET_GRACE_PERIOD_RATIO";
}

/// Paths inside an injected pod.
pub mod path {
    /// Token for the certificate authority.
    pub const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
    /// Root certificate of the control plane.
    pub const ROOT_CERT: &str = "/var/run/secrets/istio/root-cert.pem";
    /// Labels of the pod.
    pub const POD_LABELS: &str = "/etc/istio/pod/labels";
    /// Annotations of the pod.
    pub const POD_ANNOTATIONS: &str = "/etc/istio/pod/annotations";
    /// Bootstrap file of gRPC libraries, written by the agent.
    pub const GRPC_BOOTSTRAP: &str = "/etc/istio/proxy/grpc-bootstrap.json";
    /// Folder of the agent, shared with applications that speak xDS themselves.
    pub const PROXY_DATA: &str = "/var/lib/istio/data";
}

/// Objects of the control plane in the cluster.
pub mod cluster {
    /// Namespace of the control plane, and default root namespace.
    pub const SYSTEM_NAMESPACE: &str = "istio-system";
    /// Service and Deployment of the control plane.
    pub const CONTROL_PLANE: &str = "istiod";
    /// ConfigMap of the mesh configuration.
    pub const MESH_CONFIG_MAP: &str = "istio";
    /// Key of the mesh configuration.
    pub const MESH_CONFIG_KEY: &str = "mesh";
    /// ConfigMap of the injector.
    pub const INJECTOR_CONFIG_MAP: &str = "istio-sidecar-injector";
    /// Key of the injector's values.
    pub const INJECTOR_VALUES_KEY: &str = "values";
    /// ConfigMap of the root certificate, in every namespace.
    pub const CA_ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
    /// Key of the root certificate.
    pub const CA_ROOT_KEY: &str = "root-cert.pem";
    /// Audience of service account tokens for the certificate authority.
    pub const TOKEN_AUDIENCE: &str = "istio-ca";
    /// Default domain of a cluster.
    pub const DOMAIN: &str = "cluster.local";
    /// Namespaces that are never injected.
    pub const IGNORED_NAMESPACES: [&str; 4] =
        ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
}
