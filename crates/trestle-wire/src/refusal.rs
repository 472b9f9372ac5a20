//! The one table of what can be refused: reason, code, gRPC status, HTTP status, close code and advice.

use std::{fmt, time::Duration};

use crate::{CloseCode, v1};

/// A refusal on its way to whoever caused it.
///
/// Its sentence is for the person on the other side; what an operator reads is logged where it happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The row of the table.
    pub reason: Reason,
    /// What was wrong with this input, and what to do.
    pub message: String,
    /// Path of the offending field, where there is one.
    pub field: Option<String>,
    /// How long to wait before trying again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal for `reason` with its sentence.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), field: None, retry_after: None }
    }

    /// Names the offending field.
    #[must_use]
    pub fn field(mut self, path: impl Into<String>) -> Self {
        self.field = Some(path.into());
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The class of the fault.
    #[must_use]
    pub fn code(&self) -> v1::Code {
        self.reason.row().code
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{}: {}: {}", self.reason, field, self.message),
            None => write!(f, "{}: {}", self.reason, self.message),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for v1::Error {
    fn from(refusal: Refusal) -> Self {
        let row = refusal.reason.row();
        Self {
            code: row.code.into(),
            reason: row.word.to_owned(),
            message: refusal.message,
            field: refusal.field.unwrap_or_default(),
            retryable: row.retryable,
            retry_after: refusal.retry_after.and_then(|wait| prost_types::Duration::try_from(wait).ok()),
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The stable word for programs.
    pub word: &'static str,
    /// The class of the fault.
    pub code: v1::Code,
    /// Whether the same input may succeed later.
    pub retryable: bool,
    /// The close code, where the connection does not survive it.
    pub close: Option<CloseCode>,
    /// What to do about it.
    pub advice: &'static str,
}

macro_rules! reasons {
    ($($name:ident $word:literal $code:ident $retry:ident $close:expr, $advice:literal;)*) => {
        /// Why something was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $advice] $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The row of the table.
            #[must_use]
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        word: $word,
                        code: v1::Code::$code,
                        retryable: reasons!(@$retry),
                        close: $close,
                        advice: $advice,
                    },)*
                }
            }
        }
    };
    (@retry) => { true };
    (@final) => { false };
}

reasons! {
    MalformedFrame "malformed_frame" InvalidArgument final None, "The WebSocket message is not a frame of its subprotocol. The message says where it breaks.";
    EmptyFrame "empty_frame" InvalidArgument final None, "The frame carries nothing that this gateway knows. Send one of the frames of trestle.v1.ClientFrame.";
    TooManyFrames "too_many_frames" InvalidArgument final None, "One WebSocket message holds too many frames. Split the batch.";
    TooDeep "too_deep" InvalidArgument final None, "The JSON or the message is nested too deeply. Flatten it.";
    MalformedPayload "malformed_payload" InvalidArgument final None, "The payload is not a message of its type. `field` says where.";
    RuleViolated "rule_violated" InvalidArgument final None, "The payload breaks a buf.validate rule of its type. `field` names it.";
    ReservedField "reserved_field" InvalidArgument final None, "The gateway sets this field. Leave it out.";
    InvalidChannel "invalid_channel" InvalidArgument final None, "The channel name breaks the rule `namespace:rest`. The message says how.";
    InvalidHeader "invalid_header" InvalidArgument final None, "A header's key or value breaks the rules, or there are too many. The message says which.";
    InvalidId "invalid_id" InvalidArgument final None, "The id of the envelope is too long or has control characters.";
    InvalidTimeout "invalid_timeout" InvalidArgument final None, "The timeout is negative, zero or malformed.";
    InvalidTarget "invalid_target" InvalidArgument final None, "The push names no target, or a name that breaks its rule.";
    InvalidTag "invalid_tag" InvalidArgument final None, "A tag's key or value breaks the rules, or there are too many. The message says which.";
    InvalidSelector "invalid_selector" InvalidArgument final None, "The selector over tags cannot be read. The message says where.";
    NoHistory "no_history" FailedPrecondition final None, "The channel's namespace keeps no history. Add `history` to its table.";
    NoPresence "no_presence" FailedPrecondition final None, "The channel's namespace has no presence. Set `presence` in its table.";
    NoInbox "no_inbox" FailedPrecondition final None, "Only users have an inbox, and only their own. Connect with a token.";
    UnknownNode "unknown_node" NotFound final None, "No node of that name lives. `trestle nodes` lists them.";
    InvalidName "invalid_name" InvalidArgument final None, "A service's or instance's name breaks its rule.";
    UnknownDelivery "unknown_delivery" InvalidArgument final None, "The delivery was never sent on this stream, or was answered already.";
    FrameTooLarge "frame_too_large" InvalidArgument final Some(CloseCode::TooBig), "The WebSocket message is larger than `frame_bytes_max`. Send less at once.";
    WrongOpcode "wrong_opcode" InvalidArgument final Some(CloseCode::Unsupported), "Text on the protobuf subprotocol, or binary on JSON. Choose the other subprotocol.";
    InvalidUtf8 "invalid_utf8" InvalidArgument final Some(CloseCode::InvalidText), "A text message must be UTF-8 (RFC 6455, 8.1).";
    ProtocolError "protocol_error" InvalidArgument final Some(CloseCode::Protocol), "The client broke RFC 6455.";
    TooManyFaults "too_many_faults" ResourceExhausted final Some(CloseCode::TooManyFaults), "Too many faulty frames in a row on one connection. Mend the client.";
    UnknownType "unknown_type" NotFound final None, "No schema of this gateway has that message type or alias. `trestle routes` lists them.";
    UnknownVersion "unknown_version" NotFound final None, "The type exists, but not in that version. The message lists those that do.";
    NoRoute "no_route" NotFound final None, "The type has no trestle.v1.route, so no service takes it. Publish it on a channel, or add the option.";
    UnknownNamespace "unknown_namespace" NotFound final None, "No channel namespace of that name is configured. Add a table `channels.namespaces.NAME`.";
    UnknownService "unknown_service" NotFound final None, "No route names that service. `trestle routes` lists them.";
    NotARequest "not_a_request" FailedPrecondition final None, "Only requests are answered with a reply; ack this delivery instead.";
    ChannelSubscribe "channel_subscribe" PermissionDenied final None, "The namespace's policy does not let this client subscribe.";
    ChannelPublish "channel_publish" PermissionDenied final None, "The namespace's policy does not let this client publish.";
    MissingScope "missing_scope" PermissionDenied final None, "The type's route asks for scopes that the token does not have.";
    OriginDenied "origin_denied" PermissionDenied final None, "The page's origin is not in `edge.origins`.";
    ApiNotAllowed "api_not_allowed" PermissionDenied final None, "The HTTP API is not open to this address. Call it from the gateway's machine, or see `http_api`.";
    TokenMissing "token_missing" Unauthenticated final Some(CloseCode::Unauthenticated), "Anonymous clients are not allowed here. Send a token in `connect`, the Authorization header or `access_token`.";
    TokenInvalid "token_invalid" Unauthenticated final Some(CloseCode::Unauthenticated), "The token's signature, form or claims are wrong.";
    TokenExpired "token_expired" Unauthenticated final Some(CloseCode::Unauthenticated), "The token has expired. Get a new one.";
    AlreadyConnected "already_connected" FailedPrecondition final None, "`connect` comes once, as the first frame.";
    ConnectTimeout "connect_timeout" DeadlineExceeded retry Some(CloseCode::ConnectTimeout), "No frame came in time after the upgrade.";
    AlreadySubscribed "already_subscribed" AlreadyExists final None, "The session listens to that channel already.";
    NotSubscribed "not_subscribed" FailedPrecondition final None, "The session does not listen to that channel.";
    HelloExpected "hello_expected" FailedPrecondition final None, "The first frame on Attach is `hello`, once.";
    TooManySubscriptions "too_many_subscriptions" ResourceExhausted final None, "The session has reached `subscriptions_max`. Unsubscribe from something.";
    TooManyRequests "too_many_requests" ResourceExhausted retry None, "Too many requests and acks of this session are outstanding. Wait for answers.";
    TooManyConnections "too_many_connections" ResourceExhausted retry None, "The node has reached `connections_max`. Try another node.";
    SlowClient "slow_client" ResourceExhausted retry Some(CloseCode::Slow), "The client reads slower than its outbox fills. Reconnect and read faster.";
    PayloadTooLarge "payload_too_large" ResourceExhausted final None, "The message is larger than the bus takes. Send a smaller one, or a reference.";
    NoCredit "no_credit" ResourceExhausted retry None, "Every instance of the service is at its `max_in_flight`. Try again, or add instances.";
    WorkFull "work_full" ResourceExhausted retry None, "The log of work that no service has done yet is full. Nothing was accepted; try again, or add instances.";
    BusAway "bus_away" Unavailable retry None, "The bus is not connected. Nothing was accepted; try again.";
    NoInstance "no_instance" Unavailable retry None, "No instance of the service is attached that takes this type and version.";
    InstanceLost "instance_lost" Unavailable retry None, "The instance that had the request went away. It may have been done.";
    Declined "declined" Unavailable retry None, "The service did not do it (nack).";
    Draining "draining" Unavailable retry Some(CloseCode::Restart), "The gateway is about to stop. Reconnect, to another node if there is one.";
    TooBusy "too_busy" Unavailable retry Some(CloseCode::Busy), "The node takes no more clients in this moment. Come again after `retry_after`.";
    AnswerLost "answer_lost" Unavailable retry None, "The answer to this frame was lost with a node. It may have been done: repeat it with the same envelope id.";
    Timeout "timeout" DeadlineExceeded retry None, "The time allowed is over. It may have been done.";
    ReplyInvalid "reply_invalid" Internal final None, "The service's reply is of an unknown type or does not fit it.";
    ReloadRefused "reload_refused" FailedPrecondition final None, "The new schemas have faults; the old ones stay in use.";
    Internal "internal" Internal retry None, "A fault of the gateway. Its log says more.";
}

impl Reason {
    /// The reason with that word; `None` for a service's own, and for one of another version.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.row().word == word)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().word)
    }
}

/// The HTTP status of a code, as google.rpc.Code has it.
#[must_use]
pub const fn http_status(code: v1::Code) -> u16 {
    match code {
        v1::Code::Unspecified => 200,
        v1::Code::Cancelled => 499,
        v1::Code::Unknown | v1::Code::Internal => 500,
        v1::Code::InvalidArgument | v1::Code::FailedPrecondition => 400,
        v1::Code::DeadlineExceeded => 504,
        v1::Code::NotFound => 404,
        v1::Code::AlreadyExists => 409,
        v1::Code::PermissionDenied => 403,
        v1::Code::ResourceExhausted => 429,
        v1::Code::Unavailable => 503,
        v1::Code::Unauthenticated => 401,
    }
}

/// The table as `docs/errors.md` prints it.
#[must_use]
pub fn markdown() -> String {
    use fmt::Write as _;
    let mut page = String::from(
        "# Errors\n\nPrinted from `crates/trestle-wire/src/refusal.rs` by `trestle errors`; a test compares the two.\n\
         The code is gRPC's status of the same name; HTTP answers carry the status beside it.\n\
         `retry` means that the same input may succeed later.\n\n\
         | reason | code | HTTP | close | retry | what to do |\n| --- | --- | --: | --: | --- | --- |\n",
    );
    for reason in Reason::ALL {
        let row = reason.row();
        let close = row.close.map_or(String::new(), |close| close.number().to_string());
        let retry = if row.retryable { "yes" } else { "" };
        let (word, code, http, advice) = (row.word, row.code.as_str_name(), http_status(row.code), row.advice);
        let _ = writeln!(page, "| `{word}` | {code} | {http} | {close} | {retry} | {advice} |");
    }
    page.push_str("\n## Close codes\n\n4000-4499: reconnect; 4500-4999: do not.\n\n");
    page.push_str("| code | reconnect | reason sent |\n| --: | --- | --- |\n");
    for close in CloseCode::ALL {
        let reconnect = if close.reconnect() { "yes" } else { "" };
        let _ = writeln!(page, "| {} | {reconnect} | {} |", close.number(), close.reason());
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.row().word).collect();
        assert_eq!(words.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| Reason::of_word(reason.row().word) == Some(*reason)));
        assert_eq!(Reason::of_word("a_services_own"), None);
    }

    #[test]
    fn a_refusal_becomes_an_error_with_its_row() {
        let refusal = Refusal::new(Reason::BusAway, "no bus").retry_after(Duration::from_millis(1500));
        let error = v1::Error::from(refusal);
        assert_eq!(error.code(), v1::Code::Unavailable);
        assert_eq!((error.reason.as_str(), error.retryable), ("bus_away", true));
        assert_eq!(error.retry_after.map(|d| (d.seconds, d.nanos)), Some((1, 500_000_000)));
    }
}
