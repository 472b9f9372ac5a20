//! The set in use, replaced whole.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::{Catalogue, Faults, SchemaSource, compatibility::breaks};

/// The catalogue in use. Cheap to clone; all clones see a reload at once.
#[derive(Clone, Debug)]
pub struct Schemas {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: SchemaSource,
    current: ArcSwap<Catalogue>,
    /// Held while a set is loaded, so that two reloads do not pass each other.
    reloading: Mutex<()>,
}

impl Schemas {
    /// Loads `source`.
    ///
    /// # Errors
    /// [`Faults`] lists everything that is wrong with the set.
    pub fn open(source: SchemaSource) -> Result<Self, Faults> {
        let current = ArcSwap::from_pointee(Catalogue::load(&source)?);
        Ok(Self { shared: Arc::new(Shared { source, current, reloading: Mutex::new(()) }) })
    }

    /// The catalogue in use now. Whoever does one piece of work takes it once.
    #[must_use]
    pub fn current(&self) -> Arc<Catalogue> {
        self.shared.current.load_full()
    }

    /// Loads the source again and puts it in use. Blocks for as long as compiling takes.
    ///
    /// # Errors
    /// [`Faults`] if the new set is wrong, or would break what clients and services use now: a type, an alias' version or a
    /// field that is gone, or a field whose number, type or cardinality is another. The old set then stays in use.
    pub fn reload(&self) -> Result<Arc<Catalogue>, Faults> {
        let _one = self.shared.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(Catalogue::load(&self.shared.source)?);
        Faults::check(breaks(&self.current(), &next))?;
        self.shared.current.store(next.clone());
        Ok(next)
    }
}
