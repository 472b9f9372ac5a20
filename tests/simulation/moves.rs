//! What a session is owed on its way from node to node, one case at a time: rare in the seeds, and played here by hand.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    io::{DuplexStream, duplex},
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use trestle_bus::{Fabric, Heard};
use trestle_codec::Encoding;
use trestle_edge::Hello;
use trestle_session::State;
use trestle_wire::{
    NodeId, SessionId,
    v1::{self, client_frame::Frame, node_answer, node_ask, server_frame::Frame as Answer},
};

use crate::{
    cluster::Cluster,
    fabric,
    judge::Judge,
    subjects, tokens,
    world::{Weather, World},
};

/// Longest wait for anything, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at that does not tell by itself.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Two nodes, `a` and `b`, and whoever is neither.
struct Stage {
    world: Arc<World>,
    cluster: Arc<Cluster>,
    service: Fabric,
}

/// Plays a case in virtual time.
fn play<F: Future<Output = ()>>(case: impl FnOnce(Stage) -> F) {
    fastrand::seed(7);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(async {
        let judge = Arc::new(Mutex::new(Judge::new()));
        let world = World::new(7, Arc::clone(&judge));
        tokio::spawn(Arc::clone(&world).turn());
        let cluster = Cluster::new(Arc::clone(&world), judge);
        let (_, service) = fabric::connect(&world, "service");
        cluster.prepare(&service).await;
        cluster.start("a", 1).await;
        cluster.start("b", 2).await;
        case(Stage { world, cluster, service }).await;
    });
}

impl Stage {
    /// The bus does what it is asked and does not say so, until [`Stage::clear`].
    fn mute(&self) {
        self.world.with(|state| state.weather = Weather { unanswered: 1000, ..Weather::FAIR });
    }

    fn clear(&self) {
        self.world.with(|state| state.weather = Weather::FAIR);
    }

    fn link(&self, node: &str) -> u64 {
        self.cluster.nodes.lock()[node].link
    }

    /// What a node knows of a session; `None` if it does not have it.
    fn state(&self, node: &str, session: &str) -> Option<State> {
        let session = SessionId::parse(session).expect("a session");
        let member = self.cluster.nodes.lock()[node].hub.member(&session)?;
        let state = member.facts.lock().state;
        Some(state)
    }

    /// Waits until a node knows that of a session.
    async fn until(&self, node: &str, session: &str, state: State) {
        let look = async {
            while self.state(node, session) != Some(state) {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{session} is not {state:?} at {node}"));
    }

    /// Asks a node what operators ask.
    async fn ask(&self, node: &str, ask: node_ask::Ask) -> node_answer::Answer {
        let subject = subjects().ask(&NodeId::parse(node).expect("a node"));
        let ask = v1::NodeAsk { ask: Some(ask) }.encode_to_vec().into();
        let answer = self.service.bus.request(&subject, ask, PATIENCE).await.expect("an answer");
        v1::NodeAnswer::decode(answer).expect("an answer").answer.expect("an answer")
    }

    /// When a session began, as its node says.
    async fn connected(&self, node: &str) -> Option<prost_types::Timestamp> {
        match self.ask(node, node_ask::Ask::Sessions(v1::ListSessionsRequest::default())).await {
            node_answer::Answer::Sessions(list) => list.sessions[0].connected,
            other => panic!("not a list: {other:?}"),
        }
    }
}

/// A client that does what it is told, and nothing by itself.
struct Hand {
    socket: WebSocketStream<DuplexStream>,
    connected: v1::Connected,
    received: u64,
    ids: u32,
}

impl Hand {
    async fn open(stage: &Stage, node: &str) -> WebSocketStream<DuplexStream> {
        let (mine, theirs) = duplex(65_536);
        let edge = Arc::clone(&stage.cluster.nodes.lock()[node].edge);
        let hello = Hello { encoding: Encoding::Protobuf, address: ([127, 0, 0, 1], 1024).into(), token: None };
        tokio::spawn(async move { edge.serve_stream(theirs, hello).await });
        WebSocketStream::from_raw_socket(mine, Role::Client, None).await
    }

    /// Says `connect`, and does not read what comes of it.
    async fn knock(stage: &Stage, node: &str, connect: Frame) -> Self {
        let mut socket = Self::open(stage, node).await;
        send(&mut socket, 1, connect).await;
        Self { socket, connected: v1::Connected::default(), received: 0, ids: 1 }
    }

    /// Begins a session, or goes on with one.
    async fn connect(stage: &Stage, node: &str, resume: Option<v1::Resume>) -> Self {
        let mut hand = Self::knock(stage, node, connect(resume)).await;
        let mut first = hand.frames().await;
        let Some(Answer::Connected(connected)) = first.remove(0).frame else { panic!("not connected") };
        hand.received = connected.received + first.len() as u64;
        assert!(first.is_empty() || connected.resumed, "{first:?}");
        hand.connected = connected;
        hand
    }

    /// What it resumes with, and its frames that wait for answers.
    fn resume(&self, outstanding: &[u32]) -> v1::Resume {
        v1::Resume {
            session_id: self.connected.session_id.clone(),
            token: self.connected.resume_token.clone(),
            received: Some(self.received),
            channels: Vec::new(),
            outstanding: outstanding.to_vec(),
        }
    }

    async fn say(&mut self, frame: Frame) -> u32 {
        self.ids += 1;
        send(&mut self.socket, self.ids, frame).await;
        self.ids
    }

    async fn subscribe(&mut self, channel: &str) {
        let subscribe = v1::Subscribe { channel: channel.into(), from: None, presence: false };
        let id = self.say(Frame::Subscribe(subscribe)).await;
        assert!(matches!(self.answer(id).await, Answer::Subscribed(_)));
    }

    async fn publish(&mut self, stage: &Stage) -> u32 {
        let message = Some(stage.cluster.comment(format!("t.log.room.1/{}", self.ids)));
        self.say(Frame::Publish(v1::Publish { channel: "room:1".into(), message })).await
    }

    /// The frames of the next message.
    async fn frames(&mut self) -> Vec<v1::ServerFrame> {
        let message = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(bytes))) => return bytes,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => panic!("the connection ended: {other:?}"),
                }
            }
        };
        let bytes = timeout(PATIENCE, message).await.expect("something comes in time");
        v1::ServerFrames::decode(bytes).expect("frames").frames
    }

    /// What answers `id`.
    async fn answer(&mut self, id: u32) -> Answer {
        loop {
            let frames = self.frames().await;
            self.received += frames.len() as u64;
            if let Some(answer) = frames.into_iter().find(|frame| frame.reply_to == id) {
                return answer.frame.expect("a frame");
            }
        }
    }

    /// Everything that comes within `time`; meanwhile it answers pings.
    async fn listen(&mut self, time: Duration) -> Vec<v1::ServerFrame> {
        let mut came = Vec::new();
        let all = async {
            while let Some(Ok(message)) = self.socket.next().await {
                if let Message::Binary(bytes) = message {
                    came.extend(v1::ServerFrames::decode(bytes).expect("frames").frames);
                }
            }
        };
        assert!(timeout(time, all).await.is_err(), "the connection ended: {came:?}");
        self.received += came.len() as u64;
        came
    }

    /// Every answer to `id` that comes within `time`.
    async fn answers(&mut self, id: u32, time: Duration) -> Vec<Answer> {
        let frames = self.listen(time).await.into_iter().filter(|frame| frame.reply_to == id);
        frames.filter_map(|frame| frame.frame).collect()
    }

    /// Who is on room:1.
    async fn present(&mut self) -> BTreeSet<String> {
        let id = self.say(Frame::Presence(v1::ReadPresence { channel: "room:1".into() })).await;
        match self.answer(id).await {
            Answer::Presence(state) => state.members.into_iter().map(|member| member.session_id).collect(),
            other => panic!("not who is there: {other:?}"),
        }
    }
}

fn connect(resume: Option<v1::Resume>) -> Frame {
    Frame::Connect(v1::Connect { token: tokens::of(Some("u1"), &[]), resume })
}

async fn send(socket: &mut WebSocketStream<DuplexStream>, id: u32, frame: Frame) {
    let frames = v1::ClientFrames { frames: vec![v1::ClientFrame { id, frame: Some(frame) }] };
    socket.send(Message::Binary(frames.encode_to_vec().into())).await.expect("taken");
}

fn is_lost(answer: &Answer) -> bool {
    matches!(answer, Answer::Error(error) if error.reason == "answer_lost")
}

#[test]
fn a_connected_that_never_came_costs_no_session() {
    play(async |stage| {
        let mut hand = Hand::connect(&stage, "a", None).await;
        hand.subscribe("room:1").await;
        let (resume, session) = (hand.resume(&[]), hand.connected.session_id.clone());
        drop(hand);
        // On the same node, on another one, on one that dies.
        for node in ["a", "b", "a", "b"] {
            let _lost = Hand::knock(&stage, node, connect(Some(resume.clone()))).await;
            stage.until(node, &session, State::Active).await;
        }
        stage.cluster.crash("b");
        let mut hand = Hand::connect(&stage, "a", Some(resume.clone())).await;
        assert!(hand.connected.resumed, "{:?}", hand.connected);
        assert_eq!(hand.connected.session_id, session);
        // It is heard by the pong to the ping that came with `connected`, also if it says nothing.
        hand.listen(Duration::from_secs(1)).await;
        let thief = Hand::connect(&stage, "a", Some(resume)).await;
        assert!(!thief.connected.resumed, "from then on the token has served");
        assert_eq!(stage.state("a", &session), Some(State::Active), "and nothing has become of the session");
    });
}

#[test]
fn the_stream_goes_on_where_a_lost_connected_left_it() {
    play(async |stage| {
        let mut hand = Hand::connect(&stage, "a", None).await;
        hand.subscribe("room:1").await;
        let (resume, session) = (hand.resume(&[]), hand.connected.session_id.clone());
        drop(hand);
        let _lost = Hand::knock(&stage, "b", connect(Some(resume.clone()))).await;
        stage.until("b", &session, State::Active).await;
        let hand = Hand::connect(&stage, "a", Some(resume.clone())).await;
        assert_eq!((hand.connected.resumed, hand.connected.received), (true, resume.received.unwrap()));
        assert_eq!(hand.connected.subscriptions.len(), 1, "{:?}", hand.connected);
    });
}

#[test]
fn another_users_token_does_not_make_a_served_one_good() {
    play(async |stage| {
        let hand = Hand::connect(&stage, "a", None).await;
        let (resume, session) = (hand.resume(&[]), hand.connected.session_id.clone());
        let _lost = Hand::knock(&stage, "b", connect(Some(resume.clone()))).await;
        stage.until("b", &session, State::Active).await;
        for token in ["", &tokens::of(Some("u2"), &[])] {
            let connect = Frame::Connect(v1::Connect { token: token.into(), resume: Some(resume.clone()) });
            let mut thief = Hand::knock(&stage, "b", connect).await;
            match thief.answer(1).await {
                Answer::Connected(connected) => assert!(!connected.resumed, "{connected:?}"),
                Answer::Error(error) => assert_eq!(error.reason, "token_missing", "{error:?}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(Hand::connect(&stage, "b", Some(resume)).await.connected.resumed, "its own user's does");
    });
}

#[test]
fn an_answer_that_moved_with_its_frames_is_given_once() {
    play(async |stage| {
        let mut hand = Hand::connect(&stage, "a", None).await;
        let before = hand.resume(&[]);
        let id = hand.say(Frame::Ping(v1::Ping {})).await;
        hand.answer(id).await;
        // As if the answer had not come, neither here nor there.
        let resume = v1::Resume { outstanding: vec![id], ..before };
        let there = Hand::connect(&stage, "b", Some(resume.clone())).await;
        let token = there.connected.resume_token.clone();
        let mut back = Hand::knock(&stage, "a", connect(Some(v1::Resume { token, ..resume }))).await;
        let answers = back.answers(id, Duration::from_secs(5)).await;
        assert!(matches!(answers[..], [Answer::Pong(_)]), "{answers:?}");
    });
}

#[test]
fn a_channel_that_is_being_left_does_not_come_along() {
    play(async |stage| {
        let mut hand = Hand::connect(&stage, "a", None).await;
        hand.subscribe("room:1").await;
        stage.mute();
        let said = hand.publish(&stage).await;
        let left = hand.say(Frame::Unsubscribe(v1::Unsubscribe { channel: "room:1".into() })).await;
        sleep(Duration::from_millis(100)).await;
        stage.clear();
        // The unsubscribe waits behind the publish, whose answer is lost.
        let mut there = Hand::connect(&stage, "b", Some(hand.resume(&[said, left]))).await;
        assert!(there.connected.subscriptions.is_empty(), "{:?}", there.connected);
        assert!(matches!(there.answer(left).await, Answer::Unsubscribed(_)));
        there.listen(Duration::from_secs(10)).await;
        assert_eq!(there.present().await, BTreeSet::new());
    });
}

#[test]
fn an_answer_that_was_to_come_from_a_node_that_died_is_told_as_lost() {
    play(async |stage| {
        let mut hand = Hand::connect(&stage, "a", None).await;
        stage.mute();
        let id = hand.publish(&stage).await;
        sleep(Duration::from_millis(100)).await;
        stage.clear();
        let mut there = Hand::connect(&stage, "b", Some(hand.resume(&[id]))).await;
        stage.cluster.crash("a");
        let answer = there.answer(id).await;
        assert!(is_lost(&answer), "{answer:?}");
    });
}

#[test]
fn a_session_that_could_not_be_shown_to_others_is_shown_later() {
    play(async |stage| {
        let mut hand = Hand::connect(&stage, "a", None).await;
        hand.subscribe("room:1").await;
        let (resume, session) = (hand.resume(&[]), hand.connected.session_id.clone());
        drop(hand);
        stage.until("a", &session, State::Pending).await;
        // Until nobody keeps up who is on the channel.
        sleep(Duration::from_secs(15)).await;
        stage.world.with(|state| state.weather = Weather { delay_ms: 50, ..Weather::FAIR });
        let mut hand = Hand::connect(&stage, "a", Some(resume)).await;
        stage.mute();
        sleep(Duration::from_millis(2500)).await;
        stage.clear();
        assert_eq!(hand.present().await, BTreeSet::new(), "the bus did not answer when it was to be shown");
        hand.listen(Duration::from_secs(5)).await;
        assert_eq!(hand.present().await, BTreeSet::from([session]));
    });
}

#[test]
fn a_session_keeps_the_time_of_its_first_connect() {
    play(async |stage| {
        let mut hand = Hand::connect(&stage, "a", None).await;
        // Its record is there: without one it begins with its token.
        hand.listen(Duration::from_secs(2)).await;
        let began = stage.connected("a").await;
        let there = Hand::connect(&stage, "b", Some(hand.resume(&[]))).await;
        assert!(there.connected.resumed);
        assert_eq!(stage.connected("b").await, began);
    });
}

#[test]
fn only_clients_that_are_there_are_asked_to_leave() {
    play(async |stage| {
        let (here, gone) = (Hand::connect(&stage, "a", None).await, Hand::connect(&stage, "a", None).await);
        let session = gone.connected.session_id.clone();
        drop(gone);
        stage.until("a", &session, State::Pending).await;
        match stage.ask("a", node_ask::Ask::Shed(10)).await {
            node_answer::Answer::Info(info) => assert_eq!(info.active, 1, "{info:?}"),
            other => panic!("{other:?}"),
        }
        drop(here);
    });
}

#[test]
fn what_is_left_of_a_session_that_lives_elsewhere_ends_without_a_word() {
    play(async |stage| {
        let mut events = stage.service.bus.subscribe(&subjects().session_events(), None).await.expect("heard");
        let mut hand = Hand::connect(&stage, "a", None).await;
        let (resume, session) = (hand.resume(&[]), hand.connected.session_id.clone());
        // Its record is there, and the node learns that it was claimed only when it writes it again.
        hand.listen(Duration::from_secs(2)).await;
        let link = stage.link("a");
        stage.world.with(|state| state.cut(link));
        drop(hand);
        stage.until("a", &session, State::Pending).await;
        let mut there = Hand::connect(&stage, "b", Some(resume)).await;
        tokio::spawn(async move { there.listen(Duration::from_secs(3600)).await });
        sleep(crate::cluster::RESUME_WINDOW - Duration::from_secs(5)).await;
        stage.world.with(|state| state.mend(link));
        while stage.state("a", &session).is_some() {
            sleep(LOOK_EVERY).await;
        }
        let told = async {
            while let Some(heard) = events.next().await {
                let Heard::Message(message) = heard else { continue };
                let event = v1::SessionEvent::decode(message.payload).expect("an event");
                assert_ne!(event.change(), v1::SessionChange::SessionExpired, "{event:?}");
            }
        };
        assert!(timeout(Duration::from_secs(10), told).await.is_err(), "the session lives at b");
        assert_eq!(stage.state("b", &session), Some(State::Active));
    });
}
