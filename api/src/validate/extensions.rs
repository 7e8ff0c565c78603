//! Checks of `WasmPlugin` and `TrafficExtension`: where a module is, and what it is given.

use std::collections::BTreeSet;

use super::attachment::{self, Attachment};
use super::{Remarks, fields};
use crate::extensions::{
    TrafficExtension, TrafficMatch, ValueFrom, VmConfig, VmVariable, Wasm, WasmPlugin,
};
use crate::url;

/// Longest script.
const MAX_SCRIPT: usize = 65_536;
/// Most environment variables of a module.
const MAX_VARIABLES: usize = 256;
/// Longest value of one.
const MAX_VALUE: usize = 2048;
/// Longest name of a Secret.
const MAX_SECRET: usize = 253;
/// Longest name of a plugin or variable.
const MAX_NAME: usize = 256;
/// Length of a hash, in hexadecimal digits.
const HASH_DIGITS: usize = 64;

/// Checks a WasmPlugin.
pub(super) fn check_plugin(spec: &WasmPlugin, remarks: &mut Remarks) {
    let (selector, target_ref) = (spec.selector.as_ref(), spec.target_ref.as_ref());
    attachment::check(remarks, Attachment { selector, target_ref, target_refs: &spec.target_refs });
    let wanted = Module {
        url: &spec.url,
        sha256: &spec.sha256,
        image_pull_secret: spec.image_pull_secret.as_deref(),
        plugin_name: spec.plugin_name.as_deref(),
        vm_config: spec.vm_config.as_ref(),
    };
    module(remarks, "spec", &wanted);
    matches(remarks, &spec.matches);
}

/// Checks a TrafficExtension.
pub(super) fn check_extension(spec: &TrafficExtension, remarks: &mut Remarks) {
    let selector = spec.selector.as_ref();
    attachment::check(
        remarks,
        Attachment { selector, target_ref: None, target_refs: &spec.target_refs },
    );
    if spec.wasm.is_some() == spec.lua.is_some() {
        remarks.error("spec", "exactly one of wasm and lua is needed");
    }
    if let Some(Wasm { url, sha256, image_pull_secret, plugin_name, vm_config, .. }) = &spec.wasm {
        let wanted = Module {
            url,
            sha256,
            image_pull_secret: image_pull_secret.as_deref(),
            plugin_name: plugin_name.as_deref(),
            vm_config: vm_config.as_ref(),
        };
        module(remarks, "spec.wasm", &wanted);
    }
    if let Some(lua) = &spec.lua {
        fields::needed(remarks, "spec.lua.inlineCode", &lua.inline_code, MAX_SCRIPT);
    }
    matches(remarks, &spec.matches);
}

/// What both kinds say of a module.
struct Module<'a> {
    url: &'a str,
    sha256: &'a str,
    image_pull_secret: Option<&'a str>,
    plugin_name: Option<&'a str>,
    vm_config: Option<&'a VmConfig>,
}

fn module(remarks: &mut Remarks, path: &str, module: &Module<'_>) {
    location(remarks, &format!("{path}.url"), module.url);
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let hash = module.sha256;
    if !hash.is_empty() && (hash.len() != HASH_DIGITS || !hash.bytes().all(digit)) {
        let message = format!("must be {HASH_DIGITS} of 0-9 and a-f");
        remarks.error(format!("{path}.sha256"), message);
    }
    if let Some(secret) = module.image_pull_secret {
        fields::needed(remarks, &format!("{path}.imagePullSecret"), secret, MAX_SECRET);
    }
    if let Some(name) = module.plugin_name {
        fields::needed(remarks, &format!("{path}.pluginName"), name, MAX_NAME);
    }
    if let Some(config) = module.vm_config {
        variables(remarks, &format!("{path}.vmConfig.env"), &config.env);
    }
}

/// A URL; what has no scheme is an image.
fn location(remarks: &mut Remarks, path: &str, text: &str) {
    if text.is_empty() {
        return remarks.error(path, "a URL is needed");
    }
    let scheme = url::scheme(text).or_else(|_| url::scheme(&format!("http://{text}")));
    match scheme.as_deref() {
        Ok("" | "file" | "http" | "https" | "oci") => {}
        Ok(other) => {
            let message = format!("scheme `{other}` is none of oci, file, http and https");
            remarks.error(path, message);
        }
        Err(reason) => remarks.error(path, format!("`{text}` is not a URL: {reason}")),
    }
}

fn variables(remarks: &mut Remarks, path: &str, variables: &[VmVariable]) {
    if variables.len() > MAX_VARIABLES {
        remarks.error(path, format!("more than {MAX_VARIABLES} variables"));
    }
    let mut names = BTreeSet::new();
    for (index, VmVariable { name, value_from, value }) in variables.iter().enumerate() {
        let path = format!("{path}[{index}]");
        fields::needed(remarks, &format!("{path}.name"), name, MAX_NAME);
        if !names.insert(name) {
            remarks.error(format!("{path}.name"), format!("`{name}` is there twice"));
        }
        let value_path = format!("{path}.value");
        if *value_from == ValueFrom::Host && value.is_some() {
            remarks.error(&value_path, "has no meaning with valueFrom HOST");
        }
        fields::at_most(remarks, &value_path, value.as_deref().unwrap_or_default(), MAX_VALUE);
    }
}

fn matches(remarks: &mut Remarks, matches: &[TrafficMatch]) {
    for (index, it) in matches.iter().enumerate() {
        let mut numbers = BTreeSet::new();
        for (place, port) in it.ports.iter().enumerate() {
            let path = format!("spec.match[{index}].ports[{place}].number");
            fields::port(remarks, &path, port.number);
            if !numbers.insert(port.number) {
                remarks.error(path, format!("port {} is there twice", port.number));
            }
        }
    }
}
