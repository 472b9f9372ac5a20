//! Who waits for a service to acknowledge a message of ack level HANDLED.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::oneshot;
use trestle_bus::{BusError, Fabric, Heard, Subject};
use trestle_wire::v1;

/// A message, by its session and its id.
type Key = (String, String);

/// The waiting messages of this node.
#[derive(Default)]
pub(crate) struct Handled {
    waiting: Mutex<HashMap<Key, oneshot::Sender<()>>>,
}

/// One waiting message; dropping it ends the wait.
pub(crate) struct Waiting {
    handled: Arc<Handled>,
    key: Key,
    told: oneshot::Receiver<()>,
}

impl Handled {
    /// Listens to the node's acknowledgements for as long as the bus lives.
    pub(crate) async fn listen(fabric: &Fabric, subject: &Subject) -> Result<Arc<Self>, BusError> {
        let mut subscription = fabric.bus.subscribe(subject, None).await?;
        let handled = Arc::new(Self::default());
        let table = Arc::clone(&handled);
        tokio::spawn(async move {
            while let Some(heard) = subscription.next().await {
                // A lost acknowledgement is answered by the timeout: the client is told DURABLE, which is true.
                let Heard::Message(message) = heard else { continue };
                let Ok(notice) = v1::Handled::decode(message.payload) else { continue };
                let waiting = table.waiting.lock().remove(&(notice.session, notice.envelope_id));
                if let Some(waiting) = waiting {
                    // The connection may just have gone.
                    let _told = waiting.send(());
                }
            }
        });
        Ok(handled)
    }

    /// Begins to wait. To be called before the message is stored, or the acknowledgement may come first.
    pub(crate) fn wait(self: &Arc<Self>, session: &str, envelope_id: &str) -> Waiting {
        let key = (session.to_owned(), envelope_id.to_owned());
        let (tell, told) = oneshot::channel();
        self.waiting.lock().insert(key.clone(), tell);
        Waiting { handled: Arc::clone(self), key, told }
    }
}

impl Waiting {
    /// Returns once a service has acknowledged the message; `false` if the same id was sent again and waits instead.
    pub(crate) async fn done(mut self) -> bool {
        (&mut self.told).await.is_ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // So that its own entry is known from that of a repeated id.
        self.told.close();
        // Nothing is there any more once told; a repeated id has put its own in place, which then stays.
        let mut waiting = self.handled.waiting.lock();
        if waiting.get(&self.key).is_some_and(oneshot::Sender::is_closed) {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_is_dropped_leaves_nothing_behind() {
        let handled = Arc::new(Handled::default());
        drop(handled.wait("s", "1"));
        assert!(handled.waiting.lock().is_empty());
    }

    #[test]
    fn a_repeated_id_keeps_its_own_wait() {
        let handled = Arc::new(Handled::default());
        let first = handled.wait("s", "1");
        let second = handled.wait("s", "1");
        drop(first);
        assert_eq!(handled.waiting.lock().len(), 1);
        drop(second);
        assert!(handled.waiting.lock().is_empty());
    }
}
