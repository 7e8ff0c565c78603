//! What rules ask for is what happens: each is applied to a running shop and looked at from the
//! application's side.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{Lab, SHOP, text};

/// Longest time a rule may take to hold.
const PATIENCE: Duration = Duration::from_secs(5);

/// A shop and the pod that asks.
struct Shop {
    lab: Lab,
    front: String,
}

impl Shop {
    fn up(name: &str, arguments: &[&str]) -> Self {
        let lab = Lab::up(name, &[&["-f", SHOP], arguments].concat());
        let front = lab.pod("front");
        Self { lab, front }
    }

    fn get(&self, arguments: &[&str]) -> Value {
        self.lab.get(&self.front, arguments)
    }

    fn apply(&self, manifests: &str) {
        let output = self.lab.apply_text(manifests);
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Asks until `holds`, since a rule takes a moment to reach every proxy.
    fn until(&self, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let summary = self.get(arguments);
            if holds(&summary) {
                return summary;
            }
            assert!(begun.elapsed() < PATIENCE, "{arguments:?}: {summary}");
        }
    }

    /// The route of the catalog, with further fields.
    fn route(&self, fields: &str) {
        self.apply(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: catalog, namespace: shop}}\n\
             spec:\n  hosts: [catalog]\n  http:\n    \
             - {{route: [{{destination: {{host: catalog, subset: v1}}}}], {fields}}}\n"
        ));
    }
}

const CATALOG: &str = "http://catalog/items";

/// What the application received.
fn received(summary: &Value) -> Value {
    serde_json::from_str(summary["last_body"].as_str().unwrap()).unwrap()
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn routes_do_what_they_say() {
    let shop = Shop::up("routes", &[]);

    shop.route("fault: {abort: {httpStatus: 418, percentage: {value: 100}}}");
    let aborted = shop.until(&[CATALOG], |it| it["last_status"] == 418);
    assert_eq!(aborted["last_body"], "fault filter abort");

    shop.route("fault: {delay: {fixedDelay: 0.4s, percentage: {value: 100}}}");
    let delayed = shop.until(&[CATALOG], |it| it["last_status"] == 200);
    assert!(delayed["p50_us"].as_u64().unwrap() >= 400_000, "{delayed}");

    shop.route("timeout: 0.3s");
    let slow = ["-H", "x-echo-delay-ms: 3000"];
    let late = shop.until(&[&[CATALOG], &slow[..]].concat(), |it| it["last_status"] == 504);
    assert_eq!(late["last_body"], "upstream request timeout");
    assert!(late["p50_us"].as_u64().unwrap() < 2_000_000, "{late}");

    shop.route("retries: {attempts: 2, retryOn: 5xx, perTryTimeout: 2s}");
    let failing = [CATALOG, "-H", "x-echo-status: 503"];
    let attempts = |summary: &Value| received(summary)["headers"]["x-envoy-attempt-count"].clone();
    shop.until(&failing, |it| it["last_status"] == 503 && attempts(it) == "3");

    shop.route(
        "headers: {request: {set: {x-set: one}, add: {x-add: two}, remove: [x-gone]}, \
         response: {set: {x-back: three}, remove: [x-envoy-upstream-service-time]}}",
    );
    let changed =
        shop.until(&[CATALOG, "-H", "x-gone: here"], |it| it["last_headers"]["x-back"] == "three");
    let headers = &received(&changed)["headers"];
    assert_eq!((&headers["x-set"], &headers["x-add"]), (&"one".into(), &"two".into()));
    assert_eq!(headers["x-gone"], Value::Null);
    assert_eq!(changed["last_headers"]["x-envoy-upstream-service-time"], Value::Null);

    shop.route("match: [{uri: {prefix: /old}}], rewrite: {uri: /new}");
    let rewritten = shop.until(&["http://catalog/old/x"], |it| it["last_status"] == 200);
    assert_eq!(received(&rewritten)["path"], "/new/x");
    let unmatched = shop.get(&[CATALOG]);
    assert_eq!(unmatched["last_status"], 404, "no route matches: {unmatched}");
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn balancing_and_modes_of_tls_do_what_they_say() {
    let shop = Shop::up("policy", &[]);
    shop.apply(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {name: catalog, namespace: shop}\n\
         spec: {hosts: [catalog], http: [{route: [{destination: {host: catalog}}]}]}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {name: catalog, namespace: shop}\n\
         spec: {host: catalog, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}\n",
    );
    let pods = |it: &Value| it["pods"].as_object().unwrap().len();
    shop.until(&[CATALOG, "-n", "20", "-H", "x-user: ada"], |it| pods(it) == 1);
    let users = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut reached: Vec<String> = users
        .iter()
        .flat_map(|user| {
            let summary = shop.get(&[CATALOG, "-H", &format!("x-user: {user}")]);
            summary["pods"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        })
        .collect();
    reached.sort();
    reached.dedup();
    assert_eq!(reached.len(), 2, "other users reach other pods");

    // Plaintext is taken where the policy says so, and callers then send it.
    let mode = |mode: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: default, namespace: shop}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        )
    };
    let stranger = shop.lab.pod("stranger");
    let pods = shop.lab.pods();
    let catalog = pods.iter().find(|it| it["name"].as_str().unwrap().starts_with("catalog"));
    let at = catalog.unwrap()["addresses"][0].as_str().unwrap().to_owned();
    let direct = format!("http://{at}:8080/items");
    let from_outside = || shop.lab.get_in("street", &stranger, &[&direct, "--timeout-ms", "2000"]);
    assert_eq!(from_outside()["failed"], 1, "STRICT");
    shop.apply(&mode("PERMISSIVE"));
    let begun = Instant::now();
    while from_outside()["last_status"] != 200 {
        assert!(begun.elapsed() < PATIENCE, "PERMISSIVE takes plaintext");
    }
    let client = |it: &Value| received(it)["headers"]["x-forwarded-client-cert"].clone();
    shop.until(&[CATALOG], |it| it["last_status"] == 200 && client(it).is_string());
    shop.apply(&mode("DISABLE"));
    shop.until(&[CATALOG], |it| it["last_status"] == 200 && client(it).is_null());
    shop.apply(&mode("STRICT"));
    shop.until(&[CATALOG], |it| it["last_status"] == 200 && client(it).is_string());
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn what_is_outside_is_reached_as_the_mesh_allows() {
    let config = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(
        config.path(),
        "outboundTrafficPolicy: {mode: REGISTRY_ONLY}\naccessLogFile: /dev/stdout\n\
         defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'true'}}\n",
    )
    .unwrap();
    let shop = Shop::up("outside", &["--mesh-config", &config.path().to_string_lossy()]);
    let pods = shop.lab.pods();
    let stranger = pods.iter().find(|it| it["namespace"] == "street").unwrap();
    let at = stranger["addresses"][0].as_str().unwrap();
    let direct = format!("http://{at}:8080/");
    let refused = shop.get(&[&direct, "--timeout-ms", "2000"]);
    let reason = refused["failures"][0].as_str().unwrap_or_default();
    assert_eq!(refused["failed"], 1, "REGISTRY_ONLY: {refused}");
    assert!(reason.contains("reset") || reason.contains("closed"), "cut, not timed out: {reason}");
    shop.apply(&format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: outside, namespace: shop}}\n\
         spec:\n  hosts: [outside.example.com]\n  addresses: [192.0.2.10]\n  \
         location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 8080, name: http, protocol: HTTP}}]\n  endpoints: [{{address: {at}}}]\n"
    ));
    let by_name = shop.until(&["http://outside.example.com:8080/"], |it| it["last_status"] == 200);
    let headers = &received(&by_name)["headers"];
    assert_eq!(headers["x-forwarded-client-cert"], Value::Null, "plaintext to what is outside");

    // IPv6: the service's other address leads to the same place.
    let registry = shop.lab.registry();
    let catalog = registry.iter().find(|it| it["host"] == "catalog.shop.svc.cluster.local");
    let addresses = catalog.unwrap()["addresses"].as_array().unwrap();
    let six = addresses.iter().filter_map(Value::as_str).find(|it| it.contains(':')).unwrap();
    let over_six = shop.get(&[&format!("http://[{six}]/items"), "-n", "5"]);
    assert_eq!(over_six["status"]["200"], 5, "{over_six}");
}
