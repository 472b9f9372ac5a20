//! Live messages of a session that moves between two nodes: both hear them for a moment, and one writes them.
//!
//! What always holds: a message is written by one of them; what comes after a later one of its publisher is told as lost.
//! What different publishers say may come to two nodes in different order, and each order is as good.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use trestle_session::{Label, Taken};
use trestle_wire::{
    ChannelName,
    v1::{self, GapReason},
};

use crate::stay::{Stay, now};

/// How long a live message that a client had from another node may still come here: nodes hear the same message at
/// different times, healthy servers of a cluster within milliseconds.
const HAD_FOR: Duration = Duration::from_secs(10);
/// Ids of live messages that are remembered while a client moves to another node, the latest: a second at 4,096 messages.
const REMEMBERED_MAX: usize = 4096;

/// Live messages that a client has had from another node.
pub(crate) struct Had {
    ids: HashSet<u64>,
    until: Instant,
}

impl Had {
    /// Takes out what is among them; of a publisher of whom a later message on the channel is, also what stands before that:
    /// the other node has dropped it. Gives how many of each channel.
    fn take_out(&self, taken: &mut Vec<Taken>) -> BTreeMap<ChannelName, u64> {
        let (mut later, mut late) = (HashSet::new(), BTreeMap::new());
        taken.reverse();
        taken.retain(|one| match one {
            Taken::Frame(frame) => {
                let Some(label) = frame.label().filter(|label| label.offset == 0) else { return true };
                let Some(channel) = &label.channel else { return !self.ids.contains(&label.id) };
                if self.ids.contains(&label.id) {
                    later.insert((channel.clone(), label.publisher));
                    return false;
                }
                let is_late = later.contains(&(channel.clone(), label.publisher));
                if is_late {
                    *late.entry(channel.clone()).or_default() += 1;
                }
                !is_late
            }
            Taken::Gap(_) => true,
        });
        taken.reverse();
        late
    }
}

impl Stay {
    /// From now on the ids of live messages are remembered.
    pub(crate) fn remember(&mut self) {
        self.remembered.get_or_insert_default();
    }

    /// A message goes out.
    pub(crate) fn remember_one(&mut self, label: Option<&Label>) {
        let (Some(remembered), Some(label)) = (&mut self.remembered, label.filter(|label| label.offset == 0)) else {
            return;
        };
        if remembered.len() == REMEMBERED_MAX {
            remembered.pop_front();
        }
        remembered.push_back(label.id);
    }

    /// The ids that were, and those that another node has remembered.
    pub(crate) fn remembered(&mut self) -> Vec<u64> {
        let had = self.had.iter().flat_map(|had| &had.ids).copied();
        self.remembered.take().unwrap_or_default().into_iter().chain(had).take(REMEMBERED_MAX).collect()
    }

    /// Live messages of these ids have come by another node, and are not to be written again, also if the bus brings them
    /// here only later.
    pub(crate) fn had_elsewhere(&mut self, ids: HashSet<u64>) {
        // A stay that goes on here keeps what it knows.
        if !ids.is_empty() {
            self.had = Some(Box::new(Had { ids, until: now() + HAD_FOR }));
        }
    }

    /// Keeps what is still to be written of what was taken from the outbox.
    pub(crate) fn retain_wanted(&mut self, taken: &mut Vec<Taken>) {
        let Some(had) = &self.had else { return };
        let late = had.take_out(taken).into_iter().map(|(channel, count)| {
            let (channel, reason) = (channel.to_string(), GapReason::Failover.into());
            Taken::Gap(Box::new(v1::Gap { channel, count, reason, ..v1::Gap::default() }))
        });
        taken.splice(0..0, late);
        // What waits may have come before.
        if had.until <= now() && self.member.outbox.is_empty() {
            self.had = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use trestle_codec::{Encoding, encode};
    use trestle_schema::{SchemaSource, Schemas};
    use trestle_session::Finished;

    use super::*;

    #[test]
    fn what_came_by_the_other_node_goes_and_so_does_what_its_publisher_said_before() {
        let schemas = Schemas::open(SchemaSource::Files(Vec::new())).expect("no files are sound");
        let name = |name: &str| ChannelName::parse(name).ok();
        let frame = |id, channel: &str, publisher| {
            let label = Label { id, publisher, channel: name(channel), ..Label::default() };
            let frame = encode(Encoding::Json, &v1::ServerFrame::default(), &schemas.current());
            Taken::Frame(Finished::labelled(frame, label))
        };
        let had = Had { ids: HashSet::from([3, 6]), until: now() };
        let waits = [(1, "a:1", 1), (7, "a:1", 2), (2, "b:1", 1), (3, "a:1", 1), (4, "a:1", 1), (5, "", 1), (6, "", 1)];
        let mut taken: Vec<_> = waits.map(|(id, channel, publisher)| frame(id, channel, publisher)).into();
        assert_eq!(had.take_out(&mut taken), BTreeMap::from([(name("a:1").expect("a name"), 1)]));
        let left = taken.iter().map(|one| match one {
            Taken::Frame(frame) => frame.label().map_or(0, |label| label.id),
            Taken::Gap(_) => 0,
        });
        let why = "neither what another publisher said, nor what is no channel's, is held against the order";
        assert_eq!(left.collect::<Vec<_>>(), [7, 2, 4, 5], "{why}");
    }
}
