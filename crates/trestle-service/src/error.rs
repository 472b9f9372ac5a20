//! What can go wrong for a service.

use trestle_wire::v1;

/// Why a service stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The endpoint is not a URI.
    #[error("{endpoint:?} is not the address of a gateway")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What the parser says.
        #[source]
        source: tonic::transport::Error,
    },
    /// The gateway does not take this service, and will not later: no route names it, or a type is not routed to it.
    #[error("the gateway refused to attach the service: {reason}: {message}")]
    Refused {
        /// The stable word, such as `unknown_service`.
        reason: String,
        /// The gateway's sentence.
        message: String,
    },
}

/// Why a push did not go out, or is not known to have.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PushError {
    /// The gateway refused it; [`v1::Error::retryable`] says whether it may succeed later.
    #[error("the gateway refused the push: {}: {}", .0.reason, .0.message)]
    Refused(v1::Error),
    /// The stream ended before its answer came: it may have gone out.
    #[error("the connection to the gateway was lost before the push was answered")]
    Lost,
    /// The call failed.
    #[error("the gateway could not be called: {}", .0.message())]
    Call(#[source] tonic::Status),
}

impl From<tonic::Status> for PushError {
    /// A refusal if the gateway says so, else a failed call.
    fn from(status: tonic::Status) -> Self {
        let text = |key| status.metadata().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
        match text("trestle-reason") {
            Some(reason) => Self::Refused(v1::Error {
                code: status.code() as i32,
                reason,
                message: status.message().to_owned(),
                field: text("trestle-field").unwrap_or_default(),
                retryable: text("trestle-retryable").as_deref() == Some("true"),
                retry_after: None,
            }),
            None => Self::Call(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_the_gateway_is_a_refusal_and_any_other_a_failed_call() {
        let mut status = tonic::Status::not_found("there is no channel namespace \"x\"");
        assert!(matches!(PushError::from(status.clone()), PushError::Call(_)));
        let metadata = status.metadata_mut();
        metadata.insert("trestle-reason", "unknown_namespace".parse().expect("ASCII"));
        metadata.insert("trestle-retryable", "false".parse().expect("ASCII"));
        match PushError::from(status) {
            PushError::Refused(error) => {
                assert_eq!((error.code(), error.reason.as_str()), (v1::Code::NotFound, "unknown_namespace"));
                assert!(!error.retryable);
            }
            other => panic!("not refused but {other:?}"),
        }
    }
}
