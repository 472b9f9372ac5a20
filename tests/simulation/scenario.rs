//! One seed: a cluster, its clients, what befalls them, and what must hold when all is quiet again.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep},
};
use trestle_bus::Fabric;

use crate::{
    account::Account,
    client::{Client, Command},
    cluster::{Cluster, RESUME_WINDOW, push},
    fabric,
    judge::Judge,
    panics, tokens,
    watchdog::Watchdog,
    world::{Weather, World},
};

const NODES: [&str; 3] = ["a", "b", "c"];
const CHANNELS: [&str; 5] = ["room:1", "short:1", "live:1", "tick:1", "inbox"];
/// Until nothing moves any more: gaps are read again for 18 s, a dead node is known after 12 s, connects take 12 s, and an
/// answer that is to come from another node is given up after 65 s.
const QUIET: Duration = Duration::from_secs(80);
/// Until a presence that is asked for is there.
const ASKED: Duration = Duration::from_secs(4);

/// What came of a seed.
pub(crate) struct Outcome {
    pub(crate) trace: Vec<String>,
    pub(crate) faults: Vec<String>,
}

/// A client and the end that it is told what to do by.
struct Player {
    name: String,
    user: Option<String>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

struct Scenario {
    rng: Rng,
    world: Arc<World>,
    judge: Arc<Mutex<Judge>>,
    cluster: Arc<Cluster>,
    service: Fabric,
    players: Vec<Player>,
    pushed: u64,
    /// Whether nodes and sockets fail all the time.
    rough: bool,
}

/// Plays `seed`.
pub(crate) fn play(seed: u64, watchdog: &Watchdog) -> Outcome {
    fastrand::seed(seed);
    panics::forget();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    let judge = runtime.block_on(async {
        let judge = Arc::new(Mutex::new(Judge::new()));
        watchdog.begins(seed, Arc::clone(&judge));
        let world = World::new(seed, Arc::clone(&judge));
        tokio::spawn(Arc::clone(&world).turn());
        let mut scenario = Scenario::begin(seed, world, Arc::clone(&judge)).await;
        scenario.befall().await;
        scenario.settle().await;
        scenario.end().await;
        judge
    });
    drop(runtime);
    watchdog.ends();
    let mut judge = judge.lock();
    for panic in panics::forget() {
        judge.fault("NO-PANIC", panic);
    }
    Outcome { trace: std::mem::take(&mut judge.trace), faults: std::mem::take(&mut judge.faults) }
}

impl Scenario {
    async fn begin(seed: u64, world: Arc<World>, judge: Arc<Mutex<Judge>>) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5ced);
        let cluster = Cluster::new(Arc::clone(&world), Arc::clone(&judge));
        let (_, service) = fabric::connect(&world, "service");
        cluster.prepare(&service).await;
        let nodes = 2 + rng.usize(0..2);
        for name in &NODES[..nodes] {
            cluster.start(name, rng.u64(..)).await;
        }
        let mut players = Vec::new();
        for (name, user, groups) in [
            ("c1", Some("u1"), vec!["g"]),
            ("c2", Some("u1"), vec![]),
            ("c3", [None, Some("u2")][rng.usize(0..2)], vec![]),
        ] {
            let token = tokens::of(user, &groups);
            let groups = groups.into_iter().map(str::to_owned).collect();
            let account = Account::new(name, user.map(str::to_owned), groups, Arc::clone(&judge));
            let client = Client::new(account, Arc::clone(&cluster), rng.u64(..), token);
            let (commands, told) = mpsc::channel(256);
            let task = tokio::spawn(client.live(told));
            players.push(Player { name: name.to_owned(), user: user.map(str::to_owned), commands, task });
        }
        let rough = rng.u8(0..3) == 0;
        Self { rng, world, judge, cluster, service, players, pushed: 0, rough }
    }

    /// What happens.
    async fn befall(&mut self) {
        sleep(Duration::from_millis(self.rng.u64(0..200))).await;
        for at in 0..self.players.len() {
            for channel in CHANNELS {
                if self.rng.u8(0..3) > 0 {
                    self.tell(at, Command::Subscribe(channel.to_owned()));
                }
            }
        }
        sleep(Duration::from_millis(self.rng.u64(0..200))).await;
        let weather = Weather {
            delay_ms: [0, 2, 20][self.rng.usize(0..3)],
            late: [0, 0, 20][self.rng.usize(0..3)],
            unanswered: [0, 0, 10][self.rng.usize(0..3)],
            behind: [0, 100][self.rng.usize(0..2)],
            untold: [0, 0, 50][self.rng.usize(0..3)],
        };
        self.world.with(|state| state.weather = weather);
        for _ in 0..self.rng.u64(20..70) {
            self.step();
            self.look_at_bounds();
            let pause = match self.rng.u8(0..10) {
                0..=5 => self.rng.u64(0..10),
                6..=8 => self.rng.u64(0..300),
                _ => self.rng.u64(0..5000),
            };
            sleep(Duration::from_millis(pause)).await;
        }
    }

    fn step(&mut self) {
        // Of a hundred: single pushes, bursts, asks, broken sockets, cut links, crashes; the rest are drains.
        let shares = if self.rough { [38, 2, 10, 28, 16, 2] } else { [45, 4, 28, 14, 5, 2] };
        let mut one = self.rng.u8(0..100);
        let at = shares.iter().position(|share| match one.checked_sub(*share) {
            Some(rest) => {
                one = rest;
                false
            }
            None => true,
        });
        match at {
            Some(0) => self.push(1),
            Some(1) => self.push(40),
            Some(2) => self.ask(),
            Some(3) => self.disturb(),
            Some(4) => self.cut_off(),
            Some(5) => self.crash(),
            _ => self.drain(),
        }
    }

    /// A service pushes something somewhere.
    fn push(&mut self, count: usize) {
        let subject = match self.rng.u8(0..12) {
            0..=3 => "t.log.room.1".to_owned(),
            4 => "t.log.short.1".to_owned(),
            5 | 6 => "t.ch.live.1".to_owned(),
            7 => "t.ch.tick.1".to_owned(),
            8 => "t.log.inbox.u1".to_owned(),
            9 => ["t.user.u1", "t.user.u2"][self.rng.usize(0..2)].to_owned(),
            10 => ["t.group.g", "t.all"][self.rng.usize(0..2)].to_owned(),
            _ => {
                let name = &self.players[self.rng.usize(0..self.players.len())].name;
                let judge = self.judge.lock();
                match judge.sessions.get(name).and_then(|sessions| sessions.last()) {
                    Some(session) => format!("t.session.{session}"),
                    None => return,
                }
            }
        };
        self.push_to(subject, count);
    }

    fn push_to(&mut self, subject: String, count: usize) {
        let mut messages = Vec::new();
        for _ in 0..count {
            self.pushed += 1;
            messages.push(self.cluster.comment(format!("{subject}/{}", self.pushed)));
        }
        let service = self.service.clone();
        tokio::spawn(async move {
            for mut message in messages {
                let channel = subject.strip_prefix("t.log.").or(subject.strip_prefix("t.ch."));
                message.channel = channel.map(|channel| channel.replacen('.', ":", 1)).unwrap_or_default();
                push(&service, &subject, message).await;
            }
        });
    }

    fn someone(&mut self) -> usize {
        self.rng.usize(0..self.players.len())
    }

    fn tell(&self, at: usize, command: Command) {
        let player = &self.players[at];
        if player.user.is_none() && matches!(&command, Command::Subscribe(channel) if channel == "inbox") {
            return;
        }
        // One that is stuck in a write is told nothing meanwhile.
        let _full = player.commands.try_send(command);
    }

    /// A client asks for something.
    fn ask(&mut self) {
        let at = self.someone();
        let channel = CHANNELS[self.rng.usize(0..CHANNELS.len())].to_owned();
        let command = match self.rng.u8(0..14) {
            0..=3 => Command::Subscribe(channel),
            4 | 5 => Command::Unsubscribe(channel),
            6..=8 => Command::Publish(CHANNELS[self.rng.usize(0..3)].to_owned()),
            9 => Command::Presence("room:1".to_owned()),
            10 => Command::History("room:1".to_owned()),
            11 => Command::Ack,
            12 => Command::AckInbox,
            _ => Command::Ping,
        };
        self.tell(at, command);
    }

    /// Something happens to a client's socket.
    fn disturb(&mut self) {
        let at = self.someone();
        let command = match self.rng.u8(0..12) {
            0..=3 => Command::Cut,
            4 | 5 => Command::Vanish,
            6 | 7 => Command::Away,
            8 => Command::Begin,
            _ => Command::Stall(Duration::from_millis(self.rng.u64(0..9000))),
        };
        self.tell(at, command);
    }

    fn node(&mut self) -> Option<(String, u64)> {
        let nodes = self.cluster.nodes.lock();
        let choice: Vec<_> = nodes.iter().map(|(name, node)| (name.clone(), node.link)).collect();
        drop(nodes);
        (!choice.is_empty()).then(|| choice[self.rng.usize(0..choice.len())].clone())
    }

    fn cut_off(&mut self) {
        let Some((_, link)) = self.node() else { return };
        let time = Duration::from_millis(if self.rng.bool() { self.rng.u64(0..200) } else { self.rng.u64(0..15_000) });
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            world.with(|state| state.cut(link));
            sleep(time).await;
            world.with(|state| state.mend(link));
        });
    }

    fn crash(&mut self) {
        let Some((name, _)) = self.node() else { return };
        if self.cluster.crash(&name) {
            for at in 0..self.players.len() {
                self.tell(at, Command::Reset(name.clone()));
            }
        }
        self.start_later(name, Duration::ZERO);
    }

    fn drain(&mut self) {
        let Some((name, _)) = self.node() else { return };
        let cluster = Arc::clone(&self.cluster);
        let (drained, wait) = (name.clone(), Duration::from_secs(12));
        tokio::spawn(async move { cluster.drain(&drained).await });
        self.start_later(name, wait);
    }

    /// Its place is taken again, by one of the same name or not at all.
    fn start_later(&mut self, name: String, least: Duration) {
        let few = self.cluster.nodes.lock().len() < 2;
        if !few && self.rng.bool() {
            return;
        }
        let wait = least + Duration::from_millis(self.rng.u64(0..6000));
        let (cluster, seed) = (Arc::clone(&self.cluster), self.rng.u64(..));
        tokio::spawn(async move {
            sleep(wait).await;
            if !cluster.nodes.lock().contains_key(&name) {
                cluster.start(&name, seed).await;
            }
        });
    }

    fn look_at_bounds(&self) {
        let nodes = self.cluster.nodes.lock();
        for (name, node) in nodes.iter() {
            for member in node.hub.members() {
                let (bytes, frames) = (member.outbox.bytes(), member.outbox.len());
                if bytes > 16 * 1024 || frames > 512 {
                    let session = &member.session;
                    self.judge.lock().fault("BOUNDED", format!("{name}: {session}: {frames} frames of {bytes} bytes"));
                }
            }
        }
    }

    /// Everything is mended, and what must hold then is looked at.
    async fn settle(&mut self) {
        self.judge.lock().note("--- quiet");
        self.world.with(|state| state.clear_up());
        // The others may all be leaving.
        self.cluster.start("d", self.rng.u64(..)).await;
        for at in 0..self.players.len() {
            self.tell(at, Command::Settle);
        }
        // Of the last message of a channel a node may not have been told; the next one says so.
        sleep(Duration::from_secs(5)).await;
        for subject in ["t.log.room.1", "t.log.short.1", "t.log.inbox.u1", "t.log.inbox.u2"] {
            self.push_to(subject.to_owned(), 1);
        }
        // Nodes that are still to come find their way meanwhile.
        let end = Instant::now() + QUIET;
        while Instant::now() < end {
            sleep(Duration::from_secs(5)).await;
            self.world.with(|state| state.clear_up());
        }
        for at in 0..self.players.len() {
            self.tell(at, Command::Presence("room:1".to_owned()));
        }
        sleep(ASKED).await;
        let mut seen = Vec::new();
        for player in &self.players {
            let (tell, told) = oneshot::channel();
            let look = Command::Look(Box::new(move |account: &mut Account| {
                account.settle();
                let read = account.presence.remove("room:1").filter(|(at, _)| at.elapsed() <= ASKED);
                let _gone =
                    tell.send((account.session.clone(), account.listens("room:1"), read.map(|(_, state)| state)));
            }));
            let _sent = player.commands.send(look).await;
            match told.await {
                Ok(one) => seen.push((player.name.clone(), one)),
                Err(_) => self.judge.lock().fault("NO-PANIC", format!("{} is gone", player.name)),
            }
        }
        let mut there: Vec<_> =
            seen.iter().filter(|(_, (_, listens, _))| *listens).map(|(_, (session, _, _))| session.clone()).collect();
        there.sort();
        let mut judge = self.judge.lock();
        for (name, (session, _, state)) in &seen {
            let Some(state) = state else {
                judge.fault("PRESENCE", format!("{name} was not told who is there"));
                continue;
            };
            let mut told: Vec<_> = state.members.iter().map(|member| member.session_id.clone()).collect();
            told.sort();
            if told != there || state.sessions as usize != there.len() {
                judge.fault("PRESENCE", format!("{name} of {session} is told {told:?}, there are {there:?}"));
            }
        }
        let sessions = judge.sessions.clone();
        drop(judge);
        for (name, sessions) in sessions {
            for (at, session) in sessions.iter().enumerate() {
                let holders = self.cluster.holders(session);
                let current = at + 1 == sessions.len();
                if holders.len() > 1 || (current && holders.is_empty()) {
                    self.judge.lock().fault("ONE-HOLDER", format!("{name}: {session} is at {holders:?}"));
                }
            }
        }
    }

    /// Everybody leaves, and nothing must be left.
    async fn end(&mut self) {
        self.judge.lock().note("--- end");
        for player in self.players.drain(..) {
            let (tell, told) = oneshot::channel();
            let _sent = player.commands.send(Command::End(tell)).await;
            let _account = told.await;
            if player.task.await.is_err() {
                self.judge.lock().fault("NO-PANIC", player.name);
            }
        }
        sleep(RESUME_WINDOW + Duration::from_secs(20)).await;
        let nodes = self.cluster.nodes.lock();
        for (name, node) in nodes.iter() {
            let (sessions, rooms, stays) = (node.hub.sessions(), node.hub.rooms(), node.edge.connections());
            if sessions + rooms + stays > 0 {
                let left = format!("{name}: {sessions} sessions, {rooms} rooms, {stays} stays");
                self.judge.lock().fault("NOTHING-LEFT", left);
            }
        }
    }
}
