//! Text messages of clients.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trestle_codec::Encoding;

fuzz_target!(|message: &[u8]| trestle_fuzz::client_message(Encoding::Json, message));
