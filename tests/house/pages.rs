//! Pages that are printed from the code are as the code prints them now.

use std::process::Command;

use crate::tree::read;

/// Fails at the first line that differs.
fn same(page: &str, printed: &str, how: &str) {
    let text = read(page);
    if text == printed {
        return;
    }
    let (kept, fresh): (Vec<_>, Vec<_>) = (text.lines().collect(), printed.lines().collect());
    let line = kept.iter().zip(&fresh).take_while(|(a, b)| a == b).count();
    let at = |lines: &[&str]| lines.get(line).map_or("(the end)".into(), |line| format!("{line:?}"));
    panic!("{page} is stale from line {} on: it has {}, the code prints {}; {how}", line + 1, at(&kept), at(&fresh));
}

#[test]
fn the_table_of_errors_is_fresh() {
    same("docs/errors.md", &trestle_wire::refusal::markdown(), "print it with `cargo run -- errors > docs/errors.md`");
}

#[test]
fn the_commented_config_is_fresh() {
    let output = Command::new(env!("CARGO_BIN_EXE_trestle")).args(["config", "print"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("a config is UTF-8");
    same("docs/config.toml", &printed, "print it with `cargo run -- config print > docs/config.toml`");
}
