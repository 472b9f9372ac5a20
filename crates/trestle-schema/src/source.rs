//! Where schemas come from, and the files in them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message as _;
use protox::file::File;

use crate::{
    builtin,
    fault::{Fault, Faults},
};

/// Most files in one folder; a company's schemas are hundreds, and a folder given by mistake is hundreds of thousands.
const FILES_MAX: usize = 20_000;
/// Deepest folder in a folder: a link that points upwards must come to an end.
const FOLDER_DEPTH_MAX: usize = 32;

/// Where schemas come from.
#[derive(Clone, Debug)]
pub enum SchemaSource {
    /// A folder of `.proto` files, which is also the root of their imports. Hidden folders are left out.
    Folder(PathBuf),
    /// A file with an encoded `google.protobuf.FileDescriptorSet`, as `buf build -o` and `protoc -o` write it.
    DescriptorSet(PathBuf),
    /// An encoded `google.protobuf.FileDescriptorSet`.
    Bytes(Bytes),
    /// Files in memory: import path and text.
    Files(Vec<(String, String)>),
}

impl SchemaSource {
    /// The folder or the descriptor set at `path`, whichever it is.
    #[must_use]
    pub fn from_path(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if path.is_file() { Self::DescriptorSet(path) } else { Self::Folder(path) }
    }

    /// The schemas of the demo: `chat.v1`, `shop.v1` and `shop.v2`.
    #[must_use]
    pub fn examples() -> Self {
        Self::Files(builtin::EXAMPLES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }
}

/// One file of a set, parsed, its names not yet resolved.
pub(crate) struct Parsed {
    /// The parsed file, and its text for those who read its faults.
    pub file: File,
    /// The file as it was encoded, for files of a descriptor set: prost drops the options it does not know.
    pub encoded: Option<Bytes>,
}

/// What could be read of a source: the files that could be parsed, and what is wrong with the others.
#[derive(Default)]
pub(crate) struct Read {
    /// Files that parse.
    pub files: Vec<Parsed>,
    /// Import paths of files that are there and do not parse.
    pub broken: Vec<String>,
    /// Everything wrong so far.
    pub faults: Vec<Fault>,
}

impl Read {
    /// Reads all of `source`.
    ///
    /// # Errors
    /// [`Faults`] if there is nothing to read at all.
    pub(crate) fn from(source: &SchemaSource) -> Result<Self, Faults> {
        let mut read = Self::default();
        match source {
            SchemaSource::Folder(root) => read.folder(root)?,
            SchemaSource::DescriptorSet(path) => {
                let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
                read.descriptor_set(bytes.into(), &path.display().to_string())?;
            }
            SchemaSource::Bytes(bytes) => read.descriptor_set(bytes.clone(), "descriptor set")?,
            SchemaSource::Files(files) => files.iter().for_each(|(name, text)| read.text(name, text)),
        }
        Ok(read)
    }

    fn folder(&mut self, root: &Path) -> Result<(), Fault> {
        let mut names = Vec::new();
        proto_files(root, "", 0, &mut names)?;
        if names.is_empty() {
            return Err(Fault::of_file(root.display().to_string(), "holds no .proto files"));
        }
        names.sort();
        for name in names {
            match fs::read_to_string(root.join(&name)) {
                Ok(text) => self.text(&name, &text),
                Err(error) => {
                    self.faults.push(Fault::of_file(&name, format!("cannot be read: {error}")));
                    self.broken.push(name);
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, name: &str, text: &str) {
        if builtin::text(name).is_some() {
            return; // the gateway's own copy is used
        }
        match File::from_source(name, text) {
            Ok(file) => self.files.push(Parsed { file, encoded: None }),
            Err(error) => {
                self.faults.extend(crate::compile::faults_of(&error, name));
                self.broken.push(name.to_owned());
            }
        }
    }

    fn descriptor_set(&mut self, bytes: Bytes, name: &str) -> Result<(), Fault> {
        let set = EncodedFiles::decode(bytes)
            .map_err(|error| Fault::of_file(name, format!("is not a FileDescriptorSet: {error}")))?;
        if set.file.is_empty() {
            return Err(Fault::of_file(name, "holds no files"));
        }
        for encoded in set.file {
            match File::decode_file_descriptor_proto(encoded.clone()) {
                Ok(file) if builtin::text(file.name()).is_some() => {}
                Ok(file) => self.files.push(Parsed { file, encoded: Some(encoded) }),
                Err(error) => self.faults.push(Fault::of_file(name, format!("holds a broken file: {error}"))),
            }
        }
        Ok(())
    }
}

/// A `FileDescriptorSet` whose files stay encoded, so that no option is lost.
#[derive(Clone, PartialEq, prost::Message)]
struct EncodedFiles {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// Import paths of all `.proto` files below `folder`, whose own import path is `prefix`.
fn proto_files(folder: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) -> Result<(), Fault> {
    let too_much = |what| Err(Fault::of_file(folder.display().to_string(), what));
    if depth > FOLDER_DEPTH_MAX {
        return too_much(format!("is nested more than {FOLDER_DEPTH_MAX} folders deep"));
    }
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else {
            continue;
        };
        if path.is_dir() {
            proto_files(&path, &format!("{prefix}{name}/"), depth + 1, names)?;
        } else if name.ends_with(".proto") {
            names.push(format!("{prefix}{name}"));
            if names.len() > FILES_MAX {
                return too_much(format!("holds more than {FILES_MAX} .proto files"));
            }
        }
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault::of_file(path.display().to_string(), format!("cannot be read: {error}"))
}
