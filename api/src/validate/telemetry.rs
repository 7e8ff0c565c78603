//! Checks of `Telemetry`: names, tags and shares.

use super::attachment::{self, Attachment};
use super::{Remarks, fields};
use crate::telemetry::{
    AccessLogging, CustomTag, Metrics, MetricsOverride, ProviderRef, TagOperation, TagOverride,
    Telemetry, Tracing,
};

/// Checks a Telemetry.
pub(super) fn check(spec: &Telemetry, remarks: &mut Remarks) {
    let (selector, target_ref) = (spec.selector.as_ref(), spec.target_ref.as_ref());
    attachment::check(remarks, Attachment { selector, target_ref, target_refs: &spec.target_refs });
    if spec.tracing.len() > 1 {
        remarks.warn("spec.tracing", "only the first entry has a meaning");
    }
    for (index, it) in spec.tracing.iter().enumerate() {
        tracing(remarks, &format!("spec.tracing[{index}]"), it);
    }
    for (index, it) in spec.metrics.iter().enumerate() {
        metrics(remarks, &format!("spec.metrics[{index}]"), it);
    }
    for (index, it) in spec.access_logging.iter().enumerate() {
        access_logging(remarks, &format!("spec.accessLogging[{index}]"), it);
    }
}

fn providers(remarks: &mut Remarks, path: &str, providers: &[ProviderRef]) {
    for (index, provider) in providers.iter().enumerate() {
        let path = format!("{path}.providers[{index}].name");
        remarks.refuse_unless(!provider.name.is_empty(), &path, "a name is needed");
    }
}

fn tracing(remarks: &mut Remarks, path: &str, tracing: &Tracing) {
    providers(remarks, path, &tracing.providers);
    if tracing.providers.len() > 1 {
        remarks.warn(format!("{path}.providers"), "only the first provider has a meaning");
    }
    if tracing.random_sampling_percentage.is_some_and(|share| !(0.0..=100.0).contains(&share)) {
        remarks.error(format!("{path}.randomSamplingPercentage"), "must be 0 to 100");
    }
    for (name, it) in &tracing.custom_tags {
        let path = format!("{path}.customTags.{name}");
        remarks.refuse_unless(!name.is_empty(), &path, "a tag needs a name");
        tag(remarks, &path, it);
    }
}

fn tag(remarks: &mut Remarks, path: &str, tag: &CustomTag) {
    let given = [
        tag.literal.is_some(),
        tag.environment.is_some(),
        tag.header.is_some(),
        tag.formatter.is_some(),
    ];
    if given.iter().filter(|is| **is).count() > 1 {
        remarks.error(path, "literal, environment, header and formatter exclude each other");
    }
    let texts = [("literal", &tag.literal), ("formatter", &tag.formatter)];
    for (name, text) in texts {
        let empty = text.as_ref().is_some_and(|it| it.value.is_empty());
        remarks.refuse_unless(!empty, &format!("{path}.{name}.value"), "a value is needed");
    }
    for (name, source) in [("environment", &tag.environment), ("header", &tag.header)] {
        let empty = source.as_ref().is_some_and(|it| it.name.is_empty());
        remarks.refuse_unless(!empty, &format!("{path}.{name}.name"), "a name is needed");
    }
}

fn metrics(remarks: &mut Remarks, path: &str, metrics: &Metrics) {
    providers(remarks, path, &metrics.providers);
    fields::wait(remarks, &format!("{path}.reportingInterval"), metrics.reporting_interval);
    for (index, it) in metrics.overrides.iter().enumerate() {
        overridden(remarks, &format!("{path}.overrides[{index}]"), it);
    }
}

fn overridden(remarks: &mut Remarks, path: &str, change: &MetricsOverride) {
    if let Some(matches) = &change.matches {
        let path = format!("{path}.match");
        if matches.metric.is_some() && matches.custom_metric.is_some() {
            remarks.error(&path, "metric and customMetric exclude each other");
        }
        let empty = matches.custom_metric.as_deref() == Some("");
        remarks.refuse_unless(!empty, &format!("{path}.customMetric"), "a name is needed");
    }
    for (name, it) in &change.tag_overrides {
        let path = format!("{path}.tagOverrides.{name}");
        if name.is_empty() {
            remarks.warn(&path, "a tag without a name has no effect");
        }
        tag_override(remarks, &path, it);
    }
}

fn tag_override(remarks: &mut Remarks, path: &str, tag: &TagOverride) {
    let value = tag.value.as_deref();
    match tag.operation {
        TagOperation::Upsert if value.is_none_or(str::is_empty) => {
            remarks.error(format!("{path}.value"), "operation UPSERT needs a value");
        }
        TagOperation::Remove if value.is_some() => {
            remarks.error(format!("{path}.value"), "operation REMOVE takes no value");
        }
        TagOperation::Upsert | TagOperation::Remove => {}
    }
}

fn access_logging(remarks: &mut Remarks, path: &str, logging: &AccessLogging) {
    providers(remarks, path, &logging.providers);
    let empty = logging.filter.as_ref().is_some_and(|filter| filter.expression.is_empty());
    remarks.refuse_unless(!empty, &format!("{path}.filter.expression"), "an expression is needed");
}
