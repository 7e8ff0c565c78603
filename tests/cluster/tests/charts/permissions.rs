//! `docs/permissions.md` and the charts say the same.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::helm::{CHARTS, release, render};

/// One permission: chart, scope, API group, resource, name, verb.
type Permission = [String; 6];

struct Row {
    with: String,
    permissions: Vec<Permission>,
}

fn rows() -> Vec<Row> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/permissions.md");
    let text = std::fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines.map(row).collect()
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [chart, scope, group, resources, names, verbs, with, why] = cells[..] else {
        panic!("not eight cells: {line}");
    };
    assert!(why.len() > 5, "no reason: {line}");
    let mut permissions = Vec::new();
    for resource in resources.split(", ") {
        for name in names.split(", ") {
            for verb in verbs.split(", ") {
                permissions.push([chart, scope, group, resource, name, verb].map(str::to_owned));
            }
        }
    }
    Row { with: with.to_owned(), permissions }
}

fn rendered(chart: &str, objects: &[Value]) -> BTreeSet<Permission> {
    let mut found = BTreeSet::new();
    let words = |value: &Value| -> Vec<String> {
        let all = value.as_array().into_iter().flatten();
        all.map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    for object in objects {
        let scope = match object["kind"].as_str().unwrap() {
            "ClusterRole" => "cluster",
            "Role" => "namespace",
            _ => continue,
        };
        for rule in object["rules"].as_array().unwrap() {
            assert!(rule.get("nonResourceURLs").is_none(), "not in the table's form: {rule}");
            let mut names = words(&rule["resourceNames"]);
            if names.is_empty() {
                names.push("any".to_owned());
            }
            for group in words(&rule["apiGroups"]) {
                let group = if group.is_empty() { "core".to_owned() } else { group };
                for resource in words(&rule["resources"]) {
                    for name in &names {
                        for verb in words(&rule["verbs"]) {
                            let (chart, scope) = (chart.to_owned(), scope.to_owned());
                            let (group, name) = (group.clone(), name.clone());
                            found.insert([chart, scope, group, resource.clone(), name, verb]);
                        }
                    }
                }
            }
        }
    }
    found
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn each_permission_has_a_reason_and_each_reason_a_permission() {
    let rows = rows();
    let cases: BTreeSet<&str> = rows.iter().map(|row| row.with.as_str()).collect();
    for case in cases {
        for chart in CHARTS {
            let concerned = |row: &Row| row.with == case && row.permissions[0][0] == chart;
            if !case.is_empty() && !rows.iter().any(concerned) {
                continue;
            }
            let words = if case.is_empty() { vec![] } else { vec!["--set", case] };
            let objects = render(chart, release(chart), &words).await.unwrap();
            let granted = rendered(chart, &objects);
            let mine = |row: &&Row| row.with.is_empty() || row.with == case;
            let listed = rows.iter().filter(mine).flat_map(|row| row.permissions.clone());
            let listed: BTreeSet<_> = listed.filter(|it| it[0] == chart).collect();
            let unlisted: Vec<_> = granted.difference(&listed).collect();
            assert!(unlisted.is_empty(), "granted without a reason: {unlisted:#?}");
            let missing: Vec<_> = listed.difference(&granted).collect();
            assert!(missing.is_empty(), "a reason for what is not granted: {missing:#?}");
        }
    }
}

#[test]
fn nothing_is_granted_by_wildcard() {
    for row in rows() {
        let wide = row.permissions.iter().find(|it| it.iter().any(|word| word.contains('*')));
        assert_eq!(wide, None);
    }
}
