//! The same identities under every name that a trust domain has.

/// The same identities under every name of the trust domain.
///
/// `cluster.local` in a policy stands for the mesh's trust domain, whatever it is called.
pub(crate) fn with_aliases(principals: &[String], trust_domains: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(principals.len());
    for principal in principals {
        let renamed = match principal.split_once('/') {
            Some((domain, rest)) if rest.matches('/').count() == 3 => {
                renamed(domain, rest, trust_domains)
            }
            _ => vec![principal.clone()],
        };
        for name in renamed {
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    all
}

fn renamed(domain: &str, rest: &str, trust_domains: &[String]) -> Vec<String> {
    let stands_for = |name: &String| match domain.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix),
        None => match domain.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == domain,
        },
    };
    if domain != "cluster.local" && !trust_domains.iter().any(stands_for) {
        return vec![format!("{domain}/{rest}")];
    }
    trust_domains
        .iter()
        .map(|name| if stands_for(name) { domain } else { name })
        .map(|name| format!("{name}/{rest}"))
        .collect()
}
