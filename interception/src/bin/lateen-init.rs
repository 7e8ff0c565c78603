//! `lateen-init`: sets, verifies or removes the redirect rules of a pod.
//!
//! Takes the flags of `istio-iptables`. Exit status: 0 done, 1 error, 126 no rules (`--verify`) or
//! rules that do not work (`--run-validation`).

use std::process::ExitCode;

use clap::Parser;
use lateen_interception::render::difference;
use lateen_interception::settings::flags::{Flags, Run, Task, surroundings};
use lateen_interception::{RedirectPlan, State, backend, netns, validate};

/// Repair and the kubelet know an unredirected pod by this status.
const NOT_REDIRECTED: u8 = 126;

fn main() -> ExitCode {
    let run = match Flags::parse().resolve(&surroundings()) {
        Ok(run) => run,
        Err(e) => return fail(&e),
    };
    for warning in &run.warnings {
        eprintln!("lateen-init: warning: {warning}");
    }
    let result = match &run.namespace {
        Some(path) => netns::run_in(path, || execute(&run)),
        None => Ok(execute(&run)),
    };
    result.unwrap_or_else(|e| fail(&e))
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("lateen-init: {error}");
    ExitCode::FAILURE
}

fn execute(run: &Run) -> ExitCode {
    let plan = RedirectPlan::new(&run.settings);
    let done = match run.task {
        Task::Nothing => Ok(()),
        Task::Apply => backend::apply(&plan, run.backend, run.iptables).map(|choice| {
            eprintln!("lateen-init: rules set by {}: {}", choice.carrier, choice.reason);
        }),
        Task::Cleanup => backend::cleanup(),
        Task::DryRun => {
            let text = backend::describe(&plan, run.backend);
            let other = run.compared.as_ref().map(RedirectPlan::new);
            match other.map(|other| backend::describe(&other, run.backend)) {
                Some(other) => print!("{}", difference::between(&other, &text)),
                None => print!("{text}"),
            }
            return ExitCode::SUCCESS;
        }
        Task::Verify => return compare(run, &plan),
    };
    if let Err(e) = done {
        return fail(&e);
    }
    if let Some((port, timeout)) = run.validation.filter(|_| run.task != Task::Cleanup)
        && let Err(e) = validate::validate(&run.settings, port, timeout)
    {
        eprintln!("lateen-init: {e}");
        return ExitCode::from(NOT_REDIRECTED);
    }
    ExitCode::SUCCESS
}

fn compare(run: &Run, plan: &RedirectPlan) -> ExitCode {
    match backend::verify(plan, run.backend, run.iptables) {
        Ok(State::Planned) => ExitCode::SUCCESS,
        Ok(State::Absent) => {
            eprintln!("lateen-init: there are no rules of Lateen");
            ExitCode::from(NOT_REDIRECTED)
        }
        Ok(State::Differs(difference)) => {
            eprintln!("lateen-init: {difference}");
            ExitCode::FAILURE
        }
        Err(e) => fail(&e),
    }
}
