//! In which order containers start and end.
//!
//! Pure.

use lateen_api::core::{Container, PodSpec};

/// One step of a start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step<'a> {
    /// Run it to its end.
    Init(&'a Container),
    /// Start it and wait until it has started, by its startup probe where it has one.
    Sidecar(&'a Container),
    /// Start it; wait for its hook.
    App(&'a Container),
}

impl<'a> Step<'a> {
    /// The container.
    pub(super) fn container(self) -> &'a Container {
        match self {
            Self::Init(container) | Self::Sidecar(container) | Self::App(container) => container,
        }
    }
}

/// Steps of a start, one after the other.
pub(super) fn starts(spec: &PodSpec) -> Vec<Step<'_>> {
    let init = spec.init_containers.iter().map(|container| {
        if container.is_sidecar() { Step::Sidecar(container) } else { Step::Init(container) }
    });
    init.chain(spec.containers.iter().map(Step::App)).collect()
}

/// Groups of an end: those of a group at once, one group after the other. Sidecars go last, in the
/// reverse order of their start, so that what others use is there until they have ended.
pub(super) fn ends(spec: &PodSpec) -> Vec<Vec<&str>> {
    let plain = spec.init_containers.iter().filter(|container| !container.is_sidecar());
    let first = plain.chain(&spec.containers).map(|container| container.name.as_str()).collect();
    let sidecars = spec.init_containers.iter().rev().filter(|container| container.is_sidecar());
    let sidecars = sidecars.map(|container| vec![container.name.as_str()]);
    std::iter::once(first).chain(sidecars).collect()
}

#[cfg(test)]
mod tests {
    use super::{Step, ends, starts};
    use lateen_api::core::PodSpec;
    use proptest::prelude::*;
    use serde_json::json;

    fn spec(sidecars: &[bool], apps: usize) -> PodSpec {
        let init: Vec<_> = sidecars
            .iter()
            .enumerate()
            .map(|(index, sidecar)| {
                let policy = sidecar.then_some("Always");
                json!({"name": format!("i{index}"), "restartPolicy": policy})
            })
            .collect();
        let apps: Vec<_> = (0..apps).map(|index| json!({"name": format!("a{index}")})).collect();
        serde_json::from_value(json!({"initContainers": init, "containers": apps})).unwrap()
    }

    #[test]
    fn sidecars_start_in_order_and_end_last_in_reverse() {
        let spec = spec(&[false, true, false, true], 2);
        let names: Vec<_> =
            starts(&spec).into_iter().map(|step| step.container().name.clone()).collect();
        assert_eq!(names, ["i0", "i1", "i2", "i3", "a0", "a1"]);
        assert!(matches!(starts(&spec)[1], Step::Sidecar(_)));
        assert_eq!(ends(&spec), [vec!["i0", "i2", "a0", "a1"], vec!["i3"], vec!["i1"]]);
    }

    proptest! {
        #[test]
        fn whatever_starts_ends_once(
            sidecars in proptest::collection::vec(any::<bool>(), 0..6),
            apps in 0usize..5,
        ) {
            let spec = spec(&sidecars, apps);
            let mut started: Vec<_> =
                starts(&spec).into_iter().map(|step| step.container().name.clone()).collect();
            let mut ended: Vec<_> = ends(&spec).concat().iter().map(ToString::to_string).collect();
            started.sort();
            ended.sort();
            prop_assert_eq!(started, ended);
        }
    }
}
