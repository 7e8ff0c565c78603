//! Flags and environment of `lateen-init`, the ones of `istio-iptables`.
//!
//! The only place of this crate that reads either. A flag wins over the environment; an empty
//! variable counts as absent.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::read::{
    Reader, backend, duration, id_of, iptables_kind, loopback, mode, name_servers, owner_groups,
};
use super::{Backend, DnsCapture, IptablesKind, Mode, PROXY_ID, Settings, lists};

/// Redirects the traffic of a pod to its proxy: sets, verifies or removes the rules in the network
/// namespace it runs in.
#[derive(Debug, Default, Parser)]
#[command(name = "lateen-init", version, disable_help_subcommand = true)]
pub struct Flags {
    /// Port that outbound TCP goes to [15001]
    #[arg(short = 'p', long)]
    pub envoy_port: Option<String>,
    /// Port that inbound TCP goes to [15006]
    #[arg(short = 'z', long)]
    pub inbound_capture_port: Option<String>,
    /// Tunnel port, not redirected [15008]
    #[arg(short = 'e', long)]
    pub inbound_tunnel_port: Option<String>,
    /// User ids whose traffic is left alone [uid of ENVOY_USER, else 1337]
    #[arg(short = 'u', long)]
    pub proxy_uid: Option<String>,
    /// Group ids whose traffic is left alone [value of -u]
    #[arg(short = 'g', long)]
    pub proxy_gid: Option<String>,
    /// REDIRECT or TPROXY [REDIRECT]
    #[arg(short = 'm', long)]
    pub istio_inbound_interception_mode: Option<String>,
    /// Inbound ports to capture, * for all
    #[arg(short = 'b', long)]
    pub istio_inbound_ports: Option<String>,
    /// Inbound ports to leave alone, only with -b '*'
    #[arg(short = 'd', long)]
    pub istio_local_exclude_ports: Option<String>,
    /// Interfaces to leave alone in both directions
    #[arg(short = 'c', long)]
    pub istio_exclude_interfaces: Option<String>,
    /// Outbound ranges to capture, * for all
    #[arg(short = 'i', long)]
    pub istio_service_cidr: Option<String>,
    /// Outbound ranges to leave alone
    #[arg(short = 'x', long)]
    pub istio_service_exclude_cidr: Option<String>,
    /// Outbound ports to capture whatever the range
    #[arg(short = 'q', long)]
    pub istio_outbound_ports: Option<String>,
    /// Outbound ports to leave alone
    #[arg(short = 'o', long)]
    pub istio_local_outbound_ports_exclude: Option<String>,
    /// Interfaces whose inbound traffic counts as outbound
    #[arg(short = 'k', long)]
    pub kube_virt_interfaces: Option<String>,
    /// Packet and connection mark [1337]
    #[arg(short = 't', long)]
    pub istio_inbound_tproxy_mark: Option<String>,
    /// Route table of the mark [133]
    #[arg(short = 'r', long)]
    pub istio_inbound_tproxy_route_table: Option<String>,
    /// Print the rules, change nothing
    #[arg(short = 'n', long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dry_run: Option<String>,
    /// With --dry-run: only what differs from the rules of these flags, such as "-b 80 -i *"
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    pub diff: Option<String>,
    /// Port of the validation listener [15002]
    #[arg(long)]
    pub iptables_probe_port: Option<String>,
    /// Validation timeout [5s]
    #[arg(long)]
    pub probe_timeout: Option<String>,
    /// Apply nothing
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub skip_rule_apply: Option<String>,
    /// Connect through the rules; exit 126 when they do not work
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub run_validation: Option<String>,
    /// Port 53 to 15053, for the servers of resolv.conf
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub redirect_dns: Option<String>,
    /// With --redirect-dns: every server
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub capture_all_dns: Option<String>,
    /// Drop packets of state INVALID
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub drop_invalid: Option<String>,
    /// Accepted; both families are always handled
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dual_stack: Option<String>,
    /// Path of another network namespace
    #[arg(long)]
    pub network_namespace: Option<String>,
    /// Accepted
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cni_mode: Option<String>,
    /// Accepted; a run always ends in exactly the planned rules
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub reconcile: Option<String>,
    /// Same as --cleanup
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cleanup_only: Option<String>,
    /// Accepted; a run always applies
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub force_apply: Option<String>,
    /// Same as --backend nft
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub native_nftables: Option<String>,
    /// legacy or nft: which iptables, where that carries the rules
    #[arg(long)]
    pub force_iptables_binary: Option<String>,
    /// auto (nft where the kernel can, else iptables), nft or iptables
    #[arg(long, default_value = "auto")]
    pub backend: String,
    /// Change nothing; exit 0 when the planned rules are in place, 126 when none, 1 when others
    #[arg(long)]
    pub verify: bool,
    /// Remove everything a run made
    #[arg(long)]
    pub cleanup: bool,
}

/// What is read besides the flags.
#[derive(Debug, Default)]
pub struct Surroundings<V> {
    /// Looks up an environment variable.
    pub variable: V,
    /// Text of `/etc/passwd`.
    pub passwd: String,
    /// Text of `/etc/group`.
    pub group: String,
    /// Text of `/etc/resolv.conf`.
    pub resolv_conf: String,
}

/// A flag or variable that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct FlagError {
    pub(super) name: &'static str,
    pub(super) problem: String,
}

/// What `lateen-init` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Apply the rules.
    Apply,
    /// Print them.
    DryRun,
    /// Compare them.
    Verify,
    /// Remove them.
    Cleanup,
    /// Apply nothing (validation may follow).
    Nothing,
}

/// A whole run of `lateen-init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to do.
    pub task: Task,
    /// With which settings.
    pub settings: Settings,
    /// Settings whose rules a dry run is compared with.
    pub compared: Option<Settings>,
    /// What is to carry the rules.
    pub backend: Backend,
    /// Which iptables, where that carries them; `None` is the one that fits.
    pub iptables: Option<IptablesKind>,
    /// In which network namespace; `None` is the own one.
    pub namespace: Option<PathBuf>,
    /// Connect through the rules afterwards: port and timeout.
    pub validation: Option<(u16, Duration)>,
    /// What was accepted without effect, and why.
    pub warnings: Vec<String>,
}

/// Reads the environment and the files of the machine.
#[must_use]
pub fn surroundings() -> Surroundings<impl Fn(&str) -> Option<String>> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    Surroundings {
        #[expect(clippy::disallowed_methods, reason = "this is the crate's settings module")]
        variable: |name: &str| std::env::var(name).ok(),
        passwd: read("/etc/passwd"),
        group: read("/etc/group"),
        resolv_conf: read("/etc/resolv.conf"),
    }
}

/// A boolean as Go writes it.
#[must_use]
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Flags {
    /// The run that flags and environment ask for. Pure.
    ///
    /// # Errors
    /// The first flag or variable that cannot be honoured, by name.
    pub fn resolve<V>(&self, around: &Surroundings<V>) -> Result<Run, FlagError>
    where
        V: Fn(&str) -> Option<String>,
    {
        let read = Reader { variable: &around.variable };
        self.check_accepted(&read)?;
        let mut warnings = Vec::new();
        let settings = self.settings(&read, around, &mut warnings)?;
        let is = |flag, name, env| read.boolean(flag, name, env);
        let cleanup = is(&self.cleanup_only, "--cleanup-only", &["CLEANUP_ONLY"])?;
        let task = if self.verify {
            Task::Verify
        } else if self.cleanup || cleanup {
            Task::Cleanup
        } else if is(&self.dry_run, "--dry-run", &["DRY_RUN"])? {
            Task::DryRun
        } else if is(&self.skip_rule_apply, "--skip-rule-apply", &["SKIP_RULE_APPLY"])? {
            Task::Nothing
        } else {
            Task::Apply
        };
        let port = read.number(
            &self.iptables_probe_port,
            "--iptables-probe-port",
            &["IPTABLES_PROBE_PORT"],
            15002,
        )?;
        let timeout = read
            .parsed(&self.probe_timeout, "--probe-timeout", &["PROBE_TIMEOUT"], duration)?
            .unwrap_or(Duration::from_secs(5));
        let validate = is(&self.run_validation, "--run-validation", &["RUN_VALIDATION"])?;
        let compared = self.compared(around, task)?;
        Ok(Run {
            task,
            settings,
            compared,
            backend: backend(
                &self.backend,
                is(&self.native_nftables, "--native-nftables", &["NATIVE_NFTABLES"])?,
            )?,
            iptables: self.iptables(&read)?,
            namespace: read
                .text(&self.network_namespace, &["NETWORK_NAMESPACE"])
                .map(PathBuf::from),
            validation: validate.then_some((port, timeout)),
            warnings,
        })
    }

    /// The settings of the flags of `--diff`, with the same surroundings.
    fn compared<V>(
        &self,
        around: &Surroundings<V>,
        task: Task,
    ) -> Result<Option<Settings>, FlagError>
    where
        V: Fn(&str) -> Option<String>,
    {
        let failed = |problem: String| FlagError { name: "--diff", problem };
        let Some(words) = &self.diff else { return Ok(None) };
        if task != Task::DryRun {
            return Err(failed("it goes with --dry-run".to_owned()));
        }
        let words = ["lateen-init"].into_iter().chain(words.split_whitespace());
        let flags = Self::try_parse_from(words).map_err(|e| failed(e.to_string()))?;
        let read = Reader { variable: &around.variable };
        let settings = flags.settings(&read, around, &mut Vec::new());
        settings.map(Some).map_err(|e| failed(e.to_string()))
    }

    /// Flags that have no effect must still be what they say.
    fn check_accepted<V: Fn(&str) -> Option<String>>(
        &self,
        read: &Reader<'_, V>,
    ) -> Result<(), FlagError> {
        for (flag, name, env) in [
            (&self.dual_stack, "--dual-stack", ["DUAL_STACK", "ISTIO_DUAL_STACK"].as_slice()),
            (&self.cni_mode, "--cni-mode", &["CNI_MODE"]),
            (&self.reconcile, "--reconcile", &["RECONCILE"]),
            (&self.force_apply, "--force-apply", &["FORCE_APPLY"]),
        ] {
            read.boolean(flag, name, env)?;
        }
        Ok(())
    }

    fn iptables<V: Fn(&str) -> Option<String>>(
        &self,
        read: &Reader<'_, V>,
    ) -> Result<Option<IptablesKind>, FlagError> {
        let (name, variable) = ("--force-iptables-binary", "FORCE_IPTABLES_BINARY");
        let kind = read.parsed(&self.force_iptables_binary, name, &[variable], iptables_kind)?;
        Ok(kind.flatten())
    }

    fn settings<V: Fn(&str) -> Option<String>>(
        &self,
        read: &Reader<'_, V>,
        around: &Surroundings<V>,
        warnings: &mut Vec<String>,
    ) -> Result<Settings, FlagError> {
        let default = Settings::default();
        let (uids, gids) = self.owners(read, around)?;
        let exclude_interfaces = read
            .parsed(
                &self.istio_exclude_interfaces,
                "--istio-exclude-interfaces",
                &["ISTIO_EXCLUDE_INTERFACES"],
                lists::interfaces,
            )?
            .unwrap_or_default();
        let reroute_interfaces = read
            .parsed(
                &self.kube_virt_interfaces,
                "--kube-virt-interfaces",
                &["KUBE_VIRT_INTERFACES"],
                lists::interfaces,
            )?
            .unwrap_or_default();
        let mode = read
            .parsed(
                &self.istio_inbound_interception_mode,
                "--istio-inbound-interception-mode",
                &["ISTIO_INBOUND_INTERCEPTION_MODE"],
                mode,
            )?
            .unwrap_or(Mode::Redirect);
        let settings = Settings {
            proxy_uids: uids,
            proxy_gids: gids,
            mode,
            exclude_interfaces,
            reroute_interfaces,
            owner_groups: owner_groups(read, around)?,
            dns: self.dns(read, around, warnings)?,
            drop_invalid: read.boolean(
                &self.drop_invalid,
                "--drop-invalid",
                &["DROP_INVALID", "INVALID_DROP"],
            )?,
            loopback_range: read
                .parsed(
                    &None,
                    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
                    &["ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"],
                    loopback,
                )?
                .unwrap_or(default.loopback_range),
            ..default
        };
        self.numbers(read, self.selections(read, settings)?)
    }

    fn numbers<V: Fn(&str) -> Option<String>>(
        &self,
        read: &Reader<'_, V>,
        s: Settings,
    ) -> Result<Settings, FlagError> {
        let number = |flag, name, env, default| read.number(flag, name, &[env], default);
        Ok(Settings {
            outbound_port: number(&self.envoy_port, "--envoy-port", "ENVOY_PORT", s.outbound_port)?,
            inbound_port: number(
                &self.inbound_capture_port,
                "--inbound-capture-port",
                "INBOUND_CAPTURE_PORT",
                s.inbound_port,
            )?,
            tunnel_port: number(
                &self.inbound_tunnel_port,
                "--inbound-tunnel-port",
                "INBOUND_TUNNEL_PORT",
                s.tunnel_port,
            )?,
            tproxy_mark: read.number(
                &self.istio_inbound_tproxy_mark,
                "--istio-inbound-tproxy-mark",
                &["ISTIO_INBOUND_TPROXY_MARK"],
                s.tproxy_mark,
            )?,
            tproxy_table: read.number(
                &self.istio_inbound_tproxy_route_table,
                "--istio-inbound-tproxy-route-table",
                &["ISTIO_INBOUND_TPROXY_ROUTE_TABLE"],
                s.tproxy_table,
            )?,
            ..s
        })
    }

    fn selections<V: Fn(&str) -> Option<String>>(
        &self,
        read: &Reader<'_, V>,
        s: Settings,
    ) -> Result<Settings, FlagError> {
        let ports = |flag, name, env: &'static str| -> Result<Vec<u16>, FlagError> {
            Ok(read.parsed(flag, name, &[env], lists::ports)?.unwrap_or_default())
        };
        Ok(Settings {
            inbound_ports: read
                .parsed(
                    &self.istio_inbound_ports,
                    "--istio-inbound-ports",
                    &["ISTIO_INBOUND_PORTS"],
                    lists::port_selection,
                )?
                .unwrap_or(s.inbound_ports),
            inbound_ports_exclude: ports(
                &self.istio_local_exclude_ports,
                "--istio-local-exclude-ports",
                "ISTIO_LOCAL_EXCLUDE_PORTS",
            )?,
            outbound_ranges: read
                .parsed(
                    &self.istio_service_cidr,
                    "--istio-service-cidr",
                    &["ISTIO_SERVICE_CIDR"],
                    lists::range_selection,
                )?
                .unwrap_or(s.outbound_ranges),
            outbound_ranges_exclude: read
                .parsed(
                    &self.istio_service_exclude_cidr,
                    "--istio-service-exclude-cidr",
                    &["ISTIO_SERVICE_EXCLUDE_CIDR"],
                    lists::ranges,
                )?
                .unwrap_or_default(),
            outbound_ports: ports(
                &self.istio_outbound_ports,
                "--istio-outbound-ports",
                "ISTIO_OUTBOUND_PORTS",
            )?,
            outbound_ports_exclude: ports(
                &self.istio_local_outbound_ports_exclude,
                "--istio-local-outbound-ports-exclude",
                "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
            )?,
            ..s
        })
    }

    fn owners<V: Fn(&str) -> Option<String>>(
        &self,
        read: &Reader<'_, V>,
        around: &Surroundings<V>,
    ) -> Result<(Vec<u32>, Vec<u32>), FlagError> {
        let uids = read
            .parsed(&self.proxy_uid, "--proxy-uid", &["PROXY_UID"], |t| lists::ids(t, |_| None))?
            .filter(|ids| !ids.is_empty())
            .unwrap_or_else(|| {
                let user = (around.variable)("ENVOY_USER").filter(|v| !v.is_empty());
                let user = user.unwrap_or_else(|| "istio-proxy".to_owned());
                vec![id_of(&around.passwd, &user).unwrap_or(PROXY_ID)]
            });
        let gids = read
            .parsed(&self.proxy_gid, "--proxy-gid", &["PROXY_GID"], |t| lists::ids(t, |_| None))?
            .filter(|ids| !ids.is_empty())
            .unwrap_or_else(|| uids.clone());
        Ok((uids, gids))
    }

    fn dns<V: Fn(&str) -> Option<String>>(
        &self,
        read: &Reader<'_, V>,
        around: &Surroundings<V>,
        warnings: &mut Vec<String>,
    ) -> Result<DnsCapture, FlagError> {
        let variables = ["REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"];
        let all = read.boolean(&self.capture_all_dns, "--capture-all-dns", &["CAPTURE_ALL_DNS"])?;
        if !read.boolean(&self.redirect_dns, "--redirect-dns", &variables)? {
            return Ok(DnsCapture::Off);
        }
        if all {
            return Ok(DnsCapture::All);
        }
        let servers = name_servers(&around.resolv_conf);
        if servers.is_empty() {
            warnings.push(
                "--redirect-dns: /etc/resolv.conf names no server, DNS is not captured".to_owned(),
            );
            return Ok(DnsCapture::Off);
        }
        Ok(DnsCapture::Servers(servers))
    }
}
