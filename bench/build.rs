//! Compiles `bench/proto`, in-process as the workspace's own `build.rs` does.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=../proto/trestle");
    let files = protox::compile(["bench/v1/bench.proto"], ["proto", "../proto"])?;
    tonic_prost_build::configure().bytes(".").extern_path(".trestle.v1", "::trestle_wire::v1").compile_fds(files)?;
    Ok(())
}
