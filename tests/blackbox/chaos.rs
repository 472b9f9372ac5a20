//! Faults under traffic: three nodes on three nats-servers, listeners of two kinds, speakers, services. All that was said
//! and heard is written down, and at the end [`check`] reads it.
//!
//! What is promised, whatever breaks: what was acked is heard by every listener once and in order, or a gap told it where
//! it is missing; on a channel with a history nothing is missing at all; what was acked as HANDLED was handled; who is not
//! there is not shown as present.

mod balancer;
mod check;
mod cut_off;
mod drained;
mod fleet;
mod gateway_killed;
mod json;
mod leaving;
mod listen;
mod nats_killed;
mod restarted;
mod run;
mod speak;
mod stopped_reader;
mod storm;
