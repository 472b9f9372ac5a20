//! What one client has been told, held against what really happened.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use trestle_wire::{
    ChannelName, Subjects,
    v1::{self, server_frame::Frame as Answer},
};

use crate::{judge::Judge, subjects};

/// How much later than the first message after a loss the client may be told of it: a resume asks another node for 2 s.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// What a client asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask {
    Connect,
    Subscribe { channel: String, from: Option<u64>, acked: u64 },
    Unsubscribe(String),
    Publish { channel: String, id: String },
    AckInbox(u64),
    Presence(String),
    Other,
}

/// A channel with history, as the client sees it.
struct Stored {
    subject: String,
    /// Everything up to here came, or was told.
    at: u64,
    /// A gap without an end was told since.
    open_gap: bool,
    /// Up to here messages may be missing without a word: the user has acked them.
    slack: u64,
}

/// Something without offsets that the client listens to.
struct Live {
    /// The channel as a gap names it.
    named: String,
    /// From this message on, all should come.
    since: usize,
    last: Option<usize>,
    /// The last one of each publisher.
    last_of: HashMap<String, usize>,
    /// When the last one came.
    came: Instant,
    /// Some did not come: since when that may be told, and until when.
    holes: Vec<(Instant, Instant, String)>,
}

/// A client's account.
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) user: Option<String>,
    pub(crate) groups: Vec<String>,
    judge: Arc<Mutex<Judge>>,
    subjects: Subjects,
    pub(crate) session: String,
    /// Server frames of the session that came.
    pub(crate) received: u64,
    stored: BTreeMap<String, Stored>,
    live: BTreeMap<String, Live>,
    /// Live messages of this session.
    had: HashSet<String>,
    gaps: BTreeMap<String, Vec<Instant>>,
    /// What is not answered.
    pub(crate) open: BTreeMap<u32, Ask>,
    /// Whether the session's groups are known to be joined.
    grouped: bool,
    /// Channels that the connects of this session have named.
    pub(crate) named: HashSet<String>,
    /// The last presence that was read of each channel.
    pub(crate) presence: BTreeMap<String, (Instant, v1::PresenceState)>,
}

impl Account {
    pub(crate) fn new(name: &str, user: Option<String>, groups: Vec<String>, judge: Arc<Mutex<Judge>>) -> Self {
        Self {
            name: name.to_owned(),
            user,
            groups,
            judge,
            subjects: subjects(),
            session: String::new(),
            received: 0,
            stored: BTreeMap::new(),
            live: BTreeMap::new(),
            had: HashSet::new(),
            gaps: BTreeMap::new(),
            open: BTreeMap::new(),
            grouped: false,
            named: HashSet::new(),
            presence: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        self.judge.lock().note(format!("{}: {what}", self.name));
    }

    fn fault(&self, id: &str, what: impl std::fmt::Display) {
        self.judge.lock().fault(id, format!("{}: {what}", self.name));
    }

    /// What a resume says of the channels.
    pub(crate) fn positions(&self) -> Vec<v1::Position> {
        let stored = self.stored.iter().map(|(channel, ear)| (channel.clone(), ear.at));
        let live = self.live.values().filter(|ear| !ear.named.is_empty()).map(|ear| (ear.named.clone(), 0));
        stored.chain(live).map(|(channel, offset)| v1::Position { channel, offset }).collect()
    }

    /// Where to begin in a channel that was listened to before.
    pub(crate) fn place(&self, channel: &str) -> Option<u64> {
        self.stored.get(channel).map(|ear| ear.at)
    }

    pub(crate) fn listens(&self, channel: &str) -> bool {
        self.stored.contains_key(channel) || self.live.values().any(|ear| ear.named == channel)
    }

    /// The client wants to hear no more of it.
    pub(crate) fn leave(&mut self, channel: &str) {
        self.stored.remove(channel);
        self.live.retain(|_, ear| ear.named != channel);
    }

    /// A new session, or one that goes on.
    pub(crate) fn connected(&mut self, reply_to: u32, connected: &v1::Connected) {
        if self.open.remove(&reply_to) != Some(Ask::Connect) {
            self.fault("ANSWER-ONCE", format!("connected answers {reply_to}, which is no connect"));
        }
        if connected.resumed {
            self.note(format!("resumed at {} of {} on {}", connected.received, self.received, connected.node));
            if connected.session_id != self.session {
                self.fault("COUNT", format!("resumed as {} instead of {}", connected.session_id, self.session));
            }
            let recovery = connected.received == 0 && connected.subscriptions.is_empty();
            if connected.received != self.received && !recovery {
                self.fault("COUNT", format!("the gateway counts {}, the client {}", connected.received, self.received));
            }
        } else {
            self.note(format!("begins {} on {}", connected.session_id, connected.node));
            self.session = connected.session_id.clone();
            self.judge.lock().sessions.entry(self.name.clone()).or_default().push(self.session.clone());
            self.open.clear();
            self.had.clear();
            self.live.clear();
            self.named.clear();
            self.grouped = false;
            let mut pushes = vec![format!("t.session.{}", self.session), "t.all".to_owned()];
            pushes.extend(self.user.iter().map(|user| format!("t.user.{user}")));
            pushes.into_iter().for_each(|subject| self.hear(subject, ""));
        }
        self.received = connected.received;
    }

    fn hear(&mut self, subject: String, named: &str) {
        let since = self.judge.lock().live_count(&subject);
        let live = Live {
            named: named.to_owned(),
            since,
            last: None,
            last_of: HashMap::new(),
            came: Instant::now(),
            holes: Vec::new(),
        };
        self.live.insert(subject, live);
    }

    /// A counted frame; gives what it answers.
    pub(crate) fn frame(&mut self, frame: &v1::ServerFrame) -> Option<Ask> {
        self.received += 1;
        let answers = match frame.reply_to {
            0 => None,
            id => match self.open.remove(&id) {
                Some(ask) => Some(ask),
                None => {
                    self.fault("ANSWER-ONCE", format!("{id} is answered and does not wait: {:?}", frame.frame));
                    None
                }
            },
        };
        match frame.frame.as_ref() {
            Some(Answer::Delivery(envelope)) => self.delivery(envelope),
            Some(Answer::Gap(gap)) => self.gap(gap),
            Some(Answer::Subscribed(subscribed)) => self.subscribed(subscribed, answers.as_ref()),
            Some(Answer::Accepted(accepted)) => self.accepted(accepted, answers.as_ref()),
            Some(Answer::Presence(state)) => {
                self.presence.insert(state.channel.clone(), (Instant::now(), state.clone()));
            }
            Some(Answer::Error(error)) => self.note(format!("{} {} {}", frame.reply_to, error.reason, error.field)),
            _ => {}
        }
        // The groups of a session are joined before anything that it asks for in order is done.
        let in_order = matches!(answers, Some(Ask::Subscribe { .. } | Ask::Unsubscribe(_) | Ask::Publish { .. }));
        if in_order && !std::mem::replace(&mut self.grouped, true) {
            for group in self.groups.clone() {
                self.hear(format!("t.group.{group}"), "");
            }
        }
        answers
    }

    fn subscribed(&mut self, subscribed: &v1::Subscribed, ask: Option<&Ask>) {
        let channel = &subscribed.channel;
        self.note(format!("subscribed {channel} {} {}", subscribed.offset, subscribed.recovered));
        let Some(name) = ChannelName::parse(channel).ok() else { return };
        let Some(Ask::Subscribe { from, acked, .. }) = ask else {
            if !self.named.contains(channel) {
                self.fault("ANSWER-ONCE", format!("is told of {channel}, which it did not name"));
            }
            return;
        };
        if channel.starts_with("live:") || channel.starts_with("tick:") {
            return self.hear(self.subjects.channel(&name).to_string(), channel);
        }
        let inbox = channel.starts_with("inbox:");
        let sent = self.user.as_ref().and_then(|user| self.judge.lock().acks_sent.get(user).copied()).unwrap_or(0);
        let (at, slack) = match from {
            Some(from) => (*from, 0),
            None if inbox => (*acked, sent),
            None => (subscribed.offset, 0),
        };
        let subject = self.subjects.log(&name).to_string();
        // From 0 on is everything that is kept, whatever that is.
        let open_gap = *from == Some(0);
        self.stored.insert(channel.clone(), Stored { subject, at, open_gap, slack });
    }

    fn accepted(&mut self, accepted: &v1::Accepted, ask: Option<&Ask>) {
        match ask {
            Some(Ask::Publish { channel, id }) if accepted.offset > 0 => {
                let Ok(name) = ChannelName::parse(channel) else { return };
                let subject = self.subjects.log(&name).to_string();
                let there = self.judge.lock().stored(&subject, accepted.offset).map(str::to_owned);
                if there.as_ref() != Some(id) {
                    let offset = accepted.offset;
                    self.fault("ACCEPTED-IS-STORED", format!("{id} was accepted at {offset}, where {there:?} is"));
                }
            }
            Some(Ask::AckInbox(offset)) => {
                if let Some(user) = self.user.clone() {
                    let mut judge = self.judge.lock();
                    let agreed = judge.acks_agreed.entry(user).or_default();
                    *agreed = (*agreed).max(*offset);
                }
            }
            _ => {}
        }
    }

    fn delivery(&mut self, envelope: &v1::Envelope) {
        let v1::Envelope { id, channel, offset, .. } = envelope;
        self.note(format!("< {channel} {offset} {id}"));
        if *offset > 0 {
            return self.stored_delivery(envelope);
        }
        if !self.had.insert(id.clone()) {
            return self.fault("ONCE", format!("{id} came twice to {}", self.session));
        }
        let subject = id.split('/').next().unwrap_or_default();
        let judge = self.judge.lock();
        let place = judge.live_place(subject, id);
        drop(judge);
        let Some(place) = place else { return self.fault("MEANT", format!("{id} was never said at {subject}")) };
        let session = self.session.clone();
        let Some(ear) = self.live.get_mut(subject) else {
            let unknown = channel.is_empty() && !subject.starts_with("t.group.");
            return if unknown {
                self.fault("MEANT", format!("{id} came to {session}"))
            };
        };
        let v1::Source { session: by, service, node, .. } = envelope.source.clone().unwrap_or_default();
        let publisher = [by, service, node].into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        if ear.last_of.insert(publisher, place).is_some_and(|last| place <= last) {
            return self.fault("ORDER", format!("{id} came after a later one of its publisher"));
        }
        // What another publisher said before it may come later, where the client moves between nodes.
        if ear.last.is_some_and(|last| place <= last) {
            return;
        }
        let next = ear.last.map_or(ear.since, |last| last + 1);
        if place > next {
            let now = Instant::now();
            ear.holes.push((ear.came, now + TOLD_WITHIN, format!("{} before {id}", place - next)));
        }
        (ear.last, ear.came) = (Some(place), Instant::now());
    }

    fn stored_delivery(&mut self, envelope: &v1::Envelope) {
        let v1::Envelope { id, channel, offset, prev_offset, .. } = envelope;
        let Some(ear) = self.stored.get_mut(channel) else { return };
        let judge = self.judge.lock();
        let there = judge.stored(&ear.subject, *offset).map(str::to_owned);
        let missing = judge.between(&ear.subject, ear.at.max(ear.slack), *offset);
        drop(judge);
        let (at, told) = (ear.at, std::mem::take(&mut ear.open_gap));
        if *offset > at {
            ear.at = *offset;
        }
        let slack = ear.slack;
        if there.as_ref() != Some(id) {
            self.fault("MEANT", format!("{channel} {offset} is {there:?}, and came as {id}"));
        }
        if *offset <= at {
            return self.fault("ONCE", format!("{channel} {offset} came after {at}"));
        }
        if !missing.is_empty() && !told {
            self.fault("NO-SILENT-HOLE", format!("{channel} {missing:?} did not come before {offset}"));
        }
        if *prev_offset > at.max(slack) && !told {
            self.fault("PREVIOUS", format!("{channel} {offset} says that {prev_offset} is before it, had {at}"));
        }
    }

    fn gap(&mut self, gap: &v1::Gap) {
        self.note(format!("gap {:?} {}-{} {} {:?}", gap.channel, gap.from, gap.to, gap.count, gap.reason()));
        self.gaps.entry(gap.channel.clone()).or_default().push(Instant::now());
        let Some(ear) = self.stored.get_mut(&gap.channel) else { return };
        if gap.to == 0 {
            ear.open_gap = true;
            return;
        }
        let missing = self.judge.lock().between(&ear.subject, ear.at.max(ear.slack), gap.from.max(1));
        let told = ear.open_gap;
        ear.at = ear.at.max(gap.to);
        if gap.from > 0 && !missing.is_empty() && !told {
            self.fault("NO-SILENT-HOLE", format!("{} {missing:?} did not come before the gap", gap.channel));
        }
    }

    /// All is quiet: nothing is missing any more.
    pub(crate) fn settle(&mut self) {
        for (id, ask) in &self.open {
            self.fault("ANSWER-ONCE", format!("{id} was never answered: {ask:?}"));
        }
        for (channel, ear) in &self.stored {
            let missing = self.judge.lock().between(&ear.subject, ear.at.max(ear.slack), u64::MAX);
            if !missing.is_empty() && !ear.open_gap {
                self.fault("NO-SILENT-HOLE", format!("{channel} {missing:?} never came, nor was it told"));
            }
        }
        for (subject, ear) in &self.live {
            let said = self.judge.lock().live_count(subject);
            let next = ear.last.map_or(ear.since, |last| last + 1);
            let mut holes = ear.holes.clone();
            if said > next {
                holes.push((ear.came, Instant::now(), format!("{} at the end", said - next)));
            }
            let told = self.gaps.get(&ear.named);
            for (since, until, what) in holes {
                let told = told.is_some_and(|told| told.iter().any(|at| (since..=until).contains(at)));
                if !told {
                    self.fault("NO-SILENT-LOSS", format!("{subject}: {what} did not come, nor was it told"));
                }
            }
        }
    }
}
