//! One client's conversation as a state machine: events in, actions out; owns the outbox. No I/O, no clock of its own.
