//! What an operator can say about telemetry.

use std::{env, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, logs};

/// Where OpenTelemetry's specification has the collector's address.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Logs and traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// OpenTelemetry collector that gets the traces, by gRPC: `http://host:4317`, or `https://` for TLS with the system's
    /// roots. Default none: no spans are recorded, and trace contexts pass through untouched. Where this is not set, the
    /// environment's `OTEL_EXPORTER_OTLP_ENDPOINT` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Share of the messages that are traced, from 0 to 1. Default 0.01: at 10,000 messages a second that is 100 traces of
    /// about seven spans, well below what one collector takes. A client's own sampled flag is not believed, a service's is.
    pub sample_ratio: f64,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, or by target: `info,trestle_edge=debug`. Default
    /// `info`: starts, stops, faults and what an operator must act on; nothing per message.
    pub log_level: String,
    /// Form of the log on stderr: `text` for people, `json` for machines, one object a line. Default `text`.
    pub log_format: LogFormat,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 0.01, log_level: "info".into(), log_format: LogFormat::Text }
    }
}

impl TelemetryConfig {
    /// The collector's address: the config's, else the environment's.
    #[must_use]
    pub fn endpoint(&self) -> Option<String> {
        self.otlp_endpoint.clone().or_else(|| env::var(ENDPOINT_VARIABLE).ok()).filter(|endpoint| !endpoint.is_empty())
    }

    /// Everything that is wrong with it, a sentence each, by its key.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let ratio = (!(0.0..=1.0).contains(&self.sample_ratio)).then_some(Error::SampleRatio(self.sample_ratio));
        let level = logs::filter(self).err();
        ratio.into_iter().chain(level).map(|error| error.to_string()).collect()
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, UnknownLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownLogFormat(text.into())),
        }
    }
}

/// Neither `text` nor `json`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log format {0:?} is neither text nor json")]
pub struct UnknownLogFormat(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_refused_by_its_name() {
        let refused = serde_json::from_str::<TelemetryConfig>(r#"{"sample_rate": 0.5}"#).expect_err("unknown key");
        assert!(refused.to_string().contains("sample_rate"), "{refused}");
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let config = TelemetryConfig { sample_ratio: -0.1, log_level: "x=loud".into(), ..TelemetryConfig::default() };
        let faults = config.faults();
        assert!(faults[0].contains("telemetry.sample_ratio -0.1"), "{faults:?}");
        assert!(faults[1].contains("telemetry.log_level \"x=loud\""), "{faults:?}");
        assert_eq!(TelemetryConfig::default().faults(), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config: TelemetryConfig = serde_json::from_str(r#"{"log_format": "json"}"#).expect("valid");
        assert_eq!(config, TelemetryConfig { log_format: LogFormat::Json, ..TelemetryConfig::default() });
    }

    #[test]
    fn a_log_format_is_written_as_it_is_read() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
