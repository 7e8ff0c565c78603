//! Access logs.

use super::field::{inline, type_name, unpack};
use super::{At, Refusal};
use crate::config::{AccessLog, LogFormat};
use envoy_types::pb::envoy::config::accesslog::v3::AccessLog as Proto;
use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::core::v3::SubstitutionFormatString;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::value::Kind;

/// Istio's default format, byte for byte.
pub(super) const DEFAULT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

pub(super) fn access_log(proto: &Proto) -> Result<AccessLog, Refusal> {
    let flags = match proto.filter.as_ref().map(|filter| filter.filter_specifier.as_ref()) {
        None => Vec::new(),
        Some(Some(FilterSpecifier::ResponseFlagFilter(filter))) if !filter.flags.is_empty() => {
            filter.flags.clone()
        }
        Some(_) => {
            return Err(Refusal::new("only a response flag filter with flags is supported"))
                .at("filter");
        }
    };
    let Some(ConfigType::TypedConfig(any)) = &proto.config_type else {
        return Err(Refusal::new("typed_config is needed"));
    };
    if type_name(any) != "envoy.extensions.access_loggers.file.v3.FileAccessLog" {
        return Err(Refusal::new(format!("unknown extension {}", type_name(any))));
    }
    let file: FileAccessLog = unpack(any)?;
    if file.path.is_empty() {
        return Err(Refusal::new("must not be empty")).at("typed_config.path");
    }
    let format = format(&file).at("typed_config")?;
    Ok(AccessLog { path: file.path, format, flags })
}

#[expect(deprecated, reason = "control planes still send the older forms of the format")]
fn format(file: &FileAccessLog) -> Result<LogFormat, Refusal> {
    match &file.access_log_format {
        None => Ok(LogFormat::Text(DEFAULT_FORMAT.to_owned())),
        Some(AccessLogFormat::Format(text)) => Ok(text_format(text)),
        Some(AccessLogFormat::JsonFormat(fields) | AccessLogFormat::TypedJsonFormat(fields)) => {
            json(fields).at("json_format")
        }
        Some(AccessLogFormat::LogFormat(format)) => substitution(format).at("log_format"),
    }
}

fn substitution(format: &SubstitutionFormatString) -> Result<LogFormat, Refusal> {
    for (i, formatter) in format.formatters.iter().enumerate() {
        let known = formatter.typed_config.as_ref().is_some_and(|any| {
            type_name(any) == "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery"
        });
        if !known {
            let name = formatter.typed_config.as_ref().map_or(formatter.name.as_str(), type_name);
            return Err(Refusal::new(format!("unknown extension {name}")))
                .at_index("formatters", i);
        }
    }
    match &format.format {
        None => Ok(LogFormat::Text(DEFAULT_FORMAT.to_owned())),
        Some(Format::TextFormatSource(source)) => {
            let bytes = inline(source).at("text_format_source")?;
            let text = std::str::from_utf8(bytes)
                .map_err(|_| Refusal::new("is not UTF-8"))
                .at("text_format_source")?;
            Ok(text_format(text))
        }
        Some(Format::JsonFormat(fields)) => json(fields).at("json_format"),
        #[expect(deprecated, reason = "the older form of text_format_source")]
        Some(Format::TextFormat(text)) => Ok(text_format(text)),
    }
}

fn text_format(text: &str) -> LogFormat {
    LogFormat::Text(if text.is_empty() { DEFAULT_FORMAT.to_owned() } else { text.to_owned() })
}

/// One flat JSON object, its keys in order.
fn json(fields: &Struct) -> Result<LogFormat, Refusal> {
    let mut out = Vec::with_capacity(fields.fields.len());
    for (key, value) in &fields.fields {
        match &value.kind {
            Some(Kind::StringValue(text)) => out.push((key.clone(), text.clone())),
            _ => return Err(Refusal::new("only text values are supported")).at(key),
        }
    }
    out.sort();
    Ok(LogFormat::Json(out))
}
