//! What the node's programs are told by container runtimes, by each other, and by pods.

use lateen_cni::netconf::{NetConf, PodRef};
use lateen_cni::protocol::{self, Request};
use lateen_interception::RedirectPlan;
use lateen_interception::render::text::render;
use lateen_interception::settings::pod::from_pod;
use serde_json::Value;

/// Longest line the agent reads.
const MAX_LINE: usize = 64 << 10;

/// `CNI_ARGS` on the first line, the configuration behind it.
pub(crate) fn cni(input: &[u8]) {
    let split = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (arguments, configuration) = input.split_at(split);
    let _configuration = NetConf::parse(configuration);
    let Ok(arguments) = std::str::from_utf8(arguments) else { return };
    if let Ok(Some(pod)) = PodRef::parse(arguments) {
        // Names become parts of paths.
        for name in [&pod.namespace, &pod.name] {
            assert!(!name.is_empty() && !name.contains(['/', '\0']) && name != "..", "{name:?}");
        }
    }
}

/// A request is read and is the same when it is sent on.
pub(crate) fn agent(input: &[u8]) {
    let Ok(request) = protocol::receive::<Request>(input) else { return };
    let mut sent = Vec::new();
    protocol::send(&mut sent, &request).expect("a vector takes it");
    if sent.len() <= MAX_LINE {
        let again: Request = protocol::receive(sent.as_slice()).expect("what was sent is read");
        assert_eq!(request, again);
    }
}

/// Annotations are taken or refused; those that are taken give a plan that can be read.
pub(crate) fn redirect(input: &[u8]) {
    let Ok(pod) = serde_json::from_slice::<Value>(input) else { return };
    let Ok(settings) = from_pod(&pod) else { return };
    let Some(settings) = settings.settings else { return };
    let plan = RedirectPlan::new(&settings);
    assert!(!plan.is_empty() && !render(&plan).is_empty());
}
