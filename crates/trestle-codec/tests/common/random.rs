//! What random frames are made of.

use std::collections::BTreeMap;

use proptest::{collection, prelude::*};

/// Text with all that is hard about text: quotes, escapes, control characters, other planes.
pub(crate) fn text() -> impl Strategy<Value = String> {
    collection::vec(prop_oneof![4 => any::<char>(), 4 => proptest::char::range(' ', '~'), 1 => Just('"')], 0..12)
        .prop_map(String::from_iter)
}

pub(crate) fn headers() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop_oneof![
        4 => collection::btree_map("[a-z-]{1,8}", "[ -~]{0,8}", 0..4),
        1 => collection::btree_map(text(), text(), 0..3),
    ]
}
