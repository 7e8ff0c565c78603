//! How one flag or variable is read: which wins, how its text becomes a value, what is wrong with it.
//!
//! Must not know what the settings mean.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::flags::{FlagError, Surroundings, boolean};
use super::{Backend, IptablesKind, Mode, OwnerGroups, lists};

const MAX_OWNER_GROUPS: usize = 64;

/// Reads a value from a flag, else from the first variable that has one.
pub(super) struct Reader<'a, V> {
    pub(super) variable: &'a V,
}

impl<V: Fn(&str) -> Option<String>> Reader<'_, V> {
    pub(super) fn text(&self, flag: &Option<String>, variables: &[&str]) -> Option<String> {
        let from_environment =
            || variables.iter().find_map(|name| (self.variable)(name).filter(|v| !v.is_empty()));
        flag.clone().or_else(from_environment)
    }

    pub(super) fn parsed<T, E: Display>(
        &self,
        flag: &Option<String>,
        name: &'static str,
        variables: &[&str],
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, FlagError> {
        let Some(text) = self.text(flag, variables) else { return Ok(None) };
        parse(&text).map(Some).map_err(|e| FlagError { name, problem: e.to_string() })
    }

    pub(super) fn boolean(
        &self,
        flag: &Option<String>,
        name: &'static str,
        variables: &[&str],
    ) -> Result<bool, FlagError> {
        let parse = |text: &str| {
            boolean(text).ok_or_else(|| format!("{text:?} is not a boolean (true or false)"))
        };
        Ok(self.parsed(flag, name, variables, parse)?.unwrap_or(false))
    }

    pub(super) fn number<N: std::str::FromStr + Default + PartialEq>(
        &self,
        flag: &Option<String>,
        name: &'static str,
        variables: &[&str],
        default: N,
    ) -> Result<N, FlagError> {
        let parse = |text: &str| match text.parse::<N>() {
            Ok(number) if number != N::default() => Ok(number),
            _ => Err(format!("{text:?} is not a number in range")),
        };
        Ok(self.parsed(flag, name, variables, parse)?.unwrap_or(default))
    }
}

pub(super) fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "" | "REDIRECT" => Ok(Mode::Redirect),
        "TPROXY" => Ok(Mode::Tproxy),
        other => Err(format!("{other:?} is not REDIRECT or TPROXY")),
    }
}

pub(super) fn backend(text: &str, native: bool) -> Result<Backend, FlagError> {
    match text {
        "auto" if native => Ok(Backend::Nft),
        "auto" => Ok(Backend::Auto),
        "nft" => Ok(Backend::Nft),
        "iptables" => Ok(Backend::Iptables),
        other => Err(FlagError {
            name: "--backend",
            problem: format!("{other:?} is not auto, nft or iptables"),
        }),
    }
}

pub(super) fn iptables_kind(text: &str) -> Result<Option<IptablesKind>, String> {
    match text {
        "" => Ok(None),
        "nft" => Ok(Some(IptablesKind::Nft)),
        "legacy" => Ok(Some(IptablesKind::Legacy)),
        other => Err(format!("{other:?} is not legacy or nft")),
    }
}

pub(super) fn loopback(text: &str) -> Result<Ipv4Net, String> {
    match text.parse::<Ipv4Net>() {
        Ok(net) if net.network().is_loopback() && net.prefix_len() >= 8 => Ok(net.trunc()),
        _ => Err(format!("{text:?} is not a loopback range of /8 to /32")),
    }
}

pub(super) fn owner_groups<V: Fn(&str) -> Option<String>>(
    read: &Reader<'_, V>,
    around: &Surroundings<V>,
) -> Result<OwnerGroups, FlagError> {
    let groups = |name: &'static str| {
        read.parsed(&None, name, &[name], |text| lists::ids(text, |g| id_of(&around.group, g)))
    };
    let excluded = groups("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE")?.unwrap_or_default();
    let name = "ISTIO_OUTBOUND_OWNER_GROUPS";
    if read.text(&None, &[name]).is_none_or(|text| text.trim() == "*") {
        return Ok(OwnerGroups::AllExcept(excluded));
    }
    let mut included = groups(name)?.unwrap_or_default();
    if included.len() > MAX_OWNER_GROUPS {
        let problem = format!("more than {MAX_OWNER_GROUPS} groups");
        return Err(FlagError { name, problem });
    }
    included.retain(|group| !excluded.contains(group));
    Ok(OwnerGroups::Only(included))
}

/// The id in the third column of `/etc/passwd` or `/etc/group`.
pub(super) fn id_of(table: &str, name: &str) -> Option<u32> {
    let line = table.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

pub(super) fn name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let address = words.next().and_then(|w| w.split('%').next()).and_then(|w| w.parse().ok());
        if let Some(address) = address
            && !servers.contains(&address)
        {
            servers.push(address);
        }
    }
    servers
}

/// A Go duration with one unit: `5s`, `200ms`, `1m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let count: Option<u64> = digits.parse().ok().filter(|n| *n <= 86_400_000);
    match (count, unit) {
        (Some(n), "ms") => Ok(Duration::from_millis(n)),
        (Some(n), "s") => Ok(Duration::from_secs(n)),
        (Some(n), "m") => Ok(Duration::from_secs(n * 60)),
        _ => Err(format!("{text:?} is not a duration such as 5s or 200ms")),
    }
}
