//! Compiles the shop's schemas into Rust types. protox does it in-process, so no `protoc` has to be installed.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let (examples, proto, third_party) = (root.join("proto/examples"), root.join("proto"), root.join("third_party"));
    println!("cargo:rerun-if-changed={}", examples.display());
    let mut files = protox::compile(["shop/v1/shop.proto", "shop/v2/shop.proto"], [examples, proto, third_party])?;
    // Options are not part of the messages, so what they import needs no Rust types.
    files.file.retain(|file| file.name().starts_with("shop/"));
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
