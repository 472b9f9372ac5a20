//! Why a WebSocket is closed: RFC 6455's codes where they mean it; 4000-4499 reconnect, 4500-4999 do not.

/// A close code and what a client should do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1000: both sides are done.
    Normal,
    /// 1002: the client broke RFC 6455.
    Protocol,
    /// 1003: text on the binary subprotocol, or the other way round.
    Unsupported,
    /// 1007: a text message that is not UTF-8.
    InvalidText,
    /// 1009: a message larger than `frame_bytes_max`.
    TooBig,
    /// 1011: a fault of the gateway.
    Internal,
    /// 1012: the gateway restarts; reconnect, to another node if there is one.
    Restart,
    /// 4000: the client reads slower than its outbox fills; reconnect.
    Slow,
    /// 4001: no pong within `pong_timeout`; reconnect.
    Heartbeat,
    /// 4002: no `connect` within `connect_timeout`; reconnect.
    ConnectTimeout,
    /// 4003: the node takes no more clients in this moment; reconnect after the `retry_after` of the error before it.
    Busy,
    /// 4500: the token is missing, wrong or expired; get another before reconnecting.
    Unauthenticated,
    /// 4501: too many faults on one connection; do not reconnect before the client is mended.
    TooManyFaults,
    /// 4502: the session goes on on another connection; this one is done.
    Replaced,
    /// 4503: a service or an operator has ended the session.
    Kicked,
}

impl CloseCode {
    /// Every code, in the order of its number.
    pub const ALL: [Self; 15] = [
        Self::Normal,
        Self::Protocol,
        Self::Unsupported,
        Self::InvalidText,
        Self::TooBig,
        Self::Internal,
        Self::Restart,
        Self::Slow,
        Self::Heartbeat,
        Self::ConnectTimeout,
        Self::Busy,
        Self::Unauthenticated,
        Self::TooManyFaults,
        Self::Replaced,
        Self::Kicked,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::Protocol => 1002,
            Self::Unsupported => 1003,
            Self::InvalidText => 1007,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::Slow => 4000,
            Self::Heartbeat => 4001,
            Self::ConnectTimeout => 4002,
            Self::Busy => 4003,
            Self::Unauthenticated => 4500,
            Self::TooManyFaults => 4501,
            Self::Replaced => 4502,
            Self::Kicked => 4503,
        }
    }

    /// The reason sent with it; one sentence, at most 123 bytes (RFC 6455, 5.5).
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "done",
            Self::Protocol => "websocket protocol error",
            Self::Unsupported => "wrong kind of message for this subprotocol",
            Self::InvalidText => "text message is not UTF-8",
            Self::TooBig => "message larger than frame_bytes_max",
            Self::Internal => "internal error",
            Self::Restart => "gateway restarts, reconnect",
            Self::Slow => "client reads too slowly, outbox full",
            Self::Heartbeat => "no pong in time",
            Self::ConnectTimeout => "no connect frame in time",
            Self::Unauthenticated => "token missing, wrong or expired",
            Self::TooManyFaults => "too many faulty frames",
            Self::Busy => "node is busy, reconnect later",
            Self::Replaced => "session goes on on another connection",
            Self::Kicked => "session ended by the operator",
        }
    }

    /// Whether the client should connect again by itself.
    #[must_use]
    pub const fn reconnect(self) -> bool {
        matches!(
            self,
            Self::Internal | Self::Restart | Self::Slow | Self::Heartbeat | Self::ConnectTimeout | Self::Busy
        )
    }
}

#[cfg(test)]
mod tests {
    use super::CloseCode;

    #[test]
    fn private_codes_say_by_their_number_whether_to_reconnect() {
        for code in CloseCode::ALL.into_iter().filter(|code| code.number() >= 4000) {
            assert_eq!(code.reconnect(), code.number() < 4500, "{code:?}");
        }
    }

    #[test]
    fn reasons_fit_a_close_frame() {
        for code in CloseCode::ALL {
            assert!(code.reason().len() <= 123, "{code:?}");
        }
    }
}
