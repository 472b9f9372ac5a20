//! The first words of a client of the gateway, in `trestle.v1.proto`.

use anyhow::bail;
use bytes::Bytes;
use prost::Message as _;
use trestle_wire::v1::{ClientFrame, ClientFrames, Connect, ServerFrames, client_frame::Frame, server_frame};

use crate::socket::Socket;

const SUBPROTOCOL: &str = "trestle.v1.proto";

/// Connects to the gateway at `address`; the session is open when this returns.
pub(crate) async fn connect(address: &str) -> anyhow::Result<Socket> {
    let mut socket = Socket::connect(address, "/ws", Some(SUBPROTOCOL)).await?;
    ask(&mut socket, Frame::Connect(Connect::default())).await?;
    Ok(socket)
}

/// Sends one frame, with id 1, and waits until it is answered.
pub(crate) async fn ask(socket: &mut Socket, frame: Frame) -> anyhow::Result<()> {
    socket.send(&[&message(1, frame)]).await?;
    let mut answered = false;
    while !answered {
        let take = |message: &[u8]| {
            for frame in ServerFrames::decode(message)?.frames {
                if let Some(server_frame::Frame::Error(error)) = frame.frame {
                    bail!("refused: {error:?}");
                }
                answered |= frame.reply_to == 1;
            }
            Ok(())
        };
        socket.read(take).await?;
    }
    Ok(())
}

/// One frame as one WebSocket message.
pub(crate) fn message(id: u32, frame: Frame) -> Bytes {
    ClientFrames { frames: vec![ClientFrame { id, frame: Some(frame) }] }.encode_to_vec().into()
}
