//! The reader and the writer, against tungstenite as the other side.

use std::{
    io::{self, Cursor},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::{
    Message, Utf8Bytes, WebSocket,
    protocol::{CloseFrame, Role, frame::coding::CloseCode as Code},
};
use trestle_wire::Reason;

use super::{
    inbound::{Inbound, Received},
    outgoing::{Outgoing, Piece},
};

const MESSAGE_BYTES_MAX: usize = 100_000;

/// What a client of tungstenite puts on the wire.
fn sent(messages: &[Message]) -> Vec<u8> {
    let mut client = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Client, None);
    for message in messages {
        client.send(message.clone()).expect("memory takes it");
    }
    client.get_ref().get_ref().clone()
}

/// What is read of `bytes` that come in pieces of the sizes `pieces`, and then the rest.
fn read(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Received>, Reason> {
    let (mut inbound, mut received, mut rest) = (Inbound::new(MESSAGE_BYTES_MAX), Vec::new(), bytes);
    for size in pieces.iter().copied().chain([usize::MAX]) {
        let (mut piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        while let Some(one) = inbound.next(&mut piece).map_err(|refusal| refusal.reason)? {
            received.push(one);
        }
        assert!(piece.is_empty());
    }
    Ok(received)
}

fn as_received(message: Message) -> Received {
    match message {
        Message::Text(text) => Received::Text(text.into()),
        Message::Binary(bytes) => Received::Binary(bytes),
        Message::Ping(payload) => Received::Ping(payload),
        Message::Pong(payload) => Received::Pong(payload),
        Message::Close(frame) => Received::Close(frame.map(|frame| frame.code.into())),
        Message::Frame(_) => unreachable!("it is of no kind that is made here"),
    }
}

fn messages() -> impl Strategy<Value = Message> {
    let length = prop_oneof![0..130_usize, Just(125), Just(126), Just(65_535), Just(65_536), 0..70_000_usize];
    prop_oneof![
        ".{0,40}".prop_map(Message::text),
        length.clone().prop_map(|length| Message::text("x".repeat(length))),
        length.prop_map(|length| Message::binary(vec![7; length])),
        proptest::collection::vec(any::<u8>(), 0..126).prop_map(|payload| Message::Ping(payload.into())),
        proptest::collection::vec(any::<u8>(), 0..126).prop_map(|payload| Message::Pong(payload.into())),
    ]
}

proptest! {
    #[test]
    fn what_a_client_sends_is_read_however_it_is_cut(
        messages in proptest::collection::vec(messages(), 0..8),
        pieces in proptest::collection::vec(0..3_000_usize, 0..40),
    ) {
        let expected: Vec<_> = messages.iter().cloned().map(as_received).collect();
        prop_assert_eq!(read(&sent(&messages), &pieces), Ok(expected));
    }

    #[test]
    fn nothing_that_comes_makes_it_panic_or_hold_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _read = read(&bytes, &[1, 2, 3]);
    }
}

/// A client's frame whose mask is `0x01020304`.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).expect("short")];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

#[test]
fn fragments_are_put_together_around_what_comes_between() {
    let parts =
        [frame(0x01, "h\u{e4}".as_bytes().split_at(2).0), frame(0x89, b"?"), frame(0x00, &[0xa4]), frame(0x80, b"!")];
    let expected = vec![Received::Ping("?".into()), Received::Text("h\u{e4}!".into())];
    assert_eq!(read(&parts.concat(), &[1; 20]), Ok(expected));
}

#[test]
fn a_close_frame_says_its_code() {
    let close = |code| Some(CloseFrame { code, reason: Utf8Bytes::from_static("bye") });
    for (frame, code) in [(None, None), (close(Code::Normal), Some(1000)), (close(Code::Library(4999)), Some(4999))] {
        assert_eq!(read(&sent(&[Message::Close(frame)]), &[]), Ok(vec![Received::Close(code)]));
    }
}

#[test]
fn a_broken_rule_is_told() {
    let unmasked = b"\x81\x01x".to_vec();
    let long_control = [&[0x89, 0xfe, 0, 126][..], &[0; 130]].concat();
    let too_large = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa1, 0, 0, 0, 0].to_vec(); // 100,001 bytes are announced
    let endless = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0].to_vec();
    let grown =
        [&[0x02, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0][..], &[0; 100_000], &frame(0x80, b"x")].concat();
    for (bytes, reason) in [
        (unmasked, Reason::ProtocolError),
        (frame(0xc1, b"x"), Reason::ProtocolError),
        (frame(0x83, b"x"), Reason::ProtocolError),
        (frame(0x8b, b"x"), Reason::ProtocolError),
        (frame(0x09, b"x"), Reason::ProtocolError),
        (long_control, Reason::ProtocolError),
        (frame(0x80, b"x"), Reason::ProtocolError),
        ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), Reason::ProtocolError),
        (frame(0x88, b"x"), Reason::ProtocolError),
        (frame(0x88, &1005_u16.to_be_bytes()), Reason::ProtocolError),
        (frame(0x88, &999_u16.to_be_bytes()), Reason::ProtocolError),
        (frame(0x88, b"\x03\xe8\xff"), Reason::InvalidUtf8),
        (frame(0x81, b"\xff"), Reason::InvalidUtf8),
        ([frame(0x01, b"\xe2\x82"), frame(0x80, b"x")].concat(), Reason::InvalidUtf8),
        (too_large, Reason::FrameTooLarge),
        (endless, Reason::FrameTooLarge),
        (grown, Reason::FrameTooLarge),
    ] {
        for pieces in [&[][..], &[1; 20]] {
            assert_eq!(read(&bytes, pieces), Err(reason), "{:x?}", &bytes[..bytes.len().min(20)]);
        }
    }
}

/// A socket that takes so many bytes at a time, and then none until it is asked again.
struct Narrow {
    widths: std::vec::IntoIter<usize>,
    taken: Vec<u8>,
}

impl AsyncWrite for Narrow {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.widths.next() {
            Some(0) => Poll::Pending,
            width => {
                let (taken, _) = bytes.split_at(width.unwrap_or(usize::MAX).min(bytes.len()));
                self.taken.extend(taken);
                Poll::Ready(Ok(taken.len()))
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(context, &all)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

proptest! {
    #[test]
    fn what_is_queued_goes_out_in_order_and_once(
        steps in proptest::collection::vec((proptest::option::of(1..200_usize), any::<u8>()), 0..200),
        widths in proptest::collection::vec(0..150_usize, 0..60),
    ) {
        let mut stream = Narrow { widths: widths.into_iter(), taken: Vec::new() };
        let (mut outgoing, mut expected) = (Outgoing::default(), Vec::new());
        let mut context = Context::from_waker(Waker::noop());
        for (length, byte) in steps {
            match length {
                Some(length) => {
                    expected.extend(vec![byte; length]);
                    outgoing.push(Piece::Own(Bytes::from(vec![byte; length])));
                }
                None => assert_eq!(outgoing.poll_flush(&mut stream, &mut context).is_ready(), outgoing.is_empty()),
            }
        }
        while outgoing.poll_flush(&mut stream, &mut context).is_pending() {}
        prop_assert_eq!(stream.taken, expected);
    }
}
