//! Which of a client's frames came here, and which of them still wait for their answers: what a resume asks.

use std::collections::VecDeque;

use trestle_codec::RESUME_OUTSTANDING_MAX;

/// Answered frames that are remembered: as many as a resume may name. 1 KiB, of a client that has sent that many.
const ANSWERED_MAX: usize = RESUME_OUTSTANDING_MAX;

/// The ids of a client's frames.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Those that are not answered. Bounded by what the owner has under way for the client.
    open: Vec<u32>,
    /// The last that were answered, the latest at the end.
    answered: VecDeque<u32>,
}

impl Ledger {
    /// A frame has come; 0 is none that is answered.
    pub(crate) fn came(&mut self, id: u32) {
        if id != 0 {
            self.open.push(id);
        }
    }

    /// A frame is answered.
    pub(crate) fn answered(&mut self, id: u32) {
        let Some(at) = self.open.iter().position(|open| *open == id) else { return };
        self.open.remove(at);
        if self.answered.len() == ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(id);
    }

    /// Whether the frame still waits for its answer.
    pub(crate) fn is_open(&self, id: u32) -> bool {
        self.open.contains(&id)
    }

    /// Whether the frame came here, as far as that is remembered.
    pub(crate) fn saw(&self, id: u32) -> bool {
        self.is_open(id) || self.answered.contains(&id)
    }

    /// Frames that were answered, as far as that is remembered.
    pub(crate) fn answered_frames(&self) -> impl Iterator<Item = u32> + '_ {
        self.answered.iter().copied()
    }

    /// Frames that wait for their answers.
    pub(crate) fn open(&self) -> &[u32] {
        &self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_open_until_answered_and_then_remembered_for_a_while() {
        let mut ledger = Ledger::default();
        ledger.came(0);
        ledger.came(7);
        assert!(ledger.is_open(7) && ledger.saw(7) && !ledger.saw(8) && !ledger.saw(0));
        ledger.answered(7);
        ledger.answered(8);
        assert!(!ledger.is_open(7) && ledger.saw(7) && !ledger.saw(8));
        for id in 100..100 + ANSWERED_MAX as u32 {
            ledger.came(id);
            ledger.answered(id);
        }
        assert!(!ledger.saw(7) && ledger.saw(100) && ledger.open().is_empty());
    }
}
