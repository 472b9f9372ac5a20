//! How far a program has come in a channel: what is new, what it has had, and what is missing in between.

use trestle_wire::v1;

use crate::Since;

/// How far the messages of one channel were handed out. Channels without a history have no offsets and no place.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Everything up to here was handed out, or told as a gap.
    upto: Option<u64>,
    /// A gap without an end was told since, so that the next message says where it ends.
    open_gap: bool,
}

/// What a message is.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    New,
    /// Was handed out before.
    Old,
    /// New, but what lies between is missing, and nobody said so.
    After(v1::Gap),
}

impl Place {
    /// The last offset; 0 where there is none.
    pub(crate) fn upto(&self) -> Option<u64> {
        self.upto
    }

    /// The gateway has agreed that the client listens from there.
    pub(crate) fn begin(&mut self, since: Since, subscribed: &v1::Subscribed) {
        self.upto = match since {
            Since::Now => Some(subscribed.offset).filter(|offset| *offset > 0),
            Since::Offset(offset) => Some(offset).filter(|offset| *offset > 0),
            Since::Last(_) | Since::Time(_) => None,
        };
        self.reset(subscribed);
    }

    /// The gateway goes on from `upto`, if it can. Where it cannot because the channel has become shorter, as another log
    /// has taken the place of the old one, what follows is counted from that one's end.
    pub(crate) fn reset(&mut self, subscribed: &v1::Subscribed) {
        if !subscribed.recovered && self.upto.is_some_and(|upto| subscribed.offset < upto) {
            (self.upto, self.open_gap) = (Some(subscribed.offset).filter(|offset| *offset > 0), true);
        }
    }

    /// Takes a message.
    pub(crate) fn take(&mut self, envelope: &v1::Envelope) -> Verdict {
        if envelope.offset == 0 {
            return Verdict::New;
        }
        let told = std::mem::take(&mut self.open_gap);
        let Some(upto) = self.upto.replace(envelope.offset) else { return Verdict::New };
        // The first of all after a gap of unknown length: of another log that has taken the place of the old one.
        let anew = told && envelope.prev_offset == 0;
        if envelope.offset <= upto && !anew {
            (self.upto, self.open_gap) = (Some(upto), told);
            return Verdict::Old;
        }
        if envelope.prev_offset <= upto || told {
            return Verdict::New;
        }
        Verdict::After(v1::Gap {
            channel: envelope.channel.clone(),
            from: upto + 1,
            to: envelope.prev_offset,
            count: 0,
            reason: v1::GapReason::Failover.into(),
        })
    }

    /// Takes the gateway's word that something is missing.
    pub(crate) fn gap(&mut self, gap: &v1::Gap) {
        match gap.to {
            0 => self.open_gap = true,
            to => self.upto = Some(self.upto.map_or(to, |upto| upto.max(to))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64, prev_offset: u64) -> v1::Envelope {
        v1::Envelope { channel: "room:1".into(), offset, prev_offset, ..Default::default() }
    }

    fn subscribed(offset: u64, recovered: bool) -> v1::Subscribed {
        v1::Subscribed { channel: "room:1".into(), recovered, offset }
    }

    fn from(since: Since, offset: u64, recovered: bool) -> Place {
        let mut place = Place::default();
        place.begin(since, &subscribed(offset, recovered));
        place
    }

    fn missing(from: u64, to: u64) -> Verdict {
        let reason = v1::GapReason::Failover.into();
        Verdict::After(v1::Gap { channel: "room:1".into(), from, to, count: 0, reason })
    }

    #[test]
    fn what_came_before_is_old_and_what_is_missing_is_told() {
        let mut place = from(Since::Now, 6, false);
        assert_eq!(place.take(&at(6, 5)), Verdict::Old);
        assert_eq!(place.take(&at(9, 6)), Verdict::New, "offsets may leave out some");
        assert_eq!(place.take(&at(9, 6)), Verdict::Old);
        assert_eq!(place.take(&at(20, 15)), missing(10, 15));
        assert_eq!(place.take(&at(21, 20)), Verdict::New);
        assert_eq!(place.upto(), Some(21));
    }

    #[test]
    fn a_gap_that_the_gateway_tells_is_not_told_twice() {
        let mut place = from(Since::Offset(4), 30, true);
        place.gap(&v1::Gap { from: 5, to: 9, ..Default::default() });
        assert_eq!(place.take(&at(12, 9)), Verdict::New);
        place.gap(&v1::Gap::default());
        assert_eq!(place.take(&at(11, 10)), Verdict::Old, "does not use up what was told");
        assert_eq!(place.take(&at(30, 29)), Verdict::New);
        assert_eq!(place.take(&at(40, 35)), missing(31, 35));
    }

    #[test]
    fn without_a_place_the_first_message_makes_one() {
        for since in [Since::Last(3), Since::Time(std::time::SystemTime::UNIX_EPOCH), Since::Offset(0)] {
            let mut place = from(since, 30, true);
            assert_eq!(place.take(&at(28, 27)), Verdict::New, "{since:?}");
            assert_eq!(place.take(&at(30, 29)), missing(29, 29), "{since:?}");
        }
        let mut plain = from(Since::Now, 0, false);
        assert_eq!((plain.take(&at(0, 0)), plain.take(&at(0, 0)), plain.upto()), (Verdict::New, Verdict::New, None));
    }

    #[test]
    fn a_log_that_is_another_one_is_counted_from_its_end() {
        let mut place = from(Since::Offset(50), 3, false);
        assert_eq!(place.take(&at(3, 2)), Verdict::Old);
        assert_eq!(place.take(&at(4, 3)), Verdict::New);
        place.reset(&subscribed(2, true));
        assert_eq!(place.upto(), Some(4), "a node that lags has recovered all the same");
        assert_eq!(place.take(&at(1, 0)), Verdict::Old);
        place.gap(&v1::Gap::default());
        assert_eq!(place.take(&at(1, 0)), Verdict::New);
        assert_eq!(place.take(&at(2, 1)), Verdict::New);
    }
}
