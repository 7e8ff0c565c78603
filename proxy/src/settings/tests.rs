//! Settings as Istio's template gives them, and what is refused.

use super::*;
use clap::Parser;

fn args(list: &[&str]) -> ProxyArgs {
    let all = ["lateen-proxy", "proxy"].iter().chain(list);
    match Cli::try_parse_from(all).unwrap().command {
        Some(Command::Proxy(args)) => args,
        other => panic!("{other:?}"),
    }
}

fn settings(env: &Environment) -> Settings {
    Settings::new(&args(&["sidecar"]), env, 4).unwrap()
}

#[test]
fn the_command_lines_of_the_template_are_understood() {
    let given = args(&[
        "sidecar",
        "--domain",
        "shop.svc.cluster.local",
        "--proxyLogLevel=warning",
        "--proxyComponentLogLevel=misc:error",
        "--log_output_level=default:info",
        "--log_as_json",
        "--stsPort=15463",
        "--concurrency=3",
    ]);
    assert_eq!(given.role, Some(Role::Sidecar));
    assert_eq!(given.domain.as_deref(), Some("shop.svc.cluster.local"));
    assert!(given.log_as_json);
    let drain = ["lateen-proxy", "request", "--debug-port=15020", "POST", "drain"];
    let Some(Command::Request(request)) = Cli::try_parse_from(drain).unwrap().command else {
        panic!()
    };
    assert_eq!((request.debug_port, request.path.as_str()), (15020, "drain"));
    assert!(matches!(
        Cli::try_parse_from(["lateen-proxy", "wait"]).unwrap().command,
        Some(Command::Wait(_))
    ));
    let fixed = Cli::try_parse_from(["lateen-proxy", "-c", "b.json"]).unwrap();
    assert_eq!(fixed.bootstrap.as_deref(), Some(std::path::Path::new("b.json")));
    assert!(Cli::try_parse_from(["lateen-proxy", "-c", "b.json", "wait"]).is_err());
}

#[test]
fn an_empty_environment_gives_istios_defaults() {
    let settings = settings(&Environment::default());
    assert_eq!(settings.control_plane.discovery, "istiod.istio-system.svc:15012");
    assert_eq!(settings.control_plane.authority, "istiod.istio-system.svc:15012");
    assert!(!settings.control_plane.plaintext);
    assert_eq!(settings.workload.domain, "default.svc.cluster.local");
    assert_eq!(settings.certificates.lifetime, Duration::from_secs(86_400));
    assert_eq!(
        settings.ports,
        Ports { status: 15020, health: 15021, prometheus: 15090, admin: 15000 }
    );
    assert_eq!(settings.drain.termination, Duration::from_secs(5));
    assert!(settings.dns.addresses.is_empty());
    assert_eq!(settings.workers, 2);
    assert!(settings.remarks.is_empty());
}

#[test]
fn a_pods_environment_is_taken_over() {
    let env = Environment::from([
        ("POD_NAME", "reviews-1"),
        ("POD_NAMESPACE", "shop"),
        ("SERVICE_ACCOUNT", "reviews"),
        ("INSTANCE_IP", "10.0.0.7"),
        ("INSTANCE_IPS", "10.0.0.7,fd00::7"),
        ("CA_ADDR", "istiod-canary.istio-system.svc:15012"),
        (
            "PROXY_CONFIG",
            "{\"concurrency\":0,\"terminationDrainDuration\":\"1m\",\"tracing\":{}}\n",
        ),
        ("ISTIO_META_WORKLOAD_NAME", "reviews"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("ISTIO_METAJSON_X", "{\"a\":1}"),
        ("ISTIO_CPU_LIMIT", "1"),
        ("SECRET_TTL", "24h0m0s"),
        ("XDS_HEADER_X_KEY", "v"),
    ]);
    let settings = settings(&env);
    assert_eq!(settings.workload.addresses.len(), 2);
    assert_eq!(settings.control_plane.authority, "istiod-canary.istio-system.svc:15012");
    assert_eq!(settings.control_plane.discovery_headers, [("x-key".to_owned(), "v".to_owned())]);
    assert_eq!(settings.drain.termination, Duration::from_secs(60));
    assert_eq!(settings.workers, 4, "concurrency 0 is every core");
    assert_eq!(settings.dns.addresses.len(), 2);
    assert_eq!(settings.remarks, ["PROXY_CONFIG.tracing has no effect"]);
    let metadata = &settings.workload.metadata;
    assert_eq!(metadata["WORKLOAD_NAME"], "reviews");
    assert_eq!(metadata["X"]["a"], 1);
    assert_eq!((&metadata["LATEEN"], &metadata["NAME"]), (&"1".into(), &"reviews-1".into()));
}

#[test]
fn the_cpu_limit_bounds_the_workers() {
    let limit = |text| settings(&Environment::from([("ISTIO_CPU_LIMIT", text)])).workers;
    assert_eq!((limit("1"), limit("3"), limit("64"), limit("0")), (1, 3, 4, 2));
}

#[test]
fn plaintext_is_only_used_when_asked_for() {
    let with =
        |config: &str| Settings::new(&args(&[]), &Environment::from([("PROXY_CONFIG", config)]), 1);
    let plain = "{\"discoveryAddress\":\"127.0.0.1:15010\",\"controlPlaneAuthPolicy\":\"NONE\"}";
    assert!(with(plain).unwrap().control_plane.plaintext);
    assert!(with("{\"discoveryAddress\":\"127.0.0.1:15010\"}").is_err());
    assert!(!with("{}").unwrap().control_plane.plaintext);
}

#[test]
fn what_would_weaken_security_is_refused_by_name() {
    let cases = [
        ("FILE_MOUNTED_CERTS", "true"),
        ("CA_PROVIDER", "GoogleCA"),
        ("COMPLIANCE_POLICY", "fips-140-2"),
        ("SECRET_TTL", "soon"),
        ("SECRET_GRACE_PERIOD_RATIO", "2"),
        ("ISTIO_META_DNS_CAPTURE", "perhaps"),
        ("INSTANCE_IP", "here"),
        ("PROXY_CONFIG", "[]"),
    ];
    for (name, value) in cases {
        let error = Settings::new(&args(&[]), &Environment::from([(name, value)]), 1).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn an_agent_without_data_path_is_asked_for_by_istios_names() {
    let env = Environment::from([
        ("DISABLE_ENVOY", "true"),
        ("OUTPUT_CERTS", "/var/lib/istio/data"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("ISTIO_META_GENERATOR", "grpc"),
    ]);
    let settings = settings(&env);
    let proxyless = settings.proxyless.unwrap();
    assert_eq!(proxyless.bootstrap.to_str(), Some("/etc/istio/proxy/grpc-bootstrap.json"));
    assert_eq!(proxyless.socket.to_str(), Some("/etc/istio/proxy/XDS"));
    let folder = settings.certificate_folder.unwrap();
    assert_eq!((folder.folder.to_str(), folder.shared), (Some("/var/lib/istio/data"), true));
    assert_eq!(settings.workload.metadata["GENERATOR"], "grpc");
    assert_eq!(settings.remarks, Vec::<String>::new());

    let elsewhere = [("DISABLE_ENVOY", "1"), ("GRPC_XDS_BOOTSTRAP", "/x/b.json")];
    let elsewhere = Settings::new(&args(&["sidecar"]), &Environment::from(elsewhere), 1)
        .unwrap()
        .proxyless
        .unwrap();
    assert_eq!(elsewhere.socket.to_str(), Some("/x/XDS"));
}

#[test]
fn a_gateway_has_a_data_path_and_a_bootstrap_a_place() {
    for (role, disabled, bootstrap, needle) in [
        ("router", "true", "", "DISABLE_ENVOY"),
        ("sidecar", "perhaps", "", "DISABLE_ENVOY"),
        ("sidecar", "true", "./b.json", "GRPC_XDS_BOOTSTRAP"),
        ("sidecar", "true", "/", "GRPC_XDS_BOOTSTRAP"),
    ] {
        let env =
            Environment::from([("DISABLE_ENVOY", disabled), ("GRPC_XDS_BOOTSTRAP", bootstrap)]);
        let error = Settings::new(&args(&[role]), &env, 1).unwrap_err();
        assert!(error.to_string().contains(needle), "{error}");
    }
}
