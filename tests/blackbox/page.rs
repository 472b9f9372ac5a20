//! The demo page in a real browser: two tabs, one a subprotocol, and a phone.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};
use trestle_testkit::{Gateway, provide::provided};

/// Chromium starts in 1.4 s on a quiet machine, and the whole conversation takes 6.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// Uses the page as `tests/blackbox/page/browser.cjs` says, and gives what was shown; screenshots go to `out`.
async fn browse(gateway: &Gateway, out: &Path) -> Value {
    let program = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/blackbox/page/browser.cjs"))
        .args([provided("playwright").await.expect("playwright-core"), provided("chromium").await.expect("Chromium")])
        .arg(format!("http://{}/", gateway.listen()))
        .arg(out)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(RUN_TIMEOUT, program)
        .await
        .expect("the browser ends in time")
        .expect("node starts; install Node.js 20 or later");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "browser.cjs: {}; it printed {said:?} and complained:\n{complaint}",
        output.status
    );
    serde_json::from_str(&said).unwrap_or_else(|fault| panic!("browser.cjs printed {said:?}: {fault}"))
}

#[tokio::test]
async fn two_tabs_chat_and_reach_the_services_in_json_and_in_protobuf() {
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_trestle"), [""; 0]).await.expect("starts");
    // Kept after the test, to be looked at: target/tmp/page.
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&out).expect("a folder for the screenshots");
    let seen = browse(&gateway, &out).await;

    let by = |mine, theirs| {
        json!([format!("{mine} Ada: Hello from JSON ☃ <b>"), format!("{theirs} Bob: Hello from protobuf")])
    };
    assert_eq!(seen["comments"], json!({ "json": by("mine", "theirs"), "protobuf": by("theirs", "mine") }));
    assert_eq!(
        seen["receipts"],
        json!({ "json": ["Receipt o-1 19.99 EUR for version 1.0"], "protobuf": ["Receipt o-2 2.50 SEK for version 2.0"] })
    );
    for tab in ["json", "protobuf"] {
        assert_eq!(seen["orders"][tab], "accepted: HANDLED", "{seen}");
        assert_eq!(seen["users"][tab], "accepted: DURABLE", "{seen}");
        assert_eq!(seen["stock"][tab], "accepted: RECEIVED", "{seen}");
        assert!(text(&seen["quotes"][tab]).ends_with(" for a1"), "{seen}");
        assert!(text(&seen["refused"][tab]).starts_with("rule_violated · "), "{seen}");
    }
    assert!(text(&seen["refused"]["json"]).contains("cents"), "the field is named: {seen}");
    assert!(text(&seen["byHand"]).starts_with("unknown_type"), "{seen}");
    assert!(text(&seen["hex"]).starts_with("0a "), "ServerFrames.frames is field 1: {seen}");
    assert!(!text(&seen["session"]).is_empty(), "{seen}");
    assert_eq!(seen["sideways"], false, "nothing is wider than a phone");
    assert_eq!(seen["faults"], json!([]), "nothing on the console");
    assert_eq!(
        seen["closed"],
        json!({
            "4000": ["Reconnecting in _ s: said by the test (4000)", "connected"],
            "4500": ["Closed: said by the test (4500)", "closed"],
        })
    );
    for shot in ["light", "dark", "phone"] {
        let shot = out.join(format!("page-{shot}.png"));
        assert!(std::fs::metadata(&shot).is_ok_and(|file| file.len() > 10_000), "{}", shot.display());
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
