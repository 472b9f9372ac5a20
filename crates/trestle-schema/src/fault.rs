//! What is wrong with a set of schemas: all of it at once.

use std::{collections::HashSet, fmt};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fault {
    /// The file's import path, or the path of the folder or set; empty where the set as a whole is meant.
    pub file: String,
    /// Line from 1; 0 where it is not known.
    pub line: u32,
    /// Column from 1; 0 where it is not known.
    pub column: u32,
    /// A sentence: what is wrong and what to do.
    pub what: String,
}

impl Fault {
    /// A fault of the set as a whole.
    pub(crate) fn of_set(what: impl Into<String>) -> Self {
        Self::of_file("", what)
    }

    /// A fault of a file as a whole.
    pub(crate) fn of_file(file: impl Into<String>, what: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0, what: what.into() }
    }

    /// Says where in the file it is; both count from 1, and 0 means that it is not known.
    pub(crate) fn at(mut self, (line, column): (u32, u32)) -> Self {
        (self.line, self.column) = (line, column);
        self
    }
}

impl fmt::Display for Fault {
    /// `file:line:column: what`, as editors and terminals read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.column)?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.what)
    }
}

/// Everything that is wrong with a set; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// `Err` with the faults, sorted by place and each once, if there are any.
    pub(crate) fn check(faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        let mut seen = HashSet::new();
        let mut faults: Vec<Fault> = faults.into_iter().filter(|fault| seen.insert(fault.clone())).collect();
        faults.sort();
        Err(Self(faults))
    }

    /// The faults, sorted by file, line and column.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Fault> {
        self.0.iter()
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    /// One fault a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
