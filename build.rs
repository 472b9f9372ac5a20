//! Compiles `proto/trestle/v1` for `crates/trestle-wire`, which names this file as its build script.
//! protox does it in-process, so no `protoc` has to be installed.

use std::{env, error::Error, path::PathBuf};

use prost::Message;

const FILES: &[&str] = &[
    "trestle/v1/envelope.proto",
    "trestle/v1/errors.proto",
    "trestle/v1/client.proto",
    "trestle/v1/options.proto",
    "trestle/v1/bridge.proto",
    "trestle/v1/admin.proto",
    "trestle/v1/bus.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let proto = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", proto.join("trestle").display());

    let files = protox::compile(FILES, [&proto])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(out.join("trestle.v1.binpb"), files.encode_to_vec())?;

    // The gRPC stubs need tonic; crates without I/O do without them.
    let grpc = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .bytes(".")
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}
