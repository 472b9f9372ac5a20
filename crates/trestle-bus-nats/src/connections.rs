//! Which connection of the client the bus counts on, though the client may not tell of each.
//!
//! In: what the client says of itself. Out: what to do about it. Always: the client drops events that it cannot queue, so
//! none is needed: a break that was not told of is seen by the count of connections, at the latest at the second look.

use trestle_bus::BusState;

/// What to do about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Nothing,
    /// It broke, and may stand again by now.
    Broke,
    /// It stands again.
    Restore,
}

/// Why the connection is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The client has told of something; what came before it was told of or never will be.
    Told,
    /// It is time to; what has just happened may still be told.
    Tick,
}

/// The connection that was last seen to stand.
#[derive(Debug)]
pub(crate) struct Connections {
    /// How many the client had made.
    stands: u64,
    /// As many, when a look found that it was another one.
    doubted: Option<u64>,
}

impl Connections {
    /// Counts on the connection that was the client's `made`th.
    pub(crate) fn new(made: u64) -> Self {
        Self { stands: made, doubted: None }
    }

    /// Judges by the bus's state, whether the client's connection `stands`, and how many connections the client has `made`.
    pub(crate) fn judge(&mut self, bus: BusState, stands: bool, made: u64, look: Look) -> Verdict {
        match bus {
            BusState::Closed => Verdict::Nothing,
            BusState::Away if stands => Verdict::Restore,
            BusState::Away => Verdict::Nothing,
            BusState::Connected(_) if stands && made == self.stands => {
                self.doubted = None;
                Verdict::Nothing
            }
            BusState::Connected(_) if look == Look::Tick && self.doubted != Some(made) => {
                self.doubted = Some(made);
                Verdict::Nothing
            }
            BusState::Connected(_) => Verdict::Broke,
        }
    }

    /// Counts on the client's `made`th connection from now on.
    pub(crate) fn stands(&mut self, made: u64) {
        *self = Self::new(made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: BusState = BusState::Connected(1);

    #[test]
    fn a_break_of_which_only_the_end_was_told_is_a_break() {
        let mut connections = Connections::new(1);
        assert_eq!(connections.judge(OPEN, true, 1, Look::Told), Verdict::Nothing, "the first connection");
        assert_eq!(connections.judge(OPEN, true, 2, Look::Told), Verdict::Broke);
        assert_eq!(connections.judge(BusState::Away, true, 2, Look::Told), Verdict::Restore);
        connections.stands(2);
        assert_eq!(connections.judge(BusState::Connected(2), true, 2, Look::Told), Verdict::Nothing);
    }

    #[test]
    fn a_break_of_which_nothing_was_told_is_seen_at_the_second_look() {
        for (stands, made) in [(true, 2), (false, 1)] {
            let mut connections = Connections::new(1);
            assert_eq!(connections.judge(OPEN, stands, made, Look::Tick), Verdict::Nothing, "it may still be told");
            assert_eq!(connections.judge(OPEN, stands, made, Look::Tick), Verdict::Broke);
        }
    }

    #[test]
    fn a_connection_whose_return_was_not_told_is_restored_at_the_next_look() {
        let mut connections = Connections::new(1);
        assert_eq!(connections.judge(BusState::Away, false, 1, Look::Tick), Verdict::Nothing);
        assert_eq!(connections.judge(BusState::Away, true, 2, Look::Tick), Verdict::Restore);
        assert_eq!(connections.judge(BusState::Closed, true, 2, Look::Tick), Verdict::Nothing);
    }
}
