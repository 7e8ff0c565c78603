//! Images of injected containers.
//!
//! `HUB/NAME:TAG`, with the variant as suffix of the tag, or verbatim where a whole image is
//! named. Must not know containers.

use lateen_api::names::annotation;

use super::facts::Facts;

const VARIANTS: [&str; 2] = ["-distroless", "-debug"];

/// Image of the proxy.
pub(crate) fn proxy(facts: &Facts<'_>) -> String {
    image(facts, &facts.settings.values.global.proxy.image)
}

/// Image of the init container.
pub(crate) fn init(facts: &Facts<'_>) -> String {
    image(facts, &facts.settings.values.global.proxy_init.image)
}

fn image(facts: &Facts<'_>, name: &str) -> String {
    let annotated = facts.annotations.get(annotation::PROXY_IMAGE);
    if let Some(image) = annotated.filter(|image| image.contains('/')) {
        return image.clone();
    }
    if name.contains('/') {
        return name.to_owned();
    }
    let global = &facts.settings.values.global;
    let variant = facts
        .annotations
        .get(annotation::PROXY_IMAGE_TYPE)
        .map(String::as_str)
        .into_iter()
        .chain([facts.config.image_type(), global.variant.as_str()])
        .find(|variant| !variant.is_empty())
        .unwrap_or_default();
    format!("{}/{name}:{}", global.hub, tag(&global.tag, variant))
}

/// A tag of a variant; `default` is none, an empty one leaves the tag alone.
fn tag(tag: &str, variant: &str) -> String {
    if variant.is_empty() {
        return tag.to_owned();
    }
    let base = VARIANTS.iter().find_map(|suffix| tag.strip_suffix(suffix)).unwrap_or(tag);
    if variant == "default" { base.to_owned() } else { format!("{base}-{variant}") }
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn variants_replace_each_other() {
        for (base, variant, expected) in [
            ("1.2", "", "1.2"),
            ("1.2-debug", "", "1.2-debug"),
            ("1.2", "distroless", "1.2-distroless"),
            ("1.2-debug", "distroless", "1.2-distroless"),
            ("1.2-distroless", "default", "1.2"),
            ("1.2", "default", "1.2"),
        ] {
            assert_eq!(tag(base, variant), expected);
        }
    }
}
