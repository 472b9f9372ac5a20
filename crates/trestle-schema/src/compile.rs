//! Files to descriptors: every file that can be compiled is, and every fault of the others is listed.

use std::collections::{HashMap, HashSet};

use miette::Diagnostic;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorProto;
use protox::file::{File, FileResolver as _, GoogleFileResolver};

use crate::{
    builtin,
    fault::Fault,
    source::{Parsed, Read},
};

/// The descriptors of what could be compiled; `faults` says what could not.
pub(crate) fn compile(read: Read) -> (DescriptorPool, Vec<Fault>) {
    let mut compiler = Compiler {
        waiting: HashMap::new(),
        paths: Vec::new(),
        state: HashMap::new(),
        google: GoogleFileResolver::new(),
        pool: DescriptorPool::new(),
        faults: read.faults,
    };
    for name in read.broken {
        compiler.state.insert(name, State::Failed);
    }
    for parsed in read.files {
        let name = parsed.file.name().to_owned();
        compiler.paths.push(name.clone());
        if compiler.waiting.insert(name.clone(), parsed).is_some() {
            compiler.faults.push(Fault::of_file(name, "is there twice"));
        }
    }
    for name in compiler.paths.clone() {
        compiler.add(&name);
    }
    (compiler.pool, compiler.faults)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its imports are being added; meeting it again is a cycle.
    Open,
    Added,
    /// There is a fault for it already.
    Failed,
}

struct Compiler {
    waiting: HashMap<String, Parsed>,
    /// Import paths of the company's files.
    paths: Vec<String>,
    state: HashMap<String, State>,
    google: GoogleFileResolver,
    pool: DescriptorPool,
    faults: Vec<Fault>,
}

impl Compiler {
    /// Adds a file after its imports; says whether that went well.
    fn add(&mut self, name: &str) -> bool {
        if let Some(state) = self.state.get(name) {
            return *state == State::Added;
        }
        let Some(parsed) = self.open(name) else { return false };
        self.state.insert(name.to_owned(), State::Open);
        let imported = self.imports(parsed.file.file_descriptor_proto());
        let added = imported && self.compile(parsed);
        self.state.insert(name.to_owned(), if added { State::Added } else { State::Failed });
        added
    }

    /// The gateway's own file, the company's, or Google's, in this order.
    fn open(&mut self, name: &str) -> Option<Parsed> {
        if let Some(text) = builtin::text(name) {
            let file = File::from_source(name, text).expect("a test compiles every file that comes with the gateway");
            return Some(Parsed { file, encoded: None });
        }
        // Google's before the company's: the runtime's own JSON of them is what clients know.
        match self.google.open_file(name) {
            Ok(file) => Some(Parsed { file, encoded: None }),
            Err(_) => self.waiting.remove(name),
        }
    }

    fn imports(&mut self, file: &FileDescriptorProto) -> bool {
        let mut complete = true;
        let mut seen = HashSet::new();
        for (n, import) in file.dependency.iter().enumerate() {
            let place = place(file, &[3, index(n)]);
            let mut fault = |what| self.faults.push(Fault::of_file(file.name(), what).at(place));
            if !seen.insert(import) {
                fault(format!("import {import:?} is listed twice"));
                complete = false;
            } else if self.state.get(import) == Some(&State::Open) {
                fault(format!("import {import:?} closes a circle of imports"));
                complete = false;
            } else if !self.exists(import) {
                let hint = self.missing(import);
                self.faults.push(Fault::of_file(file.name(), hint).at(place));
                complete = false;
            } else {
                complete &= self.add(import);
            }
        }
        complete
    }

    fn exists(&self, name: &str) -> bool {
        self.state.contains_key(name)
            || self.waiting.contains_key(name)
            || builtin::text(name).is_some()
            || self.google.open_file(name).is_ok()
    }

    fn missing(&self, import: &str) -> String {
        let elsewhere = self.paths.iter().find_map(|path| path.strip_suffix(import)?.strip_suffix('/'));
        match elsewhere {
            Some(root) => format!("import {import:?} is not found: it is in {root:?}, so give that folder as the root"),
            None => format!("import {import:?} is not found: add the file {import} to the schemas"),
        }
    }

    fn compile(&mut self, parsed: Parsed) -> bool {
        let name = parsed.file.name().to_owned();
        let result = match parsed.encoded {
            Some(encoded) => self.pool.decode_file_descriptor_proto(encoded),
            None => self.pool.add_file_descriptor_proto(parsed.file.file_descriptor_proto().clone()),
        };
        let Err(error) = result else { return true };
        let error = match parsed.file.source() {
            Some(text) => error.with_source_code(text),
            None => error,
        };
        self.faults.extend(faults_of(&error, &name));
        false
    }
}

/// Every fault in an error of the parser or the compiler, which carry the second and later ones as related.
pub(crate) fn faults_of(error: &dyn Diagnostic, file: &str) -> Vec<Fault> {
    let source = error.source_code();
    let fault = |part: &dyn Diagnostic| {
        let place = part
            .labels()
            // Of what is there twice, the second is at fault.
            .and_then(|labels| labels.max_by_key(miette::LabeledSpan::offset))
            .and_then(|label| part.source_code().or(source)?.read_span(label.inner(), 0, 0).ok())
            .map_or((0, 0), |text| (count(text.line()), count(text.column())));
        let what = match part.help() {
            Some(help) => format!("{part} ({help})"),
            None => part.to_string(),
        };
        Fault::of_file(file, what).at(place)
    };
    std::iter::once(fault(error)).chain(error.related().into_iter().flatten().map(fault)).collect()
}

/// Where the element at `path` of a file begins, line and column from 1; zeros if the file does not say.
pub(crate) fn place(file: &FileDescriptorProto, path: &[i32]) -> (u32, u32) {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    locations
        .filter(|location| location.path == path)
        .find_map(|location| match location.span[..] {
            [line, column, ..] => Some((count(usize::try_from(line).ok()?), count(usize::try_from(column).ok()?))),
            _ => None,
        })
        .unwrap_or_default()
}

/// From 0 as compilers count to 1 as editors do.
fn count(from_zero: usize) -> u32 {
    u32::try_from(from_zero + 1).unwrap_or(u32::MAX)
}

fn index(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
