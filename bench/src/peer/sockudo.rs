//! sockudo, in the Pusher protocol. Clients publish on private channels only, which they sign for when they join.

use anyhow::Context as _;
use ring::hmac;
use serde_json::Value;

use super::{Heard, Message, Peer, Turn, refused};

pub(super) struct Sockudo;

/// As in `bench/peers/sockudo/sockudo.toml`.
const KEY: &str = "bench-key";
const SECRET: &str = "bench-secret";

impl Peer for Sockudo {
    fn name(&self) -> &'static str {
        "sockudo"
    }

    fn version(&self) -> (&'static str, &'static str) {
        ("bench/peers/provide.sh", "sockudo_version=")
    }

    fn endpoint(&self) -> (&'static str, Option<&'static str>) {
        ("/app/bench-key?protocol=7&client=bench&version=1", None)
    }

    fn turn(&self, number: usize, channels: &[usize], answer: &[u8]) -> anyhow::Result<Option<Turn>> {
        Ok(match number {
            0 => Some(Turn { say: Vec::new(), answers: 1 }),
            1 if !channels.is_empty() => {
                let socket = socket_id(answer)?;
                let say = channels.iter().map(|channel| subscribe(&socket, *channel)).collect();
                Some(Turn { say, answers: channels.len() })
            }
            _ => None,
        })
    }

    fn publish(&self, channel: usize, payload: &[u8]) -> Message {
        let (channel, payload) = (name(channel), String::from_utf8_lossy(payload));
        Message::text(format!(r#"{{"event":"client-m","channel":"{channel}","data":"{payload}"}}"#))
    }

    fn hear(&self, message: &[u8], each: &mut dyn FnMut(Heard<'_>)) -> anyhow::Result<()> {
        let has = |event: &str| message.windows(event.len()).any(|bytes| bytes == event.as_bytes());
        // Deliveries first: there are most of them.
        if has(r#""client-m""#) {
            each(Heard::Delivery(message));
        } else if has("pusher:connection_established") || has("pusher_internal:subscription_succeeded") {
            each(Heard::Answer(message));
        } else if has("pusher:ping") {
            each(Heard::Ping);
        } else {
            return Err(refused(message));
        }
        Ok(())
    }

    fn pong(&self) -> Option<Message> {
        Some(Message::text(r#"{"event":"pusher:pong"}"#))
    }

    fn is_for_members(&self) -> bool {
        true
    }
}

fn name(channel: usize) -> String {
    format!("private-c{channel}")
}

/// The connection's name, in the JSON within the JSON of the server's first words.
fn socket_id(established: &[u8]) -> anyhow::Result<String> {
    let established: Value = serde_json::from_slice(established)?;
    let data: Value = serde_json::from_str(established["data"].as_str().context("no data")?)?;
    Ok(data["socket_id"].as_str().context("no socket_id")?.to_owned())
}

fn subscribe(socket: &str, channel: usize) -> Message {
    let channel = name(channel);
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, format!("{socket}:{channel}").as_bytes());
    let signature: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let data = format!(r#"{{"channel":"{channel}","auth":"{KEY}:{signature}"}}"#);
    Message::text(format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_signed_for_the_connection() {
        let established = br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\"}"}"#;
        let turn = Sockudo.turn(1, &[0], established).expect("well-formed").expect("subscribes");
        let said: Value = serde_json::from_slice(&turn.say[0].bytes).expect("JSON");
        let auth = said["data"]["auth"].as_str().expect("signed");
        // As `printf 1.2:private-c0 | openssl dgst -sha256 -hmac bench-secret` says.
        assert_eq!(auth, "bench-key:732fd814aa8a05e5bc2b9553fd91971cb181b844f2dbb80a7fb26b62f089fec6");
    }
}
