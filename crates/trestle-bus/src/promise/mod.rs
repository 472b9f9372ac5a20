//! The tests of the promise.
