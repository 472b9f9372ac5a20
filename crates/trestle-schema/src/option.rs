//! The gateway's own options, as a schema sets them on its messages.

use prost::Message;
use prost_reflect::{MessageDescriptor, ReflectMessage as _, Value};

/// Reads the option `extension` of `message`, called `what` in sentences; `None` if it is not set.
///
/// # Errors
/// Every fault of the option, each as a sentence.
pub(crate) fn read<T: Message + Default>(
    message: &MessageDescriptor,
    extension: &str,
    what: &str,
) -> Result<Option<T>, Vec<String>> {
    let Some(extension) = message.parent_pool().get_extension_by_name(extension) else { return Ok(None) };
    let options = message.options();
    if !options.has_extension(&extension) {
        return Ok(None);
    }
    let Value::Message(option) = &*options.get_extension(&extension) else { return Ok(None) };
    let unknown: Vec<String> = option
        .unknown_fields()
        .map(|field| format!("{what} has a field with number {} that this gateway does not know", field.number()))
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let name = option.descriptor().full_name().to_owned();
    option.transcode_to().map(Some).map_err(|error| vec![format!("{what} cannot be read as {name}: {error}")])
}
