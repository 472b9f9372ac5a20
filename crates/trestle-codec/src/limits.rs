//! How much one WebSocket message may ask of the decoder.

/// Bounds on a client's frames. The size of the whole message is bounded before, by the edge's `frame_bytes_max`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most frames in one WebSocket message.
    // 64 frames x 1 KiB, an ordinary message, fill the default frame_bytes_max of 64 KiB.
    pub frames_per_message_max: usize,
    /// Deepest nesting of a JSON frame, payload included; the frame's own braces count as 1.
    // A publish spends 3 on frame, publish and message; 29 are left for the payload. Real schemas use 5-10.
    pub json_depth_max: usize,
    /// Most headers on one envelope.
    pub headers_max: usize,
    /// Most bytes in the headers of one envelope, keys and values together.
    // 32 headers x 128 bytes. W3C asks that 512 bytes of tracestate can travel; baggage is the rest.
    pub header_bytes_max: usize,
    /// Longest `id` and `correlation_id` of an envelope, in bytes.
    // A UUID has 36, a ULID 26, a W3C trace context 55; 128 leaves room for a prefix.
    pub id_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frames_per_message_max: 64,
            json_depth_max: 32,
            headers_max: 32,
            header_bytes_max: 4096,
            id_bytes_max: 128,
        }
    }
}

/// Most channels that a resume names: what `session.subscriptions_max` is by default. A longer one would not fit a message of
/// the default `frame_bytes_max` in any case: 256 x (200 + 24) bytes are 56 KiB.
pub const RESUME_CHANNELS_MAX: usize = 256;
/// Most frames that a resume says are waiting for answers: four times the default `session.outstanding_max` of 64.
pub const RESUME_OUTSTANDING_MAX: usize = 256;
/// Most messages of a page of history: 256 x 1 KiB, an ordinary message, fill the default outbox of 256 KiB.
pub const HISTORY_LIMIT_MAX: u32 = 256;
/// Messages of a page of history when the client does not say: about two screens.
pub const HISTORY_LIMIT_DEFAULT: u32 = 50;
