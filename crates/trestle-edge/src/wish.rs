//! What others want of the task that owns a stay: the hub's services and operators, other tasks of the edge.
//!
//! In: a mail. Out: what is done about it, whether there is a socket or not; what needs the socket, or takes the stay away,
//! is left to the owner.

use std::{any::Any, time::Duration};

use tokio::sync::oneshot;
use trestle_hub::{Mail, Member};
use trestle_session::Event;
use trestle_wire::{GroupName, v1};

use crate::stay::{Asked, Stay};

/// What others want of the task that owns a stay, by [`Mail::Edge`].
pub(crate) enum Wish {
    /// The client has a new socket, here or on another node, which has the session in this epoch: give the stay up.
    Yield(oneshot::Sender<Box<Stay>>, u64),
    /// The client is about to move: remember what is delivered live.
    Remember(oneshot::Sender<()>),
    /// On which connection was the client heard last? The client has a new socket, and a token that has served.
    Heard(oneshot::Sender<u64>),
    /// The client is asked to connect again.
    Leave(v1::DrainNotice),
    /// Answers that came after the session had moved here.
    Late(Vec<v1::ServerFrame>),
    /// A group that could not be joined is tried again.
    Join(GroupName),
    /// The node that was to send answers is gone, or has had its time.
    NoMoreLate,
    /// Others are to see it on its channels, and did not when that was tried the last time, after this pause.
    Reappear(Duration),
    /// The session has gone on elsewhere, without a word to this node.
    Gone,
}

impl Wish {
    /// Puts it into a member's mailbox; `false` if its task has ended or does not keep up.
    pub(crate) fn send(self, member: &Member) -> bool {
        let wish: Box<dyn Any + Send> = Box::new(self);
        member.mail.post(Mail::Edge(wish)).is_ok()
    }
}

/// What a mail leaves to the owner of a stay.
#[allow(clippy::large_enum_variant)] // one at a time, on the stack, and gone before the next
pub(crate) enum Told {
    Asked(Asked),
    /// The stay is wanted, whole.
    Yield(oneshot::Sender<Box<Stay>>),
    /// The client is to be asked to connect again.
    Leave(v1::DrainNotice),
}

impl Stay {
    /// Does what others want.
    pub(crate) fn told(&mut self, mail: Mail) -> Told {
        let wish = match mail {
            Mail::Update { change, done } => return Told::Asked(self.update(change, done)),
            Mail::Kick { reason } => return Told::Asked(self.kick(reason)),
            Mail::Edge(wish) => wish.downcast::<Wish>(),
        };
        let mut asked = Asked::default();
        match wish.map(|wish| *wish) {
            Ok(Wish::Yield(give, epoch)) if epoch > self.epoch => return Told::Yield(give),
            // The client has come again since.
            Ok(Wish::Yield(..)) => {}
            Ok(Wish::Leave(notice)) => return Told::Leave(notice),
            Ok(Wish::Remember(done)) => {
                self.remember();
                // Whoever asked may have gone.
                let _told = done.send(());
            }
            Ok(Wish::Late(frames)) => self.heard_late(frames),
            Ok(Wish::Heard(tell)) => {
                let _told = tell.send(self.heard());
            }
            Ok(Wish::NoMoreLate) => self.give_up_late(),
            Ok(Wish::Reappear(paused)) => self.reappear_again(paused),
            Ok(Wish::Join(group)) => self.join(group),
            Ok(Wish::Gone) => asked = self.on(Event::Claimed),
            // Nobody sends anything else.
            Err(_) => {}
        }
        Told::Asked(asked)
    }
}
