//! Claims about how pods join: who was injected and why, and whether the rules stand.

use anyhow::ensure;

use super::stage::Stage;

/// The proxy's container.
const PROXY: &str = "istio-proxy";

/// Every pod of the shop has a sidecar, the stranger has none, and each says why.
pub(super) async fn injected(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let mut told = Vec::new();
    let mut ok = true;
    for pod in stage.pods() {
        let has = pod.containers.iter().any(|name| name == PROXY);
        ok &= has == (pod.namespace == "shop") && pod.ready && !pod.reason.is_empty();
        let name = pod.name.split('-').next().unwrap_or(&pod.name);
        told.push(format!("{name}: {}", pod.reason));
    }
    told.sort();
    told.dedup();
    ensure!(!told.is_empty(), "there are no pods");
    Ok((ok, told.join("\n")))
}

/// The rules in the kernel are exactly those planned for the pod.
pub(super) async fn rules(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let flags =
        ["-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-b", "*"];
    let ports = ["-d", "15090,15021,15020", "-o", "15020", "--redirect-dns", "--capture-all-dns"];
    let verify = [&["lateen-init", "--verify"], &flags[..], &ports[..]].concat();
    let mut stand = 0;
    let meshed = stage.pods().iter().filter(|pod| pod.containers.iter().any(|name| name == PROXY));
    for pod in meshed {
        stage.exec_root(pod, &verify).await?;
        stand += 1;
    }
    let stranger = stage.pod("stranger")?;
    let bare = stage.exec_root(&stranger, &verify).await.is_err();
    let text = format!(
        "verified in {stand} pods; the stranger has {}",
        if bare { "none" } else { "some!" }
    );
    Ok((stand > 0 && bare, text))
}
