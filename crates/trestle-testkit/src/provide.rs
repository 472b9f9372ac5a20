//! Where the real servers and tools are: installed by `provide.sh` when a test first asks for one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// The path of a server or tool; `provide.sh --list` has the names. Blocks, for minutes when it has to be installed.
///
/// # Errors
/// When it is neither there nor to be had; the message says what is missing.
pub fn provide(name: &str) -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("provide.sh");
    let output = Command::new("bash").arg(&script).arg(name).output().context("bash is needed to run provide.sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "no {name} for the test: {}", said.trim());
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    ensure!(path.exists(), "provide.sh said that {name} is {}, which does not exist", path.display());
    Ok(path)
}

/// [`provide`] for async tests.
///
/// # Errors
/// As [`provide`].
pub async fn provided(name: &'static str) -> anyhow::Result<PathBuf> {
    tokio::task::spawn_blocking(move || provide(name)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_named_with_what_is() {
        let error = provide("nonsense").expect_err("unknown").to_string();
        assert!(error.contains("nonsense") && error.contains("nats buf"), "{error}");
    }
}
