//! The company's message types, loaded at run time: catalogue, versions, routes, JSON transcoding, validation.
//!
//! A [`SchemaSource`] (a folder of `.proto` files, a descriptor set, or files in memory) becomes one immutable
//! [`Catalogue`] of [`MessageType`]s, or a list of all its [`Faults`]. [`Schemas`] holds the catalogue in use and replaces
//! it whole. Nothing here knows sockets, the bus or the time.
//!
//! | station | file | in -> out |
//! | --- | --- | --- |
//! | read | `source.rs` | folder, set or texts -> parsed files |
//! | compile | `compile.rs` | parsed files -> descriptors |
//! | catalogue | `catalogue.rs` | descriptors -> types by name, alias and version |
//! | route | `route.rs` | type -> service, transport, subject |
//! | queue | `queueing.rs`, `key_path.rs` | type -> what a slow client's outbox does, and by which field |
//! | plan | `plan.rs` | descriptors -> the tables that the next three walk |
//! | transcode | `json_to_protobuf.rs`, `protobuf_to_json.rs` | canonical JSON <-> wire bytes, in one pass |
//! | check | `well_formed.rs`, `validate/` | wire bytes -> yes, or what is wrong |
//! | reload | `schemas.rs`, `compatibility.rs` | the set in use + a new one -> the new one, or why not |

mod bits;
mod builtin;
mod catalogue;
mod compatibility;
mod compile;
mod fault;
mod json_number;
mod json_path;
mod json_reader;
mod json_text;
mod json_to_protobuf;
mod key_path;
mod map_entry;
mod message_type;
mod misfit;
mod option;
mod plan;
mod protobuf_to_json;
mod queueing;
pub mod route;
mod schemas;
mod source;
mod suggest;
mod validate;
mod version;
mod well_formed;
mod well_known;
mod wire;
mod wire_writer;

pub use catalogue::Catalogue;
pub use fault::{Fault, Faults};
pub use key_path::KeyPath;
pub use message_type::MessageType;
pub use queueing::Queueing;
pub use route::Route;
pub use schemas::Schemas;
pub use source::SchemaSource;
pub use well_known::{check_timestamp, parse_timestamp};
