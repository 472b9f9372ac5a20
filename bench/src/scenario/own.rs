//! Clients that publish on a channel of their own, and wait for their message before they publish the next.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use crate::{
    bench::{self, Bench, Running},
    crowd::PATIENCE,
    peer::Heard,
    socket::Socket,
    stamp,
    stats::percentile,
    turns::{Found, Outcome, in_turns},
};

const CLIENTS: usize = 64;
const PAYLOAD_BYTES: usize = 128;

/// Measures all servers, in turns.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let each = bench.scaled(500, 100);
    let measure = async |running: &mut Running| {
        let mut clients = JoinSet::new();
        for channel in 0..CLIENTS {
            let socket = Socket::open(running.peer, &running.address, &[channel]).await?;
            clients.spawn(publish(running, socket, channel, 10));
        }
        let sockets = clients.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let (cpu, begun) = (running.server.cpu_ns()?, Instant::now());
        let mut clients = JoinSet::new();
        for (socket, channel, _) in sockets {
            clients.spawn(publish(running, socket, channel, each));
        }
        let done = clients.join_all().await.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        let (cpu, wall) = (running.server.cpu_ns()? - cpu, begun.elapsed());
        let mut ages: Vec<u64> = done.into_iter().flat_map(|(.., ages)| ages).collect();
        let count = ages.len() as f64;
        let figures = vec![
            ("cpu_us", cpu as f64 / 1e3 / count),
            ("p50_us", percentile(&mut ages, 0.5) as f64 / 1e3),
            ("p99_us", percentile(&mut ages, 0.99) as f64 / 1e3),
            ("per_second", count / wall.as_secs_f64()),
        ];
        let load = format!("{CLIENTS} clients, {PAYLOAD_BYTES} B, 1 at once each");
        Ok(vec![Found { load, lost: (CLIENTS * each - ages.len()) as u64, figures }])
    };
    let sides = bench.sides().into_iter().filter(|(_, side)| !side.peer.is_for_members()).collect();
    Ok(in_turns("own", bench.rounds(), bench::start(sides).await?, measure).await)
}

/// Publishes `count` times. Gives the socket back, with the time that each took.
fn publish(
    running: &Running,
    mut socket: Socket,
    channel: usize,
    count: usize,
) -> impl Future<Output = anyhow::Result<(Socket, usize, Vec<u64>)>> + Send + 'static {
    let peer = running.peer;
    async move {
        let writer = socket.writer();
        let mut ages = Vec::with_capacity(count);
        for number in 1..=count {
            writer.send(&[peer.publish(channel, &stamp::payload(PAYLOAD_BYTES))]).await?;
            while ages.len() < number {
                let each = &mut |heard: Heard<'_>| {
                    if let Heard::Delivery(delivery) = heard {
                        ages.push(stamp::age(delivery));
                    }
                };
                tokio::time::timeout(PATIENCE, socket.read(each)).await.context("its own message did not come")??;
            }
            ensure!(ages.len() == number, "a message came twice");
        }
        Ok((socket, channel, ages.into_iter().collect::<anyhow::Result<_>>()?))
    }
}
