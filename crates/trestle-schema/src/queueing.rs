//! How messages of a type wait for slow clients, as the type's `trestle.v1.queueing` option says.

use prost_reflect::MessageDescriptor;
use trestle_wire::v1;

use crate::{key_path::KeyPath, option};

/// How messages of one type queue for a client that reads slower than they come.
#[derive(Clone, Debug)]
pub struct Queueing {
    /// What happens when the client's outbox is full, never `OVERFLOW_UNSPECIFIED`; `None`: what the namespace says.
    pub overflow: Option<v1::Overflow>,
    /// Which messages go first; never `PRIORITY_UNSPECIFIED`.
    pub priority: v1::Priority,
    /// The field that tells messages apart. There with CONFLATE, and where the namespace may say so.
    pub key: Option<KeyPath>,
}

/// Reads the queueing option of `message`; `None` if it has none.
///
/// # Errors
/// Every fault of the option, each as a sentence.
pub(crate) fn declared(message: &MessageDescriptor) -> Result<Option<Queueing>, Vec<String>> {
    let option: Option<v1::Queueing> = option::read(message, "trestle.v1.queueing", "the queueing")?;
    option.map(|option| read(message, &option)).transpose()
}

fn read(message: &MessageDescriptor, option: &v1::Queueing) -> Result<Queueing, Vec<String>> {
    let mut faults = Vec::new();
    let overflow = v1::Overflow::try_from(option.overflow).unwrap_or_else(|_| {
        faults.push(format!("the overflow has number {}, which this gateway does not know", option.overflow));
        v1::Overflow::Unspecified
    });
    let priority = match v1::Priority::try_from(option.priority) {
        Ok(v1::Priority::Unspecified) => v1::Priority::Normal,
        Ok(priority) => priority,
        Err(_) => {
            faults.push(format!("the priority has number {}, which this gateway does not know", option.priority));
            v1::Priority::Normal
        }
    };
    let key = key(message, overflow, &option.key).unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    if !faults.is_empty() {
        return Err(faults);
    }
    let overflow = Some(overflow).filter(|overflow| *overflow != v1::Overflow::Unspecified);
    Ok(Queueing { overflow, priority, key })
}

/// The key, which goes with CONFLATE, said here or by the namespace.
fn key(message: &MessageDescriptor, overflow: v1::Overflow, path: &str) -> Result<Option<KeyPath>, String> {
    match overflow {
        v1::Overflow::Conflate if path.is_empty() => {
            Err("overflow CONFLATE needs a key: the path of the field that tells messages apart, such as \"sku\""
                .into())
        }
        _ if path.is_empty() => Ok(None),
        v1::Overflow::Conflate | v1::Overflow::Unspecified => {
            KeyPath::compile(message, path).map(Some).map_err(|fault| format!("the key {path:?}: {fault}"))
        }
        other => Err(format!(
            "the key {path:?} has no use with overflow {}; leave it out, or choose CONFLATE",
            other.as_str_name()
        )),
    }
}
