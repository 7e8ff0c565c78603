//! The access log: Istio's default line, in a file.
//!
//! Knows the format that tools in the field parse; whether there is a log at all is the mesh
//! configuration's decision.

use envoy_types::pb::envoy::config::accesslog::v3::access_log::ConfigType;
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ResponseFlagFilter,
};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use envoy_types::pb::google::protobuf::Struct;

use super::canonical::FILE_LOG;
use super::pack::{any_with, structure, text};

/// The line Istio writes when nothing else is asked for.
pub(crate) const DEFAULT_FORMAT: &str = concat!(
    r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" "#,
    r#"%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% "#,
    r#"%CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" "#,
    r#"%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "#,
    r#""%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "#,
    r#""%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% "#,
    r#"%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% "#,
    r#"%REQUESTED_SERVER_NAME% %ROUTE_NAME%"#,
    "\n"
);

/// The fields of the JSON form and their operators.
const JSON_FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// How the access log is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// File, such as `/dev/stdout`; empty writes none.
    pub file: String,
    /// Format; empty is the default line.
    pub format: String,
    /// Writes JSON with the default fields instead of text.
    pub json: bool,
}

/// The access log of a filter; empty where none is asked for.
pub(crate) fn logs(settings: &AccessLogSettings) -> Vec<AccessLog> {
    file_log(settings).into_iter().collect()
}

/// The log of a listener: only connections for which there was no filter chain.
pub(crate) fn listener_logs(settings: &AccessLogSettings) -> Vec<AccessLog> {
    let filter = AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".to_owned()],
        })),
    };
    file_log(settings).map(|log| AccessLog { filter: Some(filter), ..log }).into_iter().collect()
}

fn file_log(settings: &AccessLogSettings) -> Option<AccessLog> {
    if settings.file.is_empty() {
        return None;
    }
    let format = if settings.json {
        Format::JsonFormat(json_format())
    } else {
        let line = if settings.format.is_empty() { DEFAULT_FORMAT } else { &settings.format };
        Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(line.to_owned())),
            ..DataSource::default()
        })
    };
    let log = FileAccessLog {
        path: settings.file.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(format),
            ..SubstitutionFormatString::default()
        })),
    };
    Some(AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: None,
        config_type: Some(ConfigType::TypedConfig(any_with(&log, &FILE_LOG))),
    })
}

fn json_format() -> Struct {
    structure(JSON_FIELDS.iter().map(|(name, operator)| ((*name).to_owned(), text(*operator))))
}

#[cfg(test)]
mod tests {
    use super::{AccessLogSettings, DEFAULT_FORMAT, listener_logs, logs};

    #[test]
    fn the_default_line_has_its_operators_and_an_end() {
        assert_eq!(DEFAULT_FORMAT.matches('%').count(), 48);
        assert!(DEFAULT_FORMAT.ends_with("%ROUTE_NAME%\n"));
    }

    #[test]
    fn no_file_means_no_log() {
        assert!(logs(&AccessLogSettings::default()).is_empty());
        let settings = AccessLogSettings { file: "/dev/stdout".into(), ..Default::default() };
        assert!(logs(&settings)[0].filter.is_none());
        assert!(listener_logs(&settings)[0].filter.is_some());
    }

    #[test]
    fn json_is_the_same_each_time() {
        let settings = AccessLogSettings { file: "a".into(), json: true, ..Default::default() };
        let first = logs(&settings);
        assert!((0..20).all(|_| logs(&settings) == first));
    }
}
