//! The same messages to the same thousand subscribers, while more and more others are connected, and on more and more
//! channels.

use super::thousands;
use crate::{
    bench::{self, Bench, Running},
    crowd::Crowd,
    publisher::{Load, Publisher},
    turns::{Found, Outcome, in_turns},
};

/// Those who get the messages.
const SUBSCRIBERS: usize = 1_000;
/// All sessions; the others sit on one channel where nothing is said.
const SESSIONS: [usize; 3] = [1_000, 10_000, 50_000];
/// All channels; the others are listened to by a few sessions more.
const CHANNELS: [usize; 3] = [1, 1_000, 50_000];
/// Channels of one of those sessions; the gateway allows 256.
const CHANNELS_EACH: usize = 250;
/// Open files that are no connection.
const RESERVE: usize = 200;

/// Measures the gateway and the floor, in turns.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let deliveries = bench.scaled(200_000, 50_000);
    let load = Load {
        messages: deliveries / SUBSCRIBERS,
        outstanding: 1,
        payload_bytes: 128,
        channels: 1,
        subscribers: SUBSCRIBERS,
    };
    let most = bench.descriptors.saturating_sub(RESERVE);
    if SESSIONS.iter().any(|sessions| *sessions > most) {
        eprintln!(
            "growth: a process may have {} open files here, so there are at most {most} sessions",
            bench.descriptors
        );
    }
    let measure = async |running: &mut Running| {
        let mut found = Vec::new();
        let mut stage = Stage::new(running, load).await?;
        for sessions in SESSIONS.map(|sessions| sessions.min(most)) {
            stage.grow(sessions, |_| vec![1]).await?;
            found.push(stage.measure(format!("{} sessions", thousands(sessions))).await?);
        }
        stage.crowd.leave().await?;
        let mut stage = Stage::new(running, load).await?;
        for channels in CHANNELS {
            let sitters = (channels - 1).div_ceil(CHANNELS_EACH);
            let first = |number: usize| 1 + (number - SUBSCRIBERS) * CHANNELS_EACH;
            let own = |number| (first(number)..(first(number) + CHANNELS_EACH).min(channels)).collect();
            stage.grow(SUBSCRIBERS + sitters, own).await?;
            found.push(stage.measure(format!("{} channels", thousands(channels))).await?);
        }
        stage.crowd.leave().await?;
        Ok(found)
    };
    Ok(in_turns("growth", bench.rounds(), bench::start(bench.ours_and_floor()).await?, measure).await)
}

/// A crowd that grows.
struct Stage<'a> {
    running: &'a Running,
    load: Load,
    publisher: Publisher<'a>,
    crowd: Crowd,
    sessions: usize,
    /// What a delivery cost when it was smallest.
    first_us: Option<f64>,
}

impl<'a> Stage<'a> {
    async fn new(running: &'a Running, load: Load) -> anyhow::Result<Self> {
        let (publisher, mut crowd) = (Publisher::open(running, 1).await?, Crowd::new());
        crowd.gather_all(running, SUBSCRIBERS, |_| vec![0]).await?;
        Ok(Self { running, load, publisher, crowd, sessions: SUBSCRIBERS, first_us: None })
    }

    /// Brings it to so many sessions; `channels` says what each new one listens to, by its number among all.
    async fn grow(&mut self, sessions: usize, channels: impl Fn(usize) -> Vec<usize>) -> anyhow::Result<()> {
        let there = self.sessions;
        self.crowd.gather_all(self.running, sessions - there, |number| channels(there + number)).await?;
        self.sessions = sessions;
        Ok(())
    }

    async fn measure(&mut self, load: String) -> anyhow::Result<Found> {
        self.publisher.burst(&self.crowd, &Load { messages: 10, ..self.load }).await?;
        let cost = self.publisher.burst(&self.crowd, &self.load).await?;
        let first = *self.first_us.get_or_insert(cost.cpu_us);
        let figures = vec![("cpu_us", cost.cpu_us), ("cpu_over_first", cost.cpu_us / first), ("p99_us", cost.p99_us)];
        Ok(Found { load, lost: cost.lost, figures })
    }
}
