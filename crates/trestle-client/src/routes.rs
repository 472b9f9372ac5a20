//! Who in the program listens to what: a frame that came unasked in, the inboxes of its channel out.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use trestle_wire::v1;

use crate::{Event, connection::Listener, inbox::Inbox};

/// The inboxes of a client.
pub(crate) struct Routes {
    channels: Mutex<HashMap<String, Vec<Arc<Inbox<Event>>>>>,
    /// For what is of no channel.
    pushes: Arc<Inbox<Event>>,
}

impl Routes {
    pub(crate) fn new(pushes: Arc<Inbox<Event>>) -> Self {
        Self { channels: Mutex::default(), pushes }
    }

    pub(crate) fn add(&self, channel: &str, inbox: Arc<Inbox<Event>>) {
        self.channels.lock().entry(channel.to_owned()).or_default().push(inbox);
    }

    /// Whether that was the last of the channel.
    pub(crate) fn remove(&self, channel: &str, inbox: &Arc<Inbox<Event>>) -> bool {
        let mut channels = self.channels.lock();
        let Some(inboxes) = channels.get_mut(channel) else { return false };
        inboxes.retain(|other| !Arc::ptr_eq(other, inbox));
        let last = inboxes.is_empty();
        if last {
            channels.remove(channel);
        }
        last
    }
}

impl Listener<v1::ServerFrame> for Routes {
    fn hear(&self, frame: v1::ServerFrame) {
        let Some(event) = Event::of(frame) else { return };
        if event.channel().is_empty() {
            return self.pushes.offer(event);
        }
        // Nobody: the last one has just left, and the gateway does not know yet.
        let channels = self.channels.lock();
        let Some((last, others)) = channels.get(event.channel()).and_then(|inboxes| inboxes.split_last()) else {
            return;
        };
        others.iter().for_each(|inbox| inbox.offer(event.clone()));
        last.offer(event);
    }

    fn end(&self) {
        self.channels.lock().values().flatten().for_each(|inbox| inbox.end());
        self.pushes.end();
    }
}
