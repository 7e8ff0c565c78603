//! Updates keep what an uninstall takes away.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use lateen_testkit::netns::inside;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{DAEMONSET, LIST, Node, within};
use crate::stage::{CART, verb};

#[test]
fn an_update_keeps_what_an_uninstall_takes_away() {
    if !inside("leaving::an_update_keeps_what_an_uninstall_takes_away") {
        return;
    }
    let mut node = Node::new();
    let program = node.path("bin/lateen-cni");
    node.start(&[]);
    node.ready();
    assert!(node.list().contains("lateen-cni") && program.exists());
    node.stop();
    assert!(node.list().contains("lateen-cni") && program.exists());

    // The API server is away: that is no uninstall.
    node.start(&[]);
    node.ready();
    node.api.down();
    node.stop();
    assert!(node.list().contains("lateen-cni") && program.exists());

    // With the DaemonSet goes the permission to ask for it.
    node.api.up();
    node.start(&[]);
    node.ready();
    within("the DaemonSet is watched", || node.api.is_watched("daemonsets"));
    node.api.deny("get", "daemonsets");
    node.api.delete(DAEMONSET);
    node.stop();
    assert_eq!(node.list(), LIST);
    assert!(!program.exists());
    assert!(!Path::new(&node.path("run/pluginevent.sock")).exists());
}

#[test]
fn news_of_the_daemonset_while_it_is_asked_for_do_no_harm() {
    if !inside("leaving::news_of_the_daemonset_while_it_is_asked_for_do_no_harm") {
        return;
    }
    let mut node = Node::new();
    node.start(&[]);
    node.ready();
    within("the DaemonSet is watched", || node.api.is_watched("daemonsets"));
    node.api.hold("daemonsets");
    let mut agent = node.agent.take().unwrap();
    kill(Pid::from_raw(i32::try_from(agent.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    within("the agent asks for its DaemonSet", || node.api.is_waited_for());
    node.api.delete(DAEMONSET);
    // No answer comes within its patience: what the watch told decides.
    let deadline = Instant::now() + Duration::from_secs(20);
    while agent.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the agent does not end");
        thread::yield_now();
    }
    assert_eq!(node.list(), LIST);
}

#[test]
fn a_configuration_that_cannot_be_restored_keeps_its_program() {
    if !inside("leaving::a_configuration_that_cannot_be_restored_keeps_its_program") {
        return;
    }
    let mut node = Node::new();
    let folder = node.path("net.d");
    let mount = |options: &[&str]| {
        let done = Command::new("mount").args(options).arg(&folder).status().unwrap();
        assert!(done.success(), "{options:?}");
    };
    mount(&["-t", "tmpfs", "none"]);
    fs::write(folder.join("10-b.conflist"), LIST).unwrap();
    node.start(&[]);
    node.ready();
    mount(&["-o", "remount,ro"]);
    node.api.delete(DAEMONSET);
    node.stop();
    assert!(node.list().contains("lateen-cni"));
    assert!(node.path("bin/lateen-cni").exists());
    let done = Command::new("umount").arg(&folder).status().unwrap();
    assert!(done.success());
}

#[test]
fn an_uninstall_leaves_the_plugin_where_pods_that_end_still_need_it() {
    if !inside("leaving::an_uninstall_leaves_the_plugin_where_pods_that_end_still_need_it") {
        return;
    }
    let mut node = Node::new();
    node.start(&["--keep-plugin", "true"]);
    node.ready();
    node.api.delete(DAEMONSET);
    node.stop();
    assert_eq!(node.list(), LIST);
    let delete = verb("DEL", "", CART, &node.conf());
    assert!(node.path("bin/lateen-cni").exists() && delete.status.success());
}
