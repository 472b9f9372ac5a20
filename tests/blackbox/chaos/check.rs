//! Reads what was said and what was heard, and says what does not fit.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

/// Who says the last word on a channel, after which a listener stops.
pub(super) const LAST: u32 = u32::MAX;

/// A message that a speaker has published.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) channel: &'static str,
    pub(super) speaker: u32,
    pub(super) number: u64,
    /// What the gateway said: the offset, 0 where there is no history; `None` if it did not accept it.
    pub(super) acked: Option<u64>,
    /// When it said so.
    pub(super) at: Instant,
}

/// Something that a listener has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Message { speaker: u32, number: u64, offset: u64 },
    Gap { from: u64, to: u64 },
}

/// What one listener has got of one channel.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) listener: String,
    pub(super) channel: &'static str,
    /// The offset at which it began; everything after it is for it.
    pub(super) start: u64,
    pub(super) heard: Vec<(Instant, Heard)>,
}

/// Events after a loss that are shown with it.
const AROUND: usize = 12;

/// Losses of one log that are shown.
const SHOWN: usize = 5;

/// What the logs come to.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) said: usize,
    pub(super) acked: usize,
    /// Acked messages times listeners, each looked for.
    pub(super) checked: usize,
    /// Told missing, on channels without a history.
    pub(super) told: usize,
    /// Each gap that was told: by whom it was heard, where, and what came around it.
    pub(super) gaps: Vec<String>,
    /// Missing without a word where only RECEIVED was promised and [`Bus::Broken`].
    pub(super) unheard: usize,
    /// Longest time from the ack of a message until a listener had it: how long recovery took.
    pub(super) lag: Duration,
    /// What must not be: losses that nobody was told of, duplicates, wrong order.
    pub(super) faults: Vec<String>,
}

/// Whether a channel keeps a history.
fn keeps(channel: &str) -> bool {
    channel.starts_with("room:")
}

/// What becomes of a message that the bus has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    Whole,
    /// A server of it dies, and with it what it was just given: RECEIVED promises no more than that a connected bus took it,
    /// and who was to hear it on other nodes cannot know.
    Broken,
}

/// Holds every log against what was said.
pub(super) fn check(said: &[Said], logs: &[Log], bus: Bus) -> Verdict {
    let mut verdict = Verdict {
        said: said.len(),
        acked: said.iter().filter(|said| said.acked.is_some()).count(),
        ..Verdict::default()
    };
    let mut acked_at = HashMap::new();
    for said in said.iter().filter(|said| said.acked.is_some()) {
        acked_at.insert((said.channel, said.speaker, said.number), said.at);
    }
    for log in logs {
        let acked: Vec<_> = said.iter().filter(|said| said.channel == log.channel && said.acked.is_some()).collect();
        verdict.checked += acked.len();
        once_and_in_order(log, &mut verdict);
        let told = if keeps(log.channel) { complete(log, &acked) } else { honest(log, &acked) };
        match told {
            Ok(told) => verdict.told += told,
            Err(Lost { count, .. }) if bus == Bus::Broken && !keeps(log.channel) => verdict.unheard += count,
            Err(Lost { fault, .. }) => verdict.faults.push(format!("{} on {}: {fault}", log.listener, log.channel)),
        }
        for (at, _) in log.heard.iter().enumerate().filter(|(_, (_, heard))| matches!(heard, Heard::Gap { .. })) {
            let around = &log.heard[at.saturating_sub(AROUND)..(at + AROUND).min(log.heard.len())];
            let around: Vec<_> = around.iter().map(|(_, heard)| heard).collect();
            verdict.gaps.push(format!("{} on {}, where it heard {around:?}", log.listener, log.channel));
        }
        for (at, heard) in &log.heard {
            let Heard::Message { speaker, number, .. } = heard else { continue };
            if let Some(acked) = acked_at.get(&(log.channel, *speaker, *number)) {
                verdict.lag = verdict.lag.max(at.saturating_duration_since(*acked));
            }
        }
    }
    verdict
}

/// Offsets only grow, and so do the numbers of each speaker.
fn once_and_in_order(log: &Log, verdict: &mut Verdict) {
    let (mut offset, mut numbers) = (log.start, HashMap::new());
    for (_, heard) in &log.heard {
        let Heard::Message { speaker, number, offset: at } = heard else { continue };
        let last = numbers.insert(*speaker, *number).unwrap_or(0);
        // The last word is said until all have heard it.
        if *speaker != LAST && *number <= last {
            verdict.faults.push(format!(
                "{} on {}: {number} of speaker {speaker} after {last}: twice, or out of order",
                log.listener, log.channel
            ));
        }
        if keeps(log.channel) {
            if *at <= offset {
                verdict.faults.push(format!("{} on {}: offset {at} after {offset}", log.listener, log.channel));
            }
            offset = *at;
        }
    }
}

/// Missing without a word.
struct Lost {
    count: usize,
    fault: String,
}

impl Lost {
    fn none_of(lost: &[String], told: usize) -> Result<usize, Self> {
        if lost.is_empty() {
            return Ok(told);
        }
        let some = lost.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        Err(Self { count: lost.len(), fault: format!("{} lost silently: {some}", lost.len()) })
    }
}

/// On a channel with a history, every acked message is there by its offset; gaps that are told are counted.
fn complete(log: &Log, acked: &[&Said]) -> Result<usize, Lost> {
    let mut offsets = HashSet::new();
    let mut gaps = Vec::new();
    for (_, heard) in &log.heard {
        match heard {
            Heard::Message { offset, .. } => _ = offsets.insert(*offset),
            Heard::Gap { from, to } => gaps.push(*from..=*to),
        }
    }
    let mut told = 0;
    let missing = acked.iter().filter_map(|said| Some((said, said.acked?)));
    let missing = missing.filter(|(_, offset)| *offset > log.start && !offsets.contains(offset));
    let mut lost = Vec::new();
    for (said, offset) in missing {
        if gaps.iter().any(|gap| gap.contains(&offset)) {
            told += 1;
        } else {
            lost.push(format!("{} of speaker {} at offset {offset}", said.number, said.speaker));
        }
    }
    Lost::none_of(&lost, told)
}

/// On a channel without one, what is missing lies where a gap was told: between what was heard before and after it.
fn honest(log: &Log, acked: &[&Said]) -> Result<usize, Lost> {
    let mut by_speaker: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for said in acked {
        by_speaker.entry(said.speaker).or_default().push(said.number);
    }
    let (mut told, mut lost) = (0, Vec::new());
    for (speaker, numbers) in by_speaker {
        let heard: Vec<(usize, u64)> = log
            .heard
            .iter()
            .enumerate()
            .filter_map(|(at, (_, heard))| match heard {
                Heard::Message { speaker: by, number, .. } if *by == speaker => Some((at, *number)),
                _ => None,
            })
            .collect();
        let there: HashSet<u64> = heard.iter().map(|(_, number)| *number).collect();
        for number in numbers.into_iter().filter(|number| !there.contains(number)) {
            let before = heard.iter().rev().find(|(_, other)| *other < number).map_or(0, |(at, _)| *at);
            let after = heard.iter().find(|(_, other)| *other > number).map_or(log.heard.len(), |(at, _)| *at);
            let between = &log.heard[before..after.max(before)];
            if between.iter().any(|(_, heard)| matches!(heard, Heard::Gap { .. })) {
                told += 1;
            } else {
                let around = &log.heard[before..(after + AROUND).min(log.heard.len())];
                let around: Vec<_> = around.iter().map(|(_, heard)| heard).collect();
                lost.push(format!("{number} of speaker {speaker}, where it heard {around:?}"));
            }
        }
    }
    Lost::none_of(&lost, told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(channel: &'static str, heard: &[Heard]) -> Log {
        let heard = heard.iter().map(|heard| (Instant::now(), heard.clone())).collect();
        Log { listener: "a".into(), channel, start: 0, heard }
    }

    fn said(channel: &'static str) -> Vec<Said> {
        (1..=4).map(|number| Said { channel, speaker: 1, number, acked: Some(number), at: Instant::now() }).collect()
    }

    fn heard(number: u64) -> Heard {
        Heard::Message { speaker: 1, number, offset: number }
    }

    fn faults(channel: &'static str, log_of: &[Heard]) -> String {
        check(&said(channel), &[log(channel, log_of)], Bus::Whole).faults.join("; ")
    }

    #[test]
    fn what_is_whole_has_no_fault() {
        for channel in ["room:1", "live:1"] {
            assert_eq!(faults(channel, &[heard(1), heard(2), heard(3), heard(4)]), "");
            assert_eq!(faults(channel, &[heard(1), Heard::Gap { from: 2, to: 3 }, heard(4)]), "");
        }
    }

    #[test]
    fn a_loss_a_duplicate_and_a_wrong_order_are_found() {
        for channel in ["room:1", "live:1"] {
            assert!(faults(channel, &[heard(1), heard(3), heard(4)]).contains("1 lost silently: 2 of speaker 1"));
            assert!(faults(channel, &[heard(1), heard(2), heard(2), heard(3), heard(4)]).contains("twice"));
            assert!(faults(channel, &[heard(1), heard(3), heard(2), heard(4)]).contains("out of order"));
            assert!(
                faults(channel, &[Heard::Gap { from: 1, to: 1 }, heard(1), heard(2), heard(3)])
                    .contains("4 of speaker 1")
            );
        }
    }

    #[test]
    fn where_the_bus_broke_only_histories_are_whole() {
        for (channel, faults) in [("room:1", 1), ("live:1", 0)] {
            let verdict = check(&said(channel), &[log(channel, &[heard(1), heard(3), heard(4)])], Bus::Broken);
            assert_eq!((verdict.faults.len(), verdict.unheard), (faults, 1 - faults), "{channel}");
        }
    }
}
