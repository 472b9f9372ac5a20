//! What is counted of the spill.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its session has all that one may have.
    Session,
    /// All that the node may have is taken.
    Node,
    /// The disk does not keep up, and memory has no more room.
    Memory,
    /// The disk does not work.
    Disk,
}

impl Refused {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Session, Self::Node, Self::Memory, Self::Disk];
}

/// Label of the counter of refusals.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The spill's metrics.
pub(crate) struct Metrics {
    /// Bytes of frames that were put and not yet read.
    pub(crate) bytes: Gauge,
    /// Bytes of the file, with what is free in it.
    pub(crate) file_bytes: Gauge,
    /// Sessions of which something was spilled and not all read.
    pub(crate) sessions: Gauge,
    /// Frames written to the disk.
    pub(crate) written: Counter,
    refused: [Counter; Refused::ALL.len()],
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let refusals = Family::<Reason, Counter>::default();
        let counter = |refused| refusals.get_or_create(&Reason { reason: word(refused) }).clone();
        let metrics = Self {
            bytes: Gauge::default(),
            file_bytes: Gauge::default(),
            sessions: Gauge::default(),
            written: Counter::default(),
            refused: Refused::ALL.map(counter),
        };
        let spill = registry.sub_registry_with_prefix("trestle_spill");
        let name = "bytes";
        spill.register(name, "Bytes of frames that wait outside of outboxes, for slow clients", metrics.bytes.clone());
        spill.register("file_bytes", "Bytes of disk that the spill has", metrics.file_bytes.clone());
        spill.register("sessions", "Sessions for which something is spilled", metrics.sessions.clone());
        spill.register("frames_written", "Frames written to the disk", metrics.written.clone());
        spill.register("refused", "Frames that were not spilled, so that their clients were parted from", refusals);
        metrics
    }

    /// One more was not taken.
    pub(crate) fn refused(&self, refused: Refused) {
        self.refused[refused as usize].inc();
    }
}

/// The reason as the metric and the log say it.
pub(crate) fn word(refused: Refused) -> &'static str {
    match refused {
        Refused::Session => "session",
        Refused::Node => "node",
        Refused::Memory => "memory",
        Refused::Disk => "disk",
    }
}

/// A count as a gauge has it.
pub(crate) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
