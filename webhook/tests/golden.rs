//! Whole pods, in and out, as files: `tests/golden/CASE/{in.yaml,settings.yaml,out.json}`.
//!
//! `BLESS=1 cargo test -p lateen-webhook --test golden` writes the outputs anew; read the
//! difference before keeping it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at what it does not expect")]

use std::fs;
use std::path::{Path, PathBuf};

use lateen_webhook::settings::{Options, Sources};
use lateen_webhook::{AdmissionContext, InjectionSettings, inject};
use serde_json::{Value, json};

fn yaml(path: &Path) -> Value {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<PathBuf> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn run(case: &Path) -> Value {
    let pod = yaml(&case.join("in.yaml"));
    let given = yaml(&case.join("settings.yaml"));
    let options = Options {
        native_sidecars: given["nativeSidecars"] != false,
        openshift: given["openshift"] == true,
        ..Options::default()
    };
    let part = |name: &str| given.get(name).filter(|value| !value.is_null());
    let sources = Sources { values: part("values"), config: part("config"), mesh: part("mesh") };
    let settings = InjectionSettings::read(sources, options).unwrap();
    let context = AdmissionContext {
        namespace: given["namespace"].as_str().unwrap_or("shop").to_owned(),
        ..AdmissionContext::default()
    };
    match inject(&pod, &settings, &context) {
        Err(error) => json!({"reason": error.reason().code(), "denied": error.to_string()}),
        Ok(injection) => {
            let mut patched = pod.clone();
            let patch: json_patch::Patch =
                serde_json::from_value(serde_json::to_value(injection.patch(&pod)).unwrap())
                    .unwrap();
            json_patch::patch(&mut patched, &patch).unwrap();
            assert_eq!(
                patched,
                injection.pod,
                "{}: the patch does not give the pod",
                case.display()
            );
            json!({
                "reason": injection.reason.code(),
                "warnings": injection.warnings,
                "pod": injection.pod,
            })
        }
    }
}

#[test]
fn outputs_are_as_blessed() {
    let bless = std::env::var_os("BLESS").is_some_and(|value| value == "1");
    let cases = cases();
    assert!(cases.len() >= 10, "cases are missing: {cases:?}");
    for case in cases {
        let got = run(&case);
        let file = case.join("out.json");
        if bless {
            fs::write(&file, format!("{got:#}\n")).unwrap();
            continue;
        }
        let expected: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(format!("{got:#}"), format!("{expected:#}"), "{}", case.display());
    }
}
