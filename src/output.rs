//! What goes to the terminal: the one way of every command.

use std::io::{self, Write};

/// Whether anybody reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Reader {
    /// As far as can be known.
    Listens,
    /// It has closed its end, as `head` does: there is nothing left to say, and nothing is wrong.
    Gone,
}

/// Prints `text` and a line's end on stdout, at once.
///
/// # Errors
/// It could not be written, for instance because the disk is full.
pub(crate) fn print(text: impl std::fmt::Display) -> io::Result<Reader> {
    write_line(io::stdout().lock(), &text)
}

/// Says `text` on stderr; where that is closed too, nobody is left to be told.
pub(crate) fn remark(text: impl std::fmt::Display) {
    let _unheard = write_line(io::stderr().lock(), &text);
}

fn write_line(mut to: impl Write, text: &dyn std::fmt::Display) -> io::Result<Reader> {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        Ok(()) => Ok(Reader::Listens),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pipe(Option<io::ErrorKind>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.map_or(Ok(bytes.len()), |kind| Err(kind.into()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_fault_but_a_full_disk_is() {
        assert_eq!(write_line(Pipe(None), &"x").ok(), Some(Reader::Listens));
        assert_eq!(write_line(Pipe(Some(io::ErrorKind::BrokenPipe)), &"x").ok(), Some(Reader::Gone));
        let error = write_line(Pipe(Some(io::ErrorKind::StorageFull)), &"x").expect_err("not written");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
