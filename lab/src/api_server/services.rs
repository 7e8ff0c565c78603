//! What the API server adds to a Service: its type, cluster addresses of both families, ports.
//!
//! Pure: the addresses in use come in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use lateen_api::Finding;
use lateen_api::core::{Service, TargetPort};
use serde_json::{Value, json};

/// Range of IPv4 cluster addresses.
pub const RANGE_V4: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);
/// Range of IPv6 cluster addresses.
pub const RANGE_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);
/// First host number that is given; those below are for the cluster itself.
const FIRST: u32 = 10;
/// Host numbers of both ranges.
const HOSTS: u32 = 0xffff;

/// The families of cluster addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are preferred.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// As Kubernetes spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|family| family.name() == name)
    }

    fn range(self) -> Option<IpNet> {
        let (address, prefix): (IpAddr, u8) = match self {
            Self::V4 => (RANGE_V4.0.into(), RANGE_V4.1),
            Self::V6 => (RANGE_V6.0.into(), RANGE_V6.1),
        };
        IpNet::new(address, prefix).ok()
    }

    fn host(self, number: u32) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from_bits(RANGE_V4.0.to_bits() + number).into(),
            Self::V6 => Ipv6Addr::from_bits(RANGE_V6.0.to_bits() + u128::from(number)).into(),
        }
    }
}

/// Completes the Service `value`. `previous` is the one of its name that is there, and `used` says
/// which Service has which address.
///
/// # Errors
/// The field that cannot be honoured.
pub fn complete(
    value: &mut Value,
    typed: &Service,
    previous: Option<&Value>,
    used: &BTreeMap<IpAddr, String>,
) -> Result<(), Finding> {
    check_ports(typed)?;
    let spec = &mut value["spec"];
    let kind = typed.spec.kind.as_deref().unwrap_or("ClusterIP");
    match kind {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        "ExternalName" => {
            if typed.spec.external_name.as_deref().unwrap_or_default().is_empty() {
                return Err(Finding::error("spec.externalName", "an ExternalName needs a name"));
            }
            return Ok(());
        }
        other => {
            let message = format!(
                "unknown type `{other}`: expected ClusterIP, NodePort, LoadBalancer or ExternalName"
            );
            return Err(Finding::error("spec.type", message));
        }
    }
    spec["type"] = json!(kind);
    complete_ports(spec, typed);
    if typed.spec.is_headless() {
        spec["clusterIPs"] = json!(["None"]);
        let families = families(typed)?;
        set_families(spec, &families);
        return Ok(());
    }
    let addresses = addresses(typed, previous, used)?;
    let families: Vec<Family> = addresses.iter().map(|address| Family::of(*address)).collect();
    set_families(spec, &families);
    spec["clusterIP"] = json!(addresses.first());
    spec["clusterIPs"] = json!(addresses);
    Ok(())
}

fn set_families(spec: &mut Value, families: &[Family]) {
    spec["ipFamilies"] = families.iter().map(|family| family.name()).collect();
    let policy = if families.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    if spec["ipFamilyPolicy"].is_null() {
        spec["ipFamilyPolicy"] = json!(policy);
    }
}

/// The families a Service asks for; both where it says nothing.
fn families(typed: &Service) -> Result<Vec<Family>, Finding> {
    let mut families = Vec::new();
    for (index, name) in typed.spec.ip_families.iter().enumerate() {
        let family = Family::parse(name).ok_or_else(|| {
            let message = format!("unknown family `{name}`: expected IPv4 or IPv6");
            Finding::error(format!("spec.ipFamilies[{index}]"), message)
        })?;
        families.push(family);
    }
    let single = typed.spec.ip_family_policy.as_deref() == Some("SingleStack");
    let dual = matches!(
        typed.spec.ip_family_policy.as_deref(),
        Some("PreferDualStack" | "RequireDualStack")
    );
    if families.is_empty() {
        families.extend(if single { &Family::BOTH[..1] } else { &Family::BOTH[..] });
    } else if dual && let [only] = families.as_slice() {
        let only = *only;
        families.extend(Family::BOTH.into_iter().filter(|it| *it != only));
    }
    Ok(families)
}

fn addresses(
    typed: &Service,
    previous: Option<&Value>,
    used: &BTreeMap<IpAddr, String>,
) -> Result<Vec<IpAddr>, Finding> {
    let name = owner(typed);
    let mut given = Vec::new();
    for text in typed.spec.addresses() {
        given.push(asked(text, &name, used)?);
    }
    let kept: Vec<IpAddr> = previous
        .and_then(|value| value["spec"]["clusterIPs"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|text| text.as_str()?.parse().ok())
        .collect();
    let mut taken: BTreeSet<IpAddr> = used.keys().copied().collect();
    taken.extend(&given);
    let mut wanted = families(typed)?;
    wanted.sort_by_key(|family| given.first().is_some_and(|it| Family::of(*it) != *family));
    let mut addresses = Vec::new();
    for family in wanted {
        let own = given.iter().chain(&kept).copied().find(|it| Family::of(*it) == family);
        let Some(address) = own.or_else(|| free(family, &taken)) else {
            return Err(Finding::error("spec.clusterIP", "no cluster address is left"));
        };
        taken.insert(address);
        addresses.push(address);
    }
    Ok(addresses)
}

/// How a Service is named among the users of addresses.
#[must_use]
pub fn owner(service: &Service) -> String {
    format!("{}/{}", service.metadata.namespace_or_empty(), service.metadata.name)
}

fn asked(text: &str, name: &str, used: &BTreeMap<IpAddr, String>) -> Result<IpAddr, Finding> {
    let refuse = |message: String| Finding::error("spec.clusterIP", message);
    let address: IpAddr =
        text.parse().map_err(|_| refuse(format!("`{text}` is neither an address nor None")))?;
    if !Family::of(address).range().is_some_and(|range| range.contains(&address)) {
        let ranges = Family::BOTH
            .map(|family| family.range().map_or_else(String::new, |range| range.to_string()));
        return Err(refuse(format!("{address} is not within {}", ranges.join(" or "))));
    }
    match used.get(&address) {
        Some(other) if other != name => {
            Err(refuse(format!("{address} belongs to Service {other} already")))
        }
        _ => Ok(address),
    }
}

fn free(family: Family, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    (FIRST..HOSTS).map(|number| family.host(number)).find(|address| !taken.contains(address))
}

fn check_ports(service: &Service) -> Result<(), Finding> {
    let spec = &service.spec;
    let may_be_without = spec.is_headless() || spec.kind.as_deref() == Some("ExternalName");
    if spec.ports.is_empty() && !may_be_without {
        return Err(Finding::error("spec.ports", "a Service needs at least one port"));
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let path = |field: &str| format!("spec.ports[{index}].{field}");
        if port.port == 0 {
            return Err(Finding::error(path("port"), "0 is not a port: 1 to 65535 are"));
        }
        if port.name.is_none() && spec.ports.len() > 1 {
            let message = "a name is needed where there are several ports";
            return Err(Finding::error(path("name"), message));
        }
        if let Some(name) = port.name.as_ref().filter(|name| !names.insert(name.as_str())) {
            return Err(Finding::error(path("name"), format!("there are two ports `{name}`")));
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            let message = format!("unknown protocol `{protocol}`: expected TCP, UDP or SCTP");
            return Err(Finding::error(path("protocol"), message));
        }
        if !numbers.insert((port.port, protocol)) {
            let message = format!("there are two ports {} {protocol}", port.port);
            return Err(Finding::error(path("port"), message));
        }
    }
    Ok(())
}

fn complete_ports(spec: &mut Value, typed: &Service) {
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return };
    for (port, typed) in ports.iter_mut().zip(&typed.spec.ports) {
        port["protocol"] = json!(typed.protocol.as_deref().unwrap_or("TCP"));
        let target = typed.target_port.clone().filter(|it| *it != TargetPort::Number(0));
        port["targetPort"] = json!(target.unwrap_or(TargetPort::Number(typed.port)));
    }
}

#[cfg(test)]
mod tests {
    use super::{complete, owner};
    use lateen_api::core::Service;
    use proptest::prelude::{Just, prop_oneof, proptest};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    fn service(spec: &Value) -> Value {
        json!({"metadata": {"name": "a", "namespace": "n"}, "spec": spec})
    }

    fn completed(spec: &Value, used: &BTreeMap<IpAddr, String>) -> Result<Value, String> {
        let mut value = service(spec);
        let typed: Service = serde_json::from_value(value.clone()).unwrap();
        complete(&mut value, &typed, None, used).map_err(|finding| finding.to_string())?;
        Ok(value["spec"].take())
    }

    #[test]
    fn a_service_gets_both_families_and_keeps_them() {
        let mut used = BTreeMap::new();
        let spec = json!({"ports": [{"port": 80}]});
        let first = completed(&spec, &used).unwrap();
        assert_eq!(first["clusterIPs"], json!(["10.96.0.10", "fd00:10:96::a"]));
        assert_eq!(first["ports"][0], json!({"port": 80, "protocol": "TCP", "targetPort": 80}));
        for ip in ["10.96.0.10", "fd00:10:96::a"] {
            used.insert(ip.parse().unwrap(), "n/b".to_owned());
        }
        assert_eq!(completed(&spec, &used).unwrap()["clusterIP"], "10.96.0.11");
        let mut again = service(&spec);
        let typed: Service = serde_json::from_value(again.clone()).unwrap();
        let previous = service(&json!({"clusterIPs": ["10.96.7.7", "fd00:10:96::7"]}));
        complete(&mut again, &typed, Some(&previous), &used).unwrap();
        assert_eq!(again["spec"]["clusterIPs"], json!(["10.96.7.7", "fd00:10:96::7"]));
        assert_eq!(owner(&typed), "n/a");
    }

    #[test]
    fn families_are_those_asked_for() {
        let none = BTreeMap::new();
        let ports = json!([{"port": 80}]);
        let six = json!({"ports": ports, "ipFamilies": ["IPv6"]});
        assert_eq!(completed(&six, &none).unwrap()["clusterIPs"], json!(["fd00:10:96::a"]));
        let single = json!({"ports": ports, "ipFamilyPolicy": "SingleStack"});
        assert_eq!(completed(&single, &none).unwrap()["clusterIPs"], json!(["10.96.0.10"]));
        let headless = completed(&json!({"clusterIP": "None"}), &none).unwrap();
        assert_eq!(headless["clusterIPs"], json!(["None"]));
        assert_eq!(headless["ipFamilies"], json!(["IPv4", "IPv6"]));
        let external = json!({"type": "ExternalName", "externalName": "a.test"});
        assert_eq!(completed(&external, &none).unwrap(), external);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let mut used = BTreeMap::new();
        used.insert("10.96.0.99".parse().unwrap(), "n/other".to_owned());
        for (spec, path) in [
            (json!({}), "spec.ports"),
            (json!({"ports": [{"port": 0}]}), "spec.ports[0].port"),
            (json!({"ports": [{"port": 1, "protocol": "ICMP"}]}), "spec.ports[0].protocol"),
            (json!({"ports": [{"port": 1}, {"port": 2}]}), "spec.ports[0].name"),
            (
                json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}),
                "spec.ports[1].name",
            ),
            (
                json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}),
                "spec.ports[1].port",
            ),
            (json!({"ports": [{"port": 1}], "type": "Odd"}), "spec.type"),
            (json!({"type": "ExternalName"}), "spec.externalName"),
            (json!({"ports": [{"port": 1}], "clusterIP": "10.0.0.1"}), "spec.clusterIP"),
            (json!({"ports": [{"port": 1}], "clusterIP": "10.96.0.99"}), "spec.clusterIP"),
            (json!({"ports": [{"port": 1}], "ipFamilies": ["IPv5"]}), "spec.ipFamilies[0]"),
        ] {
            let error = completed(&spec, &used).unwrap_err();
            assert!(error.starts_with(&format!("{path}: ")), "{spec}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_address_is_given_twice(
            policies in proptest::collection::vec(
                prop_oneof![Just("SingleStack"), Just("PreferDualStack")], 1..40,
            ),
        ) {
            let mut used = BTreeMap::new();
            for (index, policy) in policies.iter().enumerate() {
                let spec = json!({"ports": [{"port": 80}], "ipFamilyPolicy": policy});
                let spec = completed(&spec, &used).unwrap();
                for ip in spec["clusterIPs"].as_array().unwrap() {
                    let ip: IpAddr = ip.as_str().unwrap().parse().unwrap();
                    assert!(used.insert(ip, format!("n/{index}")).is_none(), "{ip} twice");
                }
            }
        }
    }
}
