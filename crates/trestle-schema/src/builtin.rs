//! Files that every schema can import without bringing them.

/// The files that come with the gateway: import path and text.
///
/// They win over a file of the same path in the company's own set, so that the options mean what this gateway reads.
const FILES: &[(&str, &str)] = &[
    ("buf/validate/validate.proto", include_str!("../../../third_party/buf/validate/validate.proto")),
    ("trestle/v1/admin.proto", include_str!("../../../proto/trestle/v1/admin.proto")),
    ("trestle/v1/bridge.proto", include_str!("../../../proto/trestle/v1/bridge.proto")),
    ("trestle/v1/bus.proto", include_str!("../../../proto/trestle/v1/bus.proto")),
    ("trestle/v1/client.proto", include_str!("../../../proto/trestle/v1/client.proto")),
    ("trestle/v1/envelope.proto", include_str!("../../../proto/trestle/v1/envelope.proto")),
    ("trestle/v1/errors.proto", include_str!("../../../proto/trestle/v1/errors.proto")),
    ("trestle/v1/options.proto", include_str!("../../../proto/trestle/v1/options.proto")),
];

/// The schemas of the demo.
pub(crate) const EXAMPLES: &[(&str, &str)] = &[
    ("chat/v1/chat.proto", include_str!("../../../proto/examples/chat/v1/chat.proto")),
    ("shop/v1/shop.proto", include_str!("../../../proto/examples/shop/v1/shop.proto")),
    ("shop/v2/shop.proto", include_str!("../../../proto/examples/shop/v2/shop.proto")),
];

/// The text of a file that comes with the gateway; Google's well-known types are protox's own.
pub(crate) fn text(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

/// Whether a type of this package is the gateway's or a standard's, and so no message type of the company.
pub(crate) fn owns_package(package: &str) -> bool {
    let within = |root: &str| package == root || package.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'));
    ["google", "buf", "trestle.v1"].into_iter().any(within)
}
