//! What carries the rules: the choice between nftables and iptables, and rules of iptables as they are
//! read back, put back and removed. Each test in a network namespace of its own.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use clap::Parser;
use lateen_interception::settings::flags::{Flags, Surroundings};
use lateen_interception::settings::{Backend, IptablesKind, Mode, PortSelection, RangeSelection};
use lateen_interception::{RedirectPlan, Settings, State, apply, backend, verify};
use lateen_testkit::netns::inside;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const INIT: &str = env!("CARGO_BIN_EXE_lateen-init");
/// Runs a program as on a kernel whose netfilter speaks no netlink: the system call that opens
/// such a socket answers with `EPROTONOSUPPORT`.
const WITHOUT_NFTABLES: &str = r#"
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 41, "aarch64": 198}[platform.machine()]
step = lambda code, k, yes=0, no=0: struct.pack("HBBI", code, yes, no, k)
code = b"".join([
    step(0x20, 0), step(0x15, number, 0, 5),
    step(0x20, 16), step(0x15, 16, 0, 3),
    step(0x20, 32), step(0x15, 12, 0, 1),
    step(0x06, 0x00050000 | 93), step(0x06, 0x7fff0000)])
memory = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(memory))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(program)) == 0, ctypes.get_errno()
os.execvp(sys.argv[1], sys.argv[1:])
"#;

fn output(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    // The lock of the legacy programs cannot be made by an ordinary user.
    command.env("XTABLES_LOCKFILE", "/dev/null");
    command.args(args).output().unwrap_or_else(|e| {
        panic!("{program}: {e}; install iptables, nftables, iproute2 and python3")
    })
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let done = output(words[0], &words[1..]);
    assert!(done.status.success(), "{line}: {}", text(&done));
    text(&done)
}

fn everything() -> Settings {
    Settings {
        inbound_ports: PortSelection::All,
        outbound_ranges: RangeSelection::All,
        ..Settings::default()
    }
}

/// The kinds that can be used: the legacy tables are absent from some kernels, and cannot be listed in
/// a namespace that is older than its user ids, as that of an ordinary user here.
fn kinds() -> Vec<IptablesKind> {
    let works = |program, args: &[&str]| output(program, args).status.success();
    let legacy =
        works("iptables-legacy", &["-t", "nat", "-S"]) && works("iptables-legacy-save", &[]);
    if !legacy {
        println!("NOT RUN: legacy iptables does not work here");
    }
    let kinds = [IptablesKind::Nft, IptablesKind::Legacy];
    kinds.into_iter().filter(|kind| legacy || *kind == IptablesKind::Nft).collect()
}

fn set(plan: &RedirectPlan, kind: IptablesKind) {
    backend::apply(plan, Backend::Iptables, Some(kind)).unwrap();
}

fn state(plan: &RedirectPlan, kind: IptablesKind) -> State {
    backend::verify(plan, Backend::Iptables, Some(kind)).unwrap()
}

/// What is in the tables, without comments and counters.
fn tables(kind: IptablesKind) -> String {
    let save = |six: &str| run(&format!("ip{six}tables-{kind}-save"));
    let all = save("") + &save("6");
    let lines = all.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{}\n", line.split(" [").next().unwrap())).collect()
}

#[test]
fn a_changed_rule_is_named() {
    if !inside("a_changed_rule_is_named") {
        return;
    }
    run("ip link set lo up");
    let plan = RedirectPlan::new(&Settings { mode: Mode::Tproxy, ..everything() });
    for kind in kinds() {
        for (change, word) in [
            ("-t nat -I LATEEN_OUTPUT -j ACCEPT", "nat: chain LATEEN_OUTPUT, rule 1"),
            ("-t nat -A LATEEN_OUTPUT -j ACCEPT", "is not planned"),
            ("-t nat -D LATEEN_OUTPUT 2", "rule 2"),
            ("-t nat -F LATEEN_OUTPUT", "missing"),
            ("-t mangle -F LATEEN_MARK_1337", "LATEEN_MARK_1337, rule 1"),
            ("-t nat -N LATEEN_MORE", "chains"),
            ("-t nat -I OUTPUT -j ACCEPT", "somebody else"),
            ("-t nat -D OUTPUT 1", "jump from OUTPUT is missing"),
            ("-t nat -A OUTPUT -j LATEEN_OUTPUT", "other settings"),
            ("-t mangle -R LATEEN_MARK_1337 1 -j MARK --set-mark 7", "something else"),
        ] {
            for six in ["", "6"] {
                set(&plan, kind);
                assert_eq!(state(&plan, kind), State::Planned);
                run(&format!("ip{six}tables-{kind} {change}"));
                match state(&plan, kind) {
                    State::Differs(text) => assert!(text.contains(word), "{change}: {text}"),
                    other => panic!("{change}: {other:?}"),
                }
                set(&plan, kind);
                // What others put into the built-in chains stays theirs.
                output(
                    &format!("ip{six}tables-{kind}"),
                    &["-t", "nat", "-D", "OUTPUT", "-j", "ACCEPT"],
                );
            }
        }
        set(&plan, kind);
        run("ip -6 addr del ::6/128 dev lo");
        assert!(matches!(state(&plan, kind), State::Differs(text) if text.contains("::6")));
        backend::cleanup().unwrap();
    }
}

#[test]
fn rules_of_others_stay_as_they_are() {
    if !inside("rules_of_others_stay_as_they_are") {
        return;
    }
    run("ip link set lo up");
    let plan = RedirectPlan::new(&Settings { mode: Mode::Tproxy, ..everything() });
    for kind in kinds() {
        for six in ["", "6"] {
            let program = format!("ip{six}tables-{kind}");
            for table in ["raw", "mangle", "nat", "filter"] {
                run(&format!("{program} -t {table} -N OTHERS"));
                run(&format!("{program} -t {table} -A OTHERS -p tcp --dport 7 -j RETURN"));
                run(&format!("{program} -t {table} -A OUTPUT -j OTHERS"));
            }
        }
        let before = tables(kind);
        set(&plan, kind);
        assert_ne!(tables(kind), before);
        set(&RedirectPlan::new(&everything()), kind);
        backend::cleanup().unwrap();
        backend::cleanup().unwrap();
        assert_eq!(tables(kind), before);
    }
}

#[test]
fn a_carrier_replaces_the_other() {
    if !inside("a_carrier_replaces_the_other") {
        return;
    }
    run("ip link set lo up");
    let plan = RedirectPlan::new(&everything());
    assert!(backend::describe(&plan, Backend::Auto).starts_with("table inet lateen"));
    assert_eq!(verify(&plan).unwrap(), State::Absent, "the probe changes nothing");
    for kind in kinds() {
        apply(&plan).unwrap();
        assert!(backend::describe(&plan, Backend::Auto).starts_with("table inet lateen"));
        assert_eq!(verify(&plan).unwrap(), State::Planned, "the probe changes nothing");
        set(&plan, kind);
        assert_eq!(verify(&plan).unwrap(), State::Absent);
        assert_eq!(state(&plan, kind), State::Planned);
        let asked = backend::verify(&plan, Backend::Nft, None).unwrap();
        assert!(matches!(asked, State::Differs(text) if text.contains("iptables")));
        // The node agent sets its own and knows of no other; verify does.
        apply(&plan).unwrap();
        let both = backend::verify(&plan, Backend::Auto, None).unwrap();
        assert!(matches!(both, State::Differs(text) if text.contains("nftables and of iptables")));
        let choice = backend::apply(&plan, Backend::Auto, None).unwrap();
        assert_eq!(choice.carrier, backend::Carrier::Nft);
        assert!(!tables(kind).contains("LATEEN"));
        assert_eq!(backend::verify(&plan, Backend::Auto, None).unwrap(), State::Planned);
    }
}

#[test]
fn a_dry_run_tells_what_a_run_changes() {
    if !inside("a_dry_run_tells_what_a_run_changes") {
        return;
    }
    run("ip link set lo up");
    let all = ["-b", "*", "-i", "*"];
    // Without lists: nftables has those in sets, whose elements are in no rule.
    let (old, new) = ("-o 9 -x 10.0.0.0/8", ["-o", "11", "--drop-invalid", "-q", "80"]);
    let compared = [&all.join(" "), old].join(" ");
    // Each changed rule as sign and comment; rules of two families count once.
    let changed = |before: &str, after: &str, comment: fn(&str) -> Option<&str>| {
        let side = |text: &str, other: &str, sign: char| -> Vec<(char, String)> {
            let lines = text.lines().filter(|line| !other.lines().any(|it| it == *line));
            lines.filter_map(|line| Some((sign, comment(line)?.to_owned()))).collect()
        };
        let both = [side(before, after, '-'), side(after, before, '+')].concat();
        both.into_iter().collect::<BTreeSet<_>>()
    };
    fn quoted(line: &str) -> Option<&str> {
        line.split('"').nth(1).filter(|text| text.contains(": "))
    }
    fn of_nft(line: &str) -> Option<&str> {
        let text = line.split("comment \"").nth(1)?.strip_suffix('"');
        text.filter(|text| text.contains(": "))
    }
    let mut carriers = vec![vec!["--backend", "nft"]];
    for kind in kinds() {
        let name = if kind == IptablesKind::Nft { "nft" } else { "legacy" };
        carriers.push(vec!["--backend", "iptables", "--force-iptables-binary", name]);
    }
    for (n, carrier) in carriers.iter().enumerate() {
        let init = |args: &[&str]| {
            let done = output(INIT, &[&all, args, carrier].concat());
            assert!(done.status.success(), "{}", text(&done));
            String::from_utf8(done.stdout).unwrap()
        };
        let listing = || match n {
            0 => run("nft -s list table inet lateen"),
            n => tables(kinds()[n - 1]),
        };
        init(&old.split(' ').collect::<Vec<_>>());
        let before = listing();
        let told = init(&[&new[..], &["--dry-run", "--diff", &compared]].concat());
        assert_eq!(listing(), before, "a dry run changes nothing");
        init(&new);
        let after = listing();
        let expected = if n == 0 {
            changed(&before, &after, of_nft)
        } else {
            changed(&before, &after, quoted)
        };
        let signed = |line: &str| {
            let sign = line.chars().next().filter(|sign| ['-', '+'].contains(sign))?;
            let comment = if n == 0 { line.split("  # ").nth(1) } else { quoted(line) };
            Some((sign, comment?.to_owned()))
        };
        let found: BTreeSet<(char, String)> = told.lines().filter_map(signed).collect();
        assert_eq!(found, expected, "{told}");
        assert!(expected.len() > 4, "{expected:?}");
        let same = [&all[..], &new[..]].concat().join(" ");
        assert_eq!(init(&[&new[..], &["--dry-run", "--diff", &same]].concat()), "");
        init(&["--cleanup"]);
    }
}

#[test]
fn what_a_dry_run_cannot_compare_is_named() {
    let refused = output(INIT, &["--diff", "-i *"]);
    assert!(text(&refused).contains("--diff: it goes with --dry-run"), "{}", text(&refused));
    let refused = output(INIT, &["--dry-run", "--diff", "-i 10.0.0.0/33"]);
    assert!(text(&refused).contains("--diff: --istio-service-cidr"), "{}", text(&refused));
}

#[test]
fn a_kernel_without_nf_tables_is_served_by_iptables() {
    if !inside("a_kernel_without_nf_tables_is_served_by_iptables") {
        return;
    }
    run("ip link set lo up");
    let init = |args: &[&str]| {
        output("python3", &[&["-c", WITHOUT_NFTABLES, INIT, "-b", "*", "-i", "*"], args].concat())
    };
    if kinds().len() == 1 {
        let done = init(&[]);
        assert_eq!(done.status.code(), Some(1), "{}", text(&done));
        assert!(text(&done).contains("iptables instead:"), "{}", text(&done));
        return;
    }
    assert_eq!(init(&["--verify"]).status.code(), Some(126));
    let done = init(&[]);
    assert!(done.status.success(), "{}", text(&done));
    let told = "rules set by iptables-legacy: the kernel has no nf_tables";
    assert!(text(&done).contains(told), "{}", text(&done));
    assert!(tables(IptablesKind::Legacy).contains("-j LATEEN_OUTPUT"));
    assert_eq!(init(&["--verify"]).status.code(), Some(0));
    assert_eq!(init(&["--verify", "-o", "7"]).status.code(), Some(1));
    assert!(text(&init(&["--dry-run"])).contains("*nat\n:LATEEN_OUTPUT"));
    let refused = init(&["--backend", "nft"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("nf_tables"));
    assert!(init(&["--cleanup"]).status.success());
    assert_eq!(init(&["--verify"]).status.code(), Some(126));
}

#[test]
fn without_any_iptables_the_error_says_what_to_do() {
    if !inside("without_any_iptables_the_error_says_what_to_do") {
        return;
    }
    run("mount -t tmpfs none /usr/sbin");
    for args in [["--backend", "iptables"], ["--force-iptables-binary", "legacy"]] {
        let args = [&["-c", WITHOUT_NFTABLES, INIT, "-b", "*"], args.as_slice()].concat();
        let done = output("python3", &args);
        assert_eq!(done.status.code(), Some(1));
        assert!(text(&done).contains("use an image that has it"), "{}", text(&done));
    }
}

#[test]
fn a_family_that_fails_leaves_the_other_as_it_was() {
    if !inside("a_family_that_fails_leaves_the_other_as_it_was") {
        return;
    }
    run("ip link set lo up");
    let (kind, first) = (IptablesKind::Nft, RedirectPlan::new(&everything()));
    // A table that is not what iptables would make of it: it refuses to touch it.
    let broken = "add table ip6 mangle\nadd chain ip6 mangle PREROUTING \
                  { type filter hook prerouting priority -7; }\n\
                  add rule ip6 mangle PREROUTING meta mark set numgen inc mod 7\n";
    set(&first, kind);
    let before = run("iptables-nft-save");
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(broken.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success());
    let second = RedirectPlan::new(&Settings { mode: Mode::Tproxy, ..everything() });
    let error = backend::apply(&second, Backend::Iptables, Some(kind)).unwrap_err().to_string();
    assert!(error.contains("ip6tables") && error.contains("nothing was changed"), "{error}");
    let stripped = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        // Tables that were made meanwhile are empty.
        let rules = lines.filter(|line| line.contains("LATEEN"));
        rules.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(stripped(&run("iptables-nft-save")), stripped(&before));
}

#[test]
fn a_kernel_without_comments_takes_the_rules_without_them() {
    if !inside("a_kernel_without_comments_takes_the_rules_without_them") {
        return;
    }
    run("ip link set lo up");
    let folder = tempfile::tempdir().unwrap();
    for six in ["", "6"] {
        let name = format!("ip{six}tables-nft-restore");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec /usr/sbin/{name} \"$@\"\ntext=$(cat)\n\
             case $text in *--comment*) echo no comments >&2; exit 2;; esac\n\
             printf '%s\\n' \"$text\" | exec /usr/sbin/{name} \"$@\"\n"
        );
        let path = folder.path().join(name);
        std::fs::write(&path, script).unwrap();
        run(&format!("chmod 755 {}", path.display()));
    }
    let init = |args: &[&str]| {
        let mut command = Command::new(INIT);
        command.args(["-b", "*", "-i", "*", "--backend", "iptables"]).args(args);
        command.args(["--force-iptables-binary", "nft"]);
        let path = format!("{}:/usr/sbin:/usr/bin:/bin", folder.path().display());
        command.env("PATH", path).output().unwrap()
    };
    let done = init(&[]);
    assert!(done.status.success(), "{}", text(&done));
    let found = tables(IptablesKind::Nft);
    assert!(found.contains("-j LATEEN_OUTPUT") && !found.contains("--comment"), "{found}");
    assert_eq!(init(&["--verify"]).status.code(), Some(0));
    run("iptables-nft -t nat -D LATEEN_OUTPUT 1");
    assert_eq!(init(&["--verify"]).status.code(), Some(1));
}

/// Flags with every list and switch there is.
fn any_settings() -> impl Strategy<Value = Settings> {
    let list = |entry: &'static str, most: usize| {
        prop::collection::vec(entry, 0..most).prop_map(|entries| entries.join(","))
    };
    let ports = || list("[1-9][0-9]{0,3}", 60);
    let ranges =
        || list("(10|127|1[0-9]{2})\\.[1-9]\\.0\\.0/(8|16|3[0-2])|fd0[0-9]::/(16|64|128)", 20);
    let names = || list("[a-z]{1,8}[0-9]?\\+?", 4);
    let ids = |most| list("[1-9][0-9]{0,3}", most);
    let switch = || prop::sample::select(vec!["true", "false"]);
    let mode = prop::sample::select(vec!["REDIRECT", "TPROXY"]);
    let some = (ports(), ports(), ports(), ranges(), ranges(), names(), names());
    (some, ids(4), ids(64), (mode, switch(), switch(), switch(), switch())).prop_map(
        |((inbound, out, excluded, ranges, left, names, virtuals), owners, groups, rest)| {
            let (mode, dns, all_dns, invalid, star) = rest;
            let inbound = if star == "true" { "*".to_owned() } else { inbound };
            let flags = Flags {
                proxy_uid: Some(owners),
                istio_inbound_ports: Some(inbound),
                istio_local_exclude_ports: Some(out.clone()),
                istio_outbound_ports: Some(out),
                istio_local_outbound_ports_exclude: Some(excluded),
                istio_service_cidr: Some(ranges),
                istio_service_exclude_cidr: Some(left),
                istio_exclude_interfaces: Some(names),
                kube_virt_interfaces: Some(virtuals),
                istio_inbound_interception_mode: Some(mode.to_owned()),
                redirect_dns: Some(dns.to_owned()),
                capture_all_dns: Some(all_dns.to_owned()),
                drop_invalid: Some(invalid.to_owned()),
                ..Flags::parse_from(["lateen-init"])
            };
            let around = Surroundings {
                variable: |name: &str| {
                    (name == "ISTIO_OUTBOUND_OWNER_GROUPS").then(|| groups.clone())
                },
                passwd: String::new(),
                group: String::new(),
                resolv_conf: "nameserver 10.0.0.10\nnameserver fd00::a\n".to_owned(),
            };
            flags.resolve(&around).unwrap().settings
        },
    )
}

#[test]
fn any_settings_are_taken_and_read_back() {
    if !inside("any_settings_are_taken_and_read_back") {
        return;
    }
    run("ip link set lo up");
    let kinds = kinds();
    let mut runner =
        TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let done = runner.run(&any_settings(), |settings| {
        let plan = RedirectPlan::new(&settings);
        for kind in &kinds {
            set(&plan, *kind);
            prop_assert_eq!(state(&plan, *kind), State::Planned);
            let other = RedirectPlan::new(&Settings { tunnel_port: 9, ..settings.clone() });
            prop_assert!(matches!(state(&other, *kind), State::Differs(_)));
        }
        Ok(())
    });
    done.unwrap();
}
