//! Panics of tasks, which a runtime keeps to itself.

use std::{cell::RefCell, panic, sync::Once};

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

static WATCHED: Once = Once::new();

/// The panics of this thread since the last call, which begins to watch.
pub(crate) fn forget() -> Vec<String> {
    WATCHED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            SEEN.with_borrow_mut(|seen| seen.push(panicked.to_string()));
            before(panicked);
        }));
    });
    SEEN.take()
}
