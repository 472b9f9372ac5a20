//! Below frames: what a client can do wrong with RFC 6455 itself. Written byte by byte.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use trestle_testkit::Gateway;

use crate::support::{PATIENCE, Ws, file, gateway};

const MASK: [u8; 4] = [1, 2, 3, 4];

/// A frame as a client sends it: masked, with any first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).expect("small")),
        length => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).expect("below 64 KiB").to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A socket after the upgrade.
async fn upgraded(gateway: &Gateway, protocol: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.listen()).await.expect("a connection");
    let request = format!(
        "GET /ws HTTP/1.1\r\nhost: t\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: {protocol}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// Everything the gateway says until it closes.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _reset = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("closed in time");
    bytes
}

fn says(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn what_breaks_the_websocket_is_told_and_closed_with_its_code() {
    let gateway = gateway(&[]).await;
    let text = |payload: &[u8]| frame(0x81, payload);
    // One message of 131,000 bytes in two fragments, neither of which is too large alone.
    let fragments = [frame(0x01, &[b' '; 65_500]), frame(0x80, &[b' '; 65_500])].concat();
    let rows: Vec<(&str, Vec<u8>, &str, u16)> = vec![
        ("text that is not UTF-8", text(&[0xff, 0xfe]), "invalid_utf8", 1007),
        ("a truncated code point", text(&[0xe2, 0x82]), "invalid_utf8", 1007),
        ("binary on JSON", frame(0x82, b"{}"), "wrong_opcode", 1003),
        ("an unmasked frame", vec![0x81, 2, b'{', b'}'], "protocol_error", 1002),
        ("a reserved opcode", frame(0x83, b""), "protocol_error", 1002),
        ("a reserved bit", frame(0xc1, b"{}"), "protocol_error", 1002),
        ("a fragmented ping", frame(0x09, b""), "protocol_error", 1002),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), "protocol_error", 1002),
        ("a continuation of nothing", frame(0x80, b"{}"), "protocol_error", 1002),
        ("a new message inside another", [frame(0x01, b"{"), frame(0x81, b"}")].concat(), "protocol_error", 1002),
        ("a message larger than the limit", fragments, "frame_too_large", 1009),
    ];
    for (what, bytes, reason, code) in rows {
        let mut stream = upgraded(&gateway, "trestle.v1.json").await;
        stream.write_all(&bytes).await.expect("sent");
        let said = rest(stream).await;
        assert!(says(&said, reason.as_bytes()), "{what}: {:?}", String::from_utf8_lossy(&said));
        assert!(says(&said, &code.to_be_bytes()), "{what}: no close frame with {code}");
    }
    // The process lives.
    Ws::connect(&gateway).await;
}

#[tokio::test]
async fn a_frame_that_announces_too_much_is_closed_before_it_is_read() {
    let gateway = gateway(&[]).await;
    let mut stream = upgraded(&gateway, "trestle.v1.json").await;
    // 2^40 bytes are announced; nobody waits for them.
    let head = [&[0x81, 0x80 | 127], &(1_u64 << 40).to_be_bytes()[..], &MASK[..]].concat();
    stream.write_all(&head).await.expect("sent");
    let said = rest(stream).await;
    assert!(says(&said, b"frame_too_large"), "{:?}", String::from_utf8_lossy(&said));
    assert!(says(&said, &1009_u16.to_be_bytes()));
}

#[tokio::test]
async fn text_on_the_protobuf_subprotocol_is_closed_with_1003() {
    let gateway = gateway(&[]).await;
    let mut stream = upgraded(&gateway, "trestle.v1.proto").await;
    stream.write_all(&frame(0x81, b"{}")).await.expect("sent");
    let said = rest(stream).await;
    assert!(says(&said, b"wrong_opcode") && says(&said, &1003_u16.to_be_bytes()), "{said:x?}");
}

#[tokio::test]
async fn fragments_with_control_frames_between_them_are_one_message() {
    let gateway = gateway(&[]).await;
    let mut stream = upgraded(&gateway, "trestle.v1.json").await;
    let ping = br#"{"id":5,"ping":{}}"#;
    let parts = [
        frame(0x01, &ping[..6]),
        frame(0x89, b"hello"),
        frame(0x00, &ping[6..12]),
        frame(0x8a, b""),
        frame(0x80, &ping[12..]),
    ];
    // One byte at a time, as the worst network would.
    for byte in parts.concat() {
        stream.write_all(&[byte]).await.expect("sent");
    }
    let mut said = Vec::new();
    while !says(&said, b"pong") {
        let mut buffer = [0; 1024];
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.expect("in time").expect("open");
        assert!(read > 0, "{:?}", String::from_utf8_lossy(&said));
        said.extend(&buffer[..read]);
    }
    assert!(says(&said, b"hello"), "the ping is answered with its bytes");
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_leaves_nothing_behind() {
    // Its session waits for it to come back, but no longer than it may.
    let config = file("[session]\nresume_window = \"1s\"\n");
    let gateway = gateway(&["--config", config.path().to_str().unwrap()]).await;
    let subscribe = frame(0x81, br#"{"id":5,"subscribe":{"channel":"live:1"}}"#);
    for cut in [1, 3, 8] {
        let mut stream = upgraded(&gateway, "trestle.v1.json").await;
        stream.write_all(&subscribe[..cut]).await.expect("sent");
        drop(stream);
    }
    // One that is subscribed, and in the middle of its next frame.
    let mut stream = upgraded(&gateway, "trestle.v1.json").await;
    stream.write_all(&subscribe).await.expect("sent");
    let mut said = Vec::new();
    while !says(&said, b"subscribed") {
        said.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(metrics(&gateway).await.contains("trestle_hub_rooms 1\n"));
    stream.write_all(&subscribe[..8]).await.expect("sent");
    drop(stream);
    let gone = async {
        loop {
            let metrics = metrics(&gateway).await;
            let all = ["trestle_edge_connections 0\n", "trestle_hub_rooms 0\n", "connected_users 0\n"];
            if all.iter().all(|none| metrics.contains(none)) {
                return;
            }
        }
    };
    timeout(PATIENCE, gone).await.expect("nothing is left behind");
}

#[tokio::test]
async fn a_flood_of_pings_from_a_client_that_does_not_read_costs_little() {
    let mut gateway = gateway(&[]).await;
    let stream = upgraded(&gateway, "trestle.v1.json").await;
    let (_unread, mut write) = stream.into_split();
    let pings = frame(0x89, &[b'p'; 125]).repeat(500);
    let pid = gateway.process().pid();
    let before = rss(pid);
    // Until the gateway reads no more: the kernel's buffers are full, and so is nothing of the gateway's.
    let mut sent = 0_u64;
    while sent < 64 << 20 {
        match timeout(std::time::Duration::from_secs(2), write.write_all(&pings)).await {
            Ok(Ok(())) => sent += pings.len() as u64,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    assert!(sent < 64 << 20, "the flood is not taken without an end");
    let grown = rss(pid).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more after {sent} bytes of pings");
    Ws::connect(&gateway).await;
}

/// Resident memory of a process, in bytes.
fn rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    let kilobytes = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number");
    kilobytes * 1024
}

async fn metrics(gateway: &Gateway) -> String {
    crate::support::http(gateway, "GET", "/metrics", "", "").await.1
}
