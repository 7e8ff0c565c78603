//! Wrong input is named by file, object and field, and what worked goes on.

use crate::lab::{Lab, SHOP, text};

const BROKEN: [(&str, &str); 5] = [
    ("kind: Service\n  bad indent: [", "YAML"),
    (
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {name: odd, namespace: shop}\nspec: {mtls: {mode: SOMETIMES}}\n",
        "spec.mtls.mode",
    ),
    (
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {name: odd, namespace: shop}\nspec: {hosts: [a], htpp: []}\n",
        "htpp",
    ),
    (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: twin, namespace: shop}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: twin, namespace: shop}\n",
        "twin",
    ),
    (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: greedy, namespace: shop}\n\
         spec:\n  containers: [{name: a, image: b}]\n  volumes: [{name: v, nfs: {server: x, path: /}}]\n",
        "spec.volumes[0]",
    ),
];

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn wrong_input_is_named_and_what_worked_goes_on() {
    let lab = Lab::up("wrong", &["-f", SHOP]);
    let front = lab.pod("front");
    let ask = ["http://catalog/items", "-n", "5"];
    assert_eq!(lab.get(&front, &ask)["status"]["200"], 5);
    for (manifests, named) in BROKEN {
        let output = lab.apply_text(manifests);
        assert!(!output.status.success(), "accepted: {manifests}");
        assert!(text(&output).contains(named), "{named} is not named in: {}", text(&output));
        assert_eq!(lab.get(&front, &ask)["status"]["200"], 5, "after {manifests}");
    }
    let alone = "apiVersion: v1\nkind: Service\nmetadata: {name: empty, namespace: shop}\n\
                 spec: {selector: {app: nobody}, ports: [{name: http, port: 80}]}\n";
    assert!(lab.apply_text(alone).status.success());
    let answered = (0..50).any(|_| {
        let summary = lab.get(&front, &["http://empty/"]);
        summary["last_status"] == 503 && summary["last_body"] == "no healthy upstream"
    });
    assert!(answered, "a service without endpoints is not answered with 503");
}
