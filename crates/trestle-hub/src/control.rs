//! What is to be done with sessions: their groups and tags changed, or an end made.
//!
//! In: a [`v1::Control`] of the bus. Out: [`Mail`] for each client's task that it concerns, and the number of those that
//! have done it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, timeout_at},
};
use trestle_bus::{Heard, Message, Subscription};
use trestle_wire::{
    GroupName, SessionId, UserId,
    v1::{self, control::Action, target::Target},
};

use crate::{
    Audience, Delivered, Mail, Members,
    listen::Core,
    slices::{Pick, SLICE},
};

/// How long clients' tasks may take: each does it between two steps, and a group's subject may have to be subscribed.
const DONE_TIMEOUT: Duration = Duration::from_secs(2);
/// Most that is waited for at once: 1,024 tasks of about 1 KiB. What comes beside is done too, but nobody is told so.
pub(crate) const CONTROLS_MAX: usize = 1024;

impl Core {
    /// Does what the bus says of several sessions, until it is closed.
    pub(crate) async fn pump_control(self: Arc<Self>, mut subscription: Subscription) {
        while let Some(heard) = subscription.next().await {
            match heard {
                Heard::Message(message) => self.control(message).await,
                // Whoever asked hears of too few sessions.
                Heard::Lost(count) => tracing::warn!(count, "the bus lost what was to be done with sessions"),
            }
        }
    }

    /// Begins to do it, and answers when it is done. Does not wait for that: pushes may be behind it.
    pub(crate) async fn control(self: &Arc<Self>, message: Message) {
        let Some(control) = self.read_as::<v1::Control>(&message) else { return };
        let (Some(target), Some(action)) = (control.target.and_then(|target| target.target), control.action) else {
            self.metrics.malformed.inc();
            return tracing::warn!(subject = %message.subject, "a control without a target or an action");
        };
        let one = matches!(target, Target::Session(_));
        let (members, pick) = self.meant(target);
        // What is for one session is answered by the node that holds it; for several, whoever asks waits for all nodes.
        if members.is_empty() && one {
            return;
        }
        let posted = post(members, pick, action).await;
        let Ok(one_of_few) = Arc::clone(&self.controls).try_acquire_owned() else {
            return tracing::warn!("too much is to be done with sessions at once; who asks for it is not told of more");
        };
        let core = Arc::clone(self);
        tokio::spawn(async move {
            let delivered = done(posted).await;
            core.answer(message.reply_to, Delivered { delivered, ..Delivered::default() }).await;
            drop(one_of_few);
        });
    }

    /// The sessions of this node among which are those that `target` means, and which of them it means, if not all.
    fn meant(&self, target: Target) -> (Members, Option<Pick>) {
        let room = |audience: Option<Audience>| {
            let room = audience.and_then(|audience| self.room(&audience));
            room.map_or_else(Members::new, |room| room.inside(|inside| inside.members.clone()))
        };
        let everyone = |pick: Pick| (self.everyone.inside(|inside| inside.members.clone()), Some(pick));
        match target {
            Target::Session(id) => {
                let session = SessionId::parse(&id).ok();
                let member = session.and_then(|session| self.sessions.lock().get(&session).cloned());
                (member.into_iter().collect(), None)
            }
            Target::User(user) => (room(UserId::parse(&user).ok().map(Audience::User)), None),
            Target::Group(group) => (room(GroupName::parse(&group).ok().map(Audience::Group)), None),
            Target::Tags(selector) => match self.selector(&selector) {
                Some(Some(selector)) => everyone(Box::new(move |member| selector.matches(&member.facts.lock().tags))),
                // Without a selector it is for everyone, which is another target.
                Some(None) | None => (Members::new(), None),
            },
            Target::Everyone(v1::Everyone { except_sessions }) => {
                let except: HashSet<String> = except_sessions.into_iter().collect();
                everyone(Box::new(move |member| !except.contains(member.session.as_str())))
            }
            // Nobody's sessions.
            Target::Channel(_) | Target::Inbox(_) => (Members::new(), None),
        }
    }
}

/// Tells each of `members` that is picked. Those that change something will say when it is in force; for an end no word is
/// awaited.
async fn post(members: Members, pick: Option<Pick>, action: Action) -> (u32, Vec<oneshot::Receiver<()>>) {
    let (mut posted, mut told) = (0, Vec::new());
    for (number, member) in members.iter().enumerate() {
        if number > 0 && number.is_multiple_of(SLICE) {
            yield_now().await;
        }
        if pick.as_ref().is_some_and(|pick| !pick(member)) {
            continue;
        }
        // A mailbox that is full or closed gives it back, and drops `done`.
        match &action {
            Action::Update(change) => {
                let (done, hears) = oneshot::channel();
                let _not_told = member.mail.post(Mail::Update { change: change.clone(), done });
                told.push(hears);
            }
            Action::Kick(kick) => {
                posted += u32::from(member.mail.post(Mail::Kick { reason: kick.reason.clone() }).is_ok());
            }
        }
    }
    (posted, told)
}

/// How many have done it in time.
async fn done((posted, told): (u32, Vec<oneshot::Receiver<()>>)) -> u32 {
    let (mut count, end) = (posted, Instant::now() + DONE_TIMEOUT);
    for one in told {
        if matches!(timeout_at(end, one).await, Ok(Ok(()))) {
            count += 1;
        }
    }
    count
}
