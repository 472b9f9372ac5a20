//! One service as this node sees it: its attached instances, and the intakes that run while somebody takes their type.
//!
//! The lock is held for a choice or a count, never across a wait. Every credit that comes back is announced by
//! [`Service::freed`], which remembers: whoever looks later sees that something has changed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trestle_wire::{ServiceName, v1};

use crate::{
    instance::{Handed, Instance},
    metrics::{Metrics, ServiceMetrics, Telling},
    parcel::{Parcel, Task},
    pool::{InstanceId, Pool},
};

/// One service on this node.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: ServiceName,
    state: Mutex<State>,
    freed: watch::Sender<()>,
    /// The intakes that have not ended.
    pub(crate) running: TaskTracker,
    /// What is counted of it.
    pub(crate) metrics: ServiceMetrics,
}

#[derive(Debug, Default)]
struct State {
    pool: Pool,
    instances: HashMap<InstanceId, Arc<Instance>>,
    intakes: HashMap<Arc<str>, Intake>,
    /// Instances that want to know of sessions, in turn: the next one is the first.
    listeners: VecDeque<Arc<Instance>>,
    /// Takes session events off the bus while there is a listener.
    events: Option<Intake>,
}

/// What takes one type off the bus; dropping it stops that.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Stops it when dropped.
    pub(crate) _stop: tokio_util::sync::DropGuard,
    /// True once its subscription or consumer is in force.
    pub(crate) ready: Vec<watch::Receiver<bool>>,
}

/// All services on this node.
#[derive(Debug, Default)]
pub(crate) struct Services(Mutex<HashMap<ServiceName, Arc<Service>>>);

impl Services {
    /// The service of that name; it stays once somebody has attached, so that its number is that of the routes.
    pub(crate) fn get(&self, name: &ServiceName, metrics: &Metrics) -> Arc<Service> {
        let mut services = self.0.lock();
        let service = services.entry(name.clone()).or_insert_with(|| {
            Arc::new(Service {
                name: name.clone(),
                state: Mutex::default(),
                freed: watch::Sender::new(()),
                running: TaskTracker::new(),
                metrics: metrics.of(name),
            })
        });
        service.clone()
    }
}

impl Service {
    /// Lets an instance take part. `start` makes the intake of a type that nobody has taken so far.
    ///
    /// Returns what tells whether its types are heard.
    pub(crate) fn attach(
        &self,
        instance: &Arc<Instance>,
        takes: HashSet<Arc<str>>,
        max: u32,
        start: impl Fn(&Arc<str>) -> Intake,
    ) -> Vec<watch::Receiver<bool>> {
        let mut state = self.state.lock();
        let mut ready = Vec::new();
        for message_type in &takes {
            let intake = state.intakes.entry(message_type.clone()).or_insert_with(|| start(message_type));
            ready.extend(intake.ready.iter().cloned());
        }
        state.pool.add(instance.id, takes, max);
        state.instances.insert(instance.id, instance.clone());
        self.metrics.instances(1);
        drop(state);
        self.freed.send_replace(());
        ready
    }

    /// Lets an attached instance hear of sessions. `start` makes the intake if there is none.
    ///
    /// Returns what tells whether they are heard.
    pub(crate) fn listen(
        &self,
        instance: &Arc<Instance>,
        start: impl FnOnce() -> Intake,
    ) -> Vec<watch::Receiver<bool>> {
        let mut state = self.state.lock();
        state.listeners.push_back(instance.clone());
        state.events.get_or_insert_with(start).ready.clone()
    }

    /// Tells one instance, in turn, what happened to a session; one without room is passed over.
    pub(crate) fn tell(&self, mut event: v1::SessionEvent) {
        let mut state = self.state.lock();
        for _ in 0..state.listeners.len() {
            state.listeners.rotate_left(1);
            let Some(instance) = state.listeners.back() else { break };
            match instance.tell(event) {
                Ok(()) => return self.metrics.told(Telling::Told),
                Err(back) => event = back,
            }
        }
        self.metrics.told(Telling::NoRoom);
    }

    /// Parts with an instance; intakes whose type nobody takes any more stop. Returns what it had in hand, and what of
    /// it was late.
    pub(crate) fn detach(&self, instance: &Instance) -> (Vec<Task>, Vec<Task>) {
        let mut state = self.state.lock();
        if state.instances.remove(&instance.id).is_some() {
            self.metrics.instances(-1);
        }
        self.leave(&mut state, instance.id);
        let wanted = state.pool.types();
        state.intakes.retain(|message_type, _| wanted.contains(message_type));
        state.listeners.retain(|listener| listener.id != instance.id);
        if state.listeners.is_empty() {
            state.events = None;
        }
        drop(state);
        instance.end()
    }

    /// Gives a parcel to the instance that is next; gives it back if none has room.
    pub(crate) fn offer(&self, mut parcel: Box<Parcel>) -> Result<(), Box<Parcel>> {
        loop {
            let Some(instance) = self.next(&parcel.task.message_type) else { return Err(parcel) };
            match instance.deliver(*parcel) {
                Handed::Over => return Ok(()),
                Handed::NotWanted => {
                    self.release(instance.id, 1);
                    return Ok(());
                }
                // Its conversation is about to detach it; until then it is not asked again.
                Handed::Ended(back) => {
                    self.leave(&mut self.state.lock(), instance.id);
                    parcel = back;
                }
            }
        }
    }

    /// Deliveries have left an instance's hand.
    pub(crate) fn release(&self, id: InstanceId, count: usize) {
        let mut state = self.state.lock();
        let released = state.pool.release(id, u32::try_from(count).unwrap_or(u32::MAX));
        self.metrics.in_flight(-i64::from(released));
        drop(state);
        self.freed.send_replace(());
    }

    /// Replaces an instance's limit.
    pub(crate) fn resize(&self, id: InstanceId, max: u32) {
        self.state.lock().pool.resize(id, max);
        self.freed.send_replace(());
    }

    /// How many deliveries of a type there is room for now.
    pub(crate) fn free(&self, message_type: &str) -> u32 {
        self.state.lock().pool.free(message_type)
    }

    /// Changes whenever there may be more room than before.
    pub(crate) fn freed(&self) -> watch::Receiver<()> {
        self.freed.subscribe()
    }

    /// Waits until every intake has ended: whatever was taken off the bus is with an instance then, or given back. For
    /// a node that drains; it starts no more of them.
    pub(crate) async fn intakes_ended(&self) {
        self.running.close();
        self.running.wait().await;
    }

    fn next(&self, message_type: &str) -> Option<Arc<Instance>> {
        let mut state = self.state.lock();
        let id = state.pool.take(message_type)?;
        self.metrics.in_flight(1);
        state.instances.get(&id).cloned()
    }

    fn leave(&self, state: &mut State, id: InstanceId) {
        let in_flight = state.pool.remove(id);
        self.metrics.in_flight(-i64::from(in_flight));
    }
}

impl Intake {
    /// An intake that stops with `stop`.
    pub(crate) fn new(stop: CancellationToken, ready: Vec<watch::Receiver<bool>>) -> Self {
        Self { _stop: stop.drop_guard(), ready }
    }
}
