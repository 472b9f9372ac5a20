//! A refusal as gRPC and HTTP say it: the one place where an error becomes an answer.
//!
//! gRPC: the code's own number and sentence, with the metadata `trestle-reason`, `trestle-retryable` and, where there is
//! one, `trestle-field`. HTTP: the status of [`http_status`] and `{"error":{...}}`.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use tonic::{Status, metadata::MetadataValue};
use trestle_wire::{Refusal, refusal::http_status};

/// Metadata key of the stable word for programs.
pub const REASON: &str = "trestle-reason";
/// Metadata key of the offending field's path.
pub const FIELD: &str = "trestle-field";
/// Metadata key that says whether the same input may succeed later: `true` or `false`.
pub const RETRYABLE: &str = "trestle-retryable";

/// The gRPC status of a refusal.
#[must_use]
pub fn status(refusal: &Refusal) -> Status {
    let row = refusal.reason.row();
    let mut status = Status::new(tonic::Code::from_i32(row.code as i32), refusal.message.clone());
    let metadata = status.metadata_mut();
    metadata.insert(REASON, MetadataValue::from_static(row.word));
    metadata.insert(RETRYABLE, MetadataValue::from_static(if row.retryable { "true" } else { "false" }));
    // A path names fields of a schema and keys of the input; what is not ASCII in it stays in the message only.
    if let Some(field) = refusal.field.as_deref().and_then(|field| field.parse().ok()) {
        metadata.insert(FIELD, field);
    }
    status
}

/// An HTTP answer that refuses.
#[derive(Clone, Debug)]
pub struct HttpRefusal(pub Refusal);

#[derive(Serialize)]
struct Body<'a> {
    error: ErrorBody<'a>,
}

/// `trestle.v1.Error` in canonical JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody<'a> {
    code: &'static str,
    reason: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
}

impl<'a> From<&'a Refusal> for ErrorBody<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        let row = refusal.reason.row();
        Self {
            code: row.code.as_str_name(),
            reason: row.word,
            message: &refusal.message,
            field: refusal.field.as_deref(),
            retryable: row.retryable,
            retry_after: refusal.retry_after.map(json_duration),
        }
    }
}

/// A duration in canonical JSON: seconds with up to nine digits of fraction.
fn json_duration(duration: Duration) -> String {
    let fraction = format!("{:09}", duration.subsec_nanos());
    match fraction.trim_end_matches('0') {
        "" => format!("{}s", duration.as_secs()),
        digits => format!("{}.{digits}s", duration.as_secs()),
    }
}

impl IntoResponse for HttpRefusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(http_status(self.0.code())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(Body { error: ErrorBody::from(&self.0) })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use trestle_wire::Reason;

    use super::*;

    #[test]
    fn every_reason_keeps_its_code_and_its_word_in_grpc() {
        for reason in Reason::ALL {
            let status = status(&Refusal::new(*reason, "said").field("message.payload.a"));
            assert_eq!(status.code() as i32, reason.row().code as i32, "{reason}");
            let metadata = |key| status.metadata().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
            assert_eq!(metadata(REASON).as_deref(), Some(reason.row().word));
            assert_eq!(metadata(FIELD).as_deref(), Some("message.payload.a"));
            assert_eq!(metadata(RETRYABLE), Some(reason.row().retryable.to_string()));
        }
    }

    #[test]
    fn a_field_that_no_header_can_carry_costs_only_the_field() {
        let status = status(&Refusal::new(Reason::MalformedPayload, "said").field("a\nb"));
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.metadata().get(FIELD).is_none());
    }

    #[test]
    fn durations_are_canonical_json() {
        assert_eq!(json_duration(Duration::from_millis(1500)), "1.5s");
        assert_eq!(json_duration(Duration::from_secs(3)), "3s");
    }
}
