//! The TypeScript client (`clients/typescript`): its own tests, then its programs in Node and in Chromium against real
//! gateways that are killed and drained under it.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};
use trestle_testkit::{Gateway, NatsServer, provide::provided};

use crate::support::Ws;

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/typescript");
/// Numbers between two events.
const SOME: usize = 20;
/// From cold, on a busy machine: packages are fetched, stubs made, and 20 random lives lived.
const TESTS_TIMEOUT: Duration = Duration::from_secs(400);
/// The program itself waits 30 s for the last number.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

fn program(name: &str) -> Command {
    let mut program = Command::new(name);
    program.current_dir(CLIENT).stdin(Stdio::null()).kill_on_drop(true);
    program
}

async fn succeeds(mut command: Command) -> String {
    let output = timeout(TESTS_TIMEOUT, command.output()).await.expect("it ends in time");
    let output = output.expect("Node.js 20 or later, with npm, has to be installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {}:\n{said}\n{complaint}", command.as_std(), output.status);
    said
}

/// Numbers that are written and read until it is told to stop.
struct Numbers(Child);

impl Numbers {
    async fn start(urls: &[String]) -> Self {
        let mut child = program("node")
            .arg("build/out/test/numbers.js")
            .args(urls)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let ready = timeout(RUN_TIMEOUT, lines.next_line()).await.expect("ready in time").expect("read");
        assert_eq!(ready.as_deref(), Some("ready"));
        Self(child)
    }

    async fn stop(mut self) -> Value {
        drop(self.0.stdin.take());
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().expect("piped");
        timeout(RUN_TIMEOUT, stdout.read_to_string(&mut said)).await.expect("it ends in time").expect("read");
        serde_json::from_str(&said).unwrap_or_else(|fault| panic!("numbers.js printed {said:?}: {fault}"))
    }
}

async fn node(nats: &NatsServer, name: &str) -> Gateway {
    let url = nats.url();
    let args = ["--bus", url.as_str(), "--node", name];
    Gateway::start(env!("CARGO_BIN_EXE_trestle"), args).await.expect("starts")
}

#[tokio::test]
async fn the_typescript_client_keeps_its_rules_and_outlives_nodes() {
    let mut install = program("npm");
    install.args(["ci", "--no-audit", "--no-fund"]);
    succeeds(install).await;
    let mut test = program("npm");
    test.arg("test");
    assert!(succeeds(test).await.contains("# fail 0"), "npm test says how many failed");

    let nats = NatsServer::start().await.expect("nats-server starts");
    let (mut one, mut two, three) = (node(&nats, "one").await, node(&nats, "two").await, node(&nats, "three").await);
    let urls = [&one, &two, &three].map(|gateway| format!("ws://{}/ws", gateway.listen()));
    let mut listener = Ws::on(&three, "room:numbers").await;
    let numbers = Numbers::start(&urls).await;
    // Some are on their way whenever something happens.
    listener.texts(SOME).await;
    one.kill().await.expect("killed");
    listener.texts(SOME).await;
    two.terminate().await.expect("drained");
    listener.texts(SOME).await;
    let seen = numbers.stop().await;
    let room = &seen["room"];
    assert!(seen["written"].as_u64() >= Some(3 * SOME as u64), "{seen}");
    assert_eq!((&room["missing"], &room["twice"], &room["ordered"]), (&json!(0), &json!(0), &json!(true)), "{seen}");
    assert_eq!(seen["refused"], json!([]), "{seen}");
    let live = &seen["live"];
    assert_eq!((&live["twice"], &live["ordered"], &live["untold"]), (&json!(0), &json!(true), &json!([])), "{seen}");

    let mut browser = program("node");
    browser
        .arg("test/browser.mjs")
        .args([provided("playwright").await.expect("playwright-core"), provided("chromium").await.expect("Chromium")])
        .arg(&urls[2]);
    let seen: Value = serde_json::from_str(&succeeds(browser).await).expect("one JSON line");
    assert_eq!(seen["faults"], json!([]), "{seen}");
    assert!(Path::new(CLIENT).join("dist/index.js").exists(), "what npm would publish is built");
}
