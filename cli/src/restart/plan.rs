//! What a rollout takes down, whether disruption budgets allow it, and how far it is.
//!
//! Pure, over objects as the API server has them.

use lateen_webhook::selectors::{Labels, matches};
use serde_json::Value;

/// What disruption budgets say to a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Budget {
    /// It may begin.
    Free,
    /// Not now: the budget, and how many it must allow.
    Wait(String, u64),
    /// It would break the budget whenever it began.
    Never(String),
}

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    Going(String),
    Failed(String),
}

/// How many pods a restart of a workload takes away at once.
///
/// # Errors
/// Why a restart would not replace its pods.
pub(crate) fn down_at_once(object: &Value) -> Result<u64, String> {
    let spec = &object["spec"];
    let replicas = spec["replicas"].as_u64().unwrap_or(1);
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => {
            if spec["paused"] == true {
                return Err("it is paused; go on with: kubectl rollout resume".to_owned());
            }
            if spec["strategy"]["type"] == "Recreate" {
                return Ok(replicas);
            }
            let rolling = &spec["strategy"]["rollingUpdate"];
            let down = share(&rolling["maxUnavailable"], replicas, (25, Round::Down));
            let more = share(&rolling["maxSurge"], replicas, (25, Round::Up));
            // The API server takes neither for at least one.
            Ok(if more == 0 { down.max(1) } else { down })
        }
        kind => {
            let strategy = &spec["updateStrategy"];
            if strategy["type"] == "OnDelete" {
                return Err("its pods are replaced only when they are deleted (updateStrategy \
                            OnDelete): kubectl delete pod"
                    .to_owned());
            }
            let rolling = &strategy["rollingUpdate"];
            if rolling["partition"].as_u64().is_some_and(|partition| partition > 0) {
                return Err("only pods from its partition on would be replaced \
                            (rollingUpdate.partition)"
                    .to_owned());
            }
            let all = if kind == "DaemonSet" {
                object["status"]["desiredNumberScheduled"].as_u64().unwrap_or(1)
            } else {
                replicas
            };
            if kind == "DaemonSet" && share(&rolling["maxSurge"], all, (0, Round::Up)) > 0 {
                return Ok(0);
            }
            let down = &rolling["maxUnavailable"];
            Ok(if down.is_null() { 1 } else { share(down, all, (0, Round::Up)).max(1) })
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Up,
    Down,
}

/// A number, or a percentage of all; absent: a percentage by default.
fn share(value: &Value, all: u64, (default, round): (u64, Round)) -> u64 {
    let percent = match value {
        Value::Number(number) => return number.as_u64().unwrap_or_default(),
        Value::String(text) => text.trim_end_matches('%').parse().unwrap_or_default(),
        _ => default,
    };
    match round {
        Round::Up => (all * percent).div_ceil(100),
        Round::Down => all * percent / 100,
    }
}

/// Whether budgets allow that `down` pods with these labels go at once.
pub(crate) fn budget(down: u64, budgets: &[Value], labels: &Labels) -> Budget {
    let mut verdict = Budget::Free;
    if down == 0 {
        return verdict;
    }
    for budget in budgets.iter().filter(|budget| covers(budget, labels)) {
        let name = budget["metadata"]["name"].as_str().unwrap_or_default();
        let status = &budget["status"];
        let number = |field: &str| status[field].as_u64().unwrap_or_default();
        let most = number("expectedPods").saturating_sub(number("desiredHealthy"));
        if down > most {
            return Budget::Never(format!(
                "{down} at once would go, but PodDisruptionBudget {name} never allows more than \
                 {most}: lower maxUnavailable of the workload, or raise the budget"
            ));
        }
        if down > number("disruptionsAllowed") && verdict == Budget::Free {
            verdict = Budget::Wait(name.to_owned(), down);
        }
    }
    verdict
}

/// Whether a budget is about pods with these labels; one without selector is about none.
fn covers(budget: &Value, labels: &Labels) -> bool {
    let selector = &budget["spec"]["selector"];
    !selector.is_null() && matches(selector, labels).unwrap_or(true)
}

/// How far the rollout of a workload is.
pub(crate) fn progress(object: &Value) -> Progress {
    let status = &object["status"];
    let number = |field: &str| status[field].as_u64().unwrap_or_default();
    if number("observedGeneration") < object["metadata"]["generation"].as_u64().unwrap_or_default()
    {
        return Progress::Going("its controller has not begun".to_owned());
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    for condition in conditions.filter(|it| it["type"] == "Progressing") {
        if condition["reason"] == "ProgressDeadlineExceeded" {
            let why = condition["message"].as_str().unwrap_or_default();
            return Progress::Failed(format!("it does not go on: {why}"));
        }
    }
    let (wanted, updated, ready, left) = match object["kind"].as_str().unwrap_or_default() {
        "DaemonSet" => (
            number("desiredNumberScheduled"),
            number("updatedNumberScheduled"),
            number("numberAvailable"),
            0,
        ),
        kind => {
            let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
            let updated = number("updatedReplicas");
            let (ready, left) = if kind == "Deployment" {
                (number("availableReplicas"), number("replicas").saturating_sub(updated))
            } else {
                (number("readyReplicas"), 0)
            };
            (wanted, updated, ready, left)
        }
    };
    if updated < wanted {
        Progress::Going(format!("{updated} of {wanted} pods are new"))
    } else if left > 0 {
        Progress::Going(format!("{left} old pods end"))
    } else if ready < wanted {
        Progress::Going(format!("{ready} of {wanted} pods are ready"))
    } else {
        Progress::Done
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, Progress, budget, down_at_once, progress};
    use lateen_webhook::selectors::Labels;
    use serde_json::{Value, json};

    #[test]
    fn what_goes_at_once_is_what_the_strategy_says() {
        let deployment = |replicas: u64, strategy: Value| json!({"kind": "Deployment", "spec": {"replicas": replicas, "strategy": strategy}});
        let rolling = |down: Value, more: Value| json!({"rollingUpdate": {"maxUnavailable": down, "maxSurge": more}});
        let set =
            |strategy: Value| json!({"kind": "StatefulSet", "spec": {"updateStrategy": strategy}});
        for (object, down) in [
            (deployment(1, json!({})), 0),
            (deployment(10, json!({})), 2),
            (deployment(10, rolling(json!("50%"), json!(1))), 5),
            (deployment(10, rolling(json!(0), json!(0))), 1),
            (deployment(3, json!({"type": "Recreate"})), 3),
            (set(json!({})), 1),
            (
                json!({"kind": "DaemonSet", "spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "30%"}}}, "status": {"desiredNumberScheduled": 5}}),
                2,
            ),
            (
                json!({"kind": "DaemonSet", "spec": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}),
                0,
            ),
        ] {
            assert_eq!(down_at_once(&object), Ok(down), "{object}");
        }
        for (object, needle) in [
            (set(json!({"type": "OnDelete"})), "kubectl delete pod"),
            (set(json!({"rollingUpdate": {"partition": 2}})), "partition"),
            (json!({"kind": "Deployment", "spec": {"paused": true}}), "rollout resume"),
        ] {
            assert!(down_at_once(&object).unwrap_err().contains(needle), "{object}");
        }
    }

    #[test]
    fn budgets_are_waited_for_or_never_broken() {
        let of = |selector: Value, allowed: u64| {
            json!({"metadata": {"name": "b"}, "spec": {"selector": selector},
                "status": {"disruptionsAllowed": allowed, "expectedPods": 3, "desiredHealthy": 2}})
        };
        let labels: Labels = [("app".to_owned(), "a".to_owned())].into();
        let mine = || json!({"matchLabels": {"app": "a"}});
        for (down, selector, allowed, expected) in [
            (0, mine(), 0, "free"),
            (1, mine(), 1, "free"),
            (1, mine(), 0, "wait"),
            (2, mine(), 1, "never"),
            (2, json!({"matchLabels": {"app": "b"}}), 0, "free"),
            (2, Value::Null, 0, "free"),
            (2, json!({}), 0, "never"),
        ] {
            let got = match budget(down, &[of(selector.clone(), allowed)], &labels) {
                Budget::Free => "free",
                Budget::Wait(..) => "wait",
                Budget::Never(_) => "never",
            };
            assert_eq!(got, expected, "{down} {selector} {allowed}");
        }
    }

    #[test]
    fn a_rollout_is_done_when_every_pod_is_new_and_ready() {
        let at = |status: Value| json!({"kind": "Deployment", "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status});
        let going = |status: Value| match progress(&at(status)) {
            Progress::Going(text) => text,
            other => panic!("{other:?}"),
        };
        assert!(going(json!({"observedGeneration": 1})).contains("not begun"));
        let status = |updated: u64, replicas: u64, available: u64| json!({"observedGeneration": 2, "updatedReplicas": updated, "replicas": replicas, "availableReplicas": available});
        assert_eq!(going(status(1, 2, 2)), "1 of 2 pods are new");
        assert_eq!(going(status(2, 3, 2)), "1 old pods end");
        assert_eq!(going(status(2, 2, 1)), "1 of 2 pods are ready");
        assert_eq!(progress(&at(status(2, 2, 2))), Progress::Done);
        let late = json!({"observedGeneration": 2, "conditions": [{"type": "Progressing",
            "reason": "ProgressDeadlineExceeded", "message": "timed out"}]});
        assert!(matches!(progress(&at(late)), Progress::Failed(why) if why.contains("timed out")));
    }
}
