//! Faults that the simulation plants, to see that it would find them: with the feature `planted`, and by thread.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A room does not look whether something is missing before a message.
    NoGapCheck,
    /// A resume on the node that has the session writes one frame too few.
    ShortReplay,
    /// What a node that stops leaves of a session does not say which answers are in it.
    ParkedAnswers,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants `fault` in all that runs on this thread from now on, or none.
#[cfg(feature = "planted")]
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether `fault` is planted here; never without the feature.
#[must_use]
pub fn is_planted(fault: Fault) -> bool {
    #[cfg(feature = "planted")]
    return PLANTED.get() == Some(fault);
    #[cfg(not(feature = "planted"))]
    {
        let _never = fault;
        false
    }
}
