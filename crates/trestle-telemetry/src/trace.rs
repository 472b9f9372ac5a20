//! Traces of messages: W3C contexts, the decision to sample, spans.
//!
//! A message's context travels in its envelope's headers (`traceparent`, [W3C Trace Context]); `tracestate` passes
//! through untouched. Every station tests the sampled bit before it builds anything, so that a message which is not
//! sampled costs a few nanoseconds a station.
//!
//! [W3C Trace Context]: https://www.w3.org/TR/trace-context/

mod context;
mod tracer;

pub use context::{TRACEPARENT, TraceContext};
pub use tracer::{Kind, Span, Tracer};
