//! The commands, as a user types them.

use std::process::{Command, Output};

use serde_json::{Value, json};
use trestle_testkit::Gateway;

use crate::support::{EXAMPLES, Ws, comment, file, gateway, http, push};

fn trestle(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trestle")).args(args).output().expect("the binary runs")
}

async fn at(gateway: &Gateway, args: &[&str]) -> (bool, Value) {
    let url = format!("ws://{}/ws", gateway.listen());
    let args: Vec<String> = args.iter().map(ToString::to_string).chain(["--url".into(), url]).collect();
    let run = move || trestle(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let output = tokio::task::spawn_blocking(run).await.expect("it ran");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_routing_table_is_printed() {
    let output = trestle(&["routes"]);
    let table = said(&output);
    assert!(output.status.success());
    for row in [
        [
            "shop.v1.UserCreated",
            "USER_CREATED",
            "1.0",
            "users",
            "bridge",
            "trestle.work.users.shop.v1.UserCreated",
            "DURABLE",
        ],
        [
            "shop.v2.OrderPaid",
            "ORDER_PAID",
            "2.0",
            "billing",
            "bridge",
            "trestle.work.billing.shop.v2.OrderPaid",
            "HANDLED",
        ],
        [
            "shop.v1.InventoryUpdated",
            "INVENTORY_UPDATED",
            "1.0",
            "stock",
            "bridge",
            "trestle.up.stock.shop.v1.InventoryUpdated",
            "RECEIVED",
        ],
    ] {
        assert!(table.lines().any(|line| line.split_whitespace().eq(row)), "{row:?} is not in\n{table}");
    }
}

#[test]
fn check_finds_nothing_wrong_with_the_examples() {
    let output = trestle(&["check", EXAMPLES]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn check_says_everything_that_is_wrong_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("a.proto", "syntax = \"proto3\";\npackage a;\nmessage A { strin x = 1; }\n");
    write(
        "b.proto",
        "syntax = \"proto3\";\npackage b;\nimport \"trestle/v1/options.proto\";\n\
         message B { option (trestle.v1.route) = { service: \"Not A Name\" version: \"one\" }; }\n",
    );
    let config = file("bus = \"carrier-pigeon\"\n[session]\npong_timeout = \"60s\"\n");
    let args = ["check", dir.path().to_str().unwrap(), "--config", config.path().to_str().unwrap()];
    let output = trestle(&args);
    let text = said(&output);
    assert!(!output.status.success());
    for part in ["a.proto:3", "strin", "Not A Name", "one", "carrier-pigeon", "session.pong_timeout"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn check_refuses_what_serve_refuses() {
    for (faulty, named) in [
        ("[auth]\nhs256_secret_file = \"/no/such/file\"\n", "auth.hs256_secret_file"),
        ("[auth]\nanonymous = false\n", "auth.anonymous"),
        ("[telemetry]\nsample_ratio = 2.0\n", "telemetry.sample_ratio"),
        ("[telemetry]\nlog_level = \"x=loud\"\n", "telemetry.log_level"),
    ] {
        let config = file(faulty);
        let path = config.path().to_str().unwrap();
        for args in [&["check", "--config", path][..], &["serve", "--listen", "127.0.0.1:0", "--config", path]] {
            let output = trestle(args);
            let text = said(&output);
            assert!(!output.status.success() && text.contains(named), "{args:?} of {faulty:?} said\n{text}");
        }
    }
}

#[test]
fn a_reader_that_goes_early_is_no_fault() {
    for command in [&["routes"][..], &["errors"], &["config", "print"], &["check"]] {
        // The far end of this pipe is closed before the command writes.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output =
            Command::new(env!("CARGO_BIN_EXE_trestle")).args(command).stdout(writer).output().expect("it runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{command:?}: {}", said(&output));
    }
}

#[tokio::test]
async fn a_role_of_which_nothing_is_there_yet_is_taken_with_a_warning() {
    let gateway = gateway(&["--role", "edge,bridge,connector"]).await;
    Ws::connect(&gateway).await;
    let warned = gateway.output().lines().filter(|line| line.contains("no connector is part of this version")).count();
    assert_eq!(warned, 1, "{}", gateway.output());
}

#[tokio::test]
async fn the_http_api_can_be_turned_off() {
    let config = file("http_api = \"off\"\n");
    let gateway = gateway(&["--config", config.path().to_str().unwrap()]).await;
    assert_eq!(http(&gateway, "GET", "/v1/routes", "", "").await.0, 404);
    assert_eq!(push(&gateway, &json!({"target": {"everyone": {}}, "message": comment("hi")})).await.0, 404);
    assert_eq!(http(&gateway, "GET", "/metrics", "", "").await.0, 200);
}

#[test]
fn a_gateway_with_a_faulty_configuration_does_not_start() {
    for (config, said_) in [
        ("listen = \"nowhere\"\n", "listen"),
        ("[edge]\nframe_byte_max = 1\n", "frame_byte_max"),
        ("schemas = \"/no/such/folder\"\n", "does not exist"),
        ("[auth]\nanonymous = false\n", "hs256_secret_file"),
        ("roles = [\"edge\"]\n", "embedded"),
    ] {
        let config = file(config);
        let output = trestle(&["serve", "--listen", "127.0.0.1:0", "--config", config.path().to_str().unwrap()]);
        let text = said(&output);
        assert!(!output.status.success());
        assert!(text.contains(said_), "{said_} is not in\n{text}");
    }
}

#[test]
fn the_printed_pages_are_those_of_the_binary() {
    let errors = said(&trestle(&["errors"]));
    assert!(errors.contains("| `bus_away` | UNAVAILABLE | 503 |"), "{errors}");
    let config = said(&trestle(&["config", "print"]));
    assert!(config.contains("[channels.namespaces.room.history]\n# Messages per channel"), "{config}");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("trestle.toml");
    std::fs::write(&path, config).expect("written");
    let output = trestle(&["check", "--config", path.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[tokio::test]
async fn send_request_and_sub_talk_to_the_gateway() {
    let gateway = gateway(&[]).await;
    let (ok, reply) = at(&gateway, &["request", "GET_QUOTE", r#"{"sku":"a1","quantity":3}"#]).await;
    assert!(ok);
    assert_eq!(reply["reply"]["payload"], json!({"sku": "a1", "cents": "597"}));

    let paid = ["send", "ORDER_PAID", r#"{"orderId":"o1","cents":"5"}"#, "--version", "1.0"];
    let (ok, accepted) = at(&gateway, &paid).await;
    assert!(ok);
    assert_eq!(accepted["accepted"]["level"], "HANDLED");

    let (ok, refused) =
        at(&gateway, &["send", "ORDER_PAID", r#"{"orderId":"","cents":"5"}"#, "--version", "1.0"]).await;
    assert!(!ok, "a refusal is a failure");
    assert_eq!(refused["error"]["reason"], "rule_violated");
    assert!(refused["error"]["field"].as_str().is_some_and(|field| field.ends_with("orderId")), "{refused}");

    let mut talker = Ws::connect(&gateway).await;
    let heard = at(&gateway, &["sub", "room:9", "--count", "1"]);
    let talk = async {
        // Until the command has joined, nobody hears.
        for id in 2.. {
            talker.ask(json!({"id": id, "publish": {"channel": "room:9", "message": comment("hi")}})).await;
            tokio::task::yield_now().await;
        }
    };
    let (ok, frame) = tokio::select! { heard = heard => heard, () = talk => unreachable!("it talks for ever") };
    assert!(ok);
    assert_eq!(frame["delivery"]["payload"]["text"], "hi");
}

#[tokio::test]
async fn push_reports_what_became_of_it() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::on(&gateway, "live:1").await;
    let http = format!("http://{}", gateway.listen());
    let run = move |target: &'static str| {
        let http = http.clone();
        tokio::task::spawn_blocking(move || {
            trestle(&["push", target, "chat.v1.Comment", r#"{"text":"hi"}"#, "--url", &http])
        })
    };
    for (target, delivered) in [("live:1", 1), ("channel:live:1", 1), ("everyone", 1), ("user:nobody", 0)] {
        let output = run(target).await.expect("it ran");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        let count = report["report"]["delivered"].as_u64().unwrap_or(0);
        assert_eq!(count, delivered, "{target}: {report}");
    }
    for _ in 0..3 {
        assert_eq!(ws.delivery().await["payload"]["text"], "hi");
    }
}
