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

/// A table for people: columns as wide as what is in them, an empty cell as `-`, so that every row has as many words as
/// columns unless a cell has spaces.
pub(crate) fn table<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
    let rows = rows.into_iter().map(|row| row.map(shown));
    let all: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A number of things: `1 session`, `2 sessions`.
pub(crate) fn count(number: u32, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
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
    fn a_table_has_straight_columns_and_no_empty_cell() {
        let rows = [["é".to_owned(), String::new()], ["long one".to_owned(), "x".to_owned()]];
        assert_eq!(table(["A", "B"], rows), "A         B\né         -\nlong one  x");
        assert_eq!(table(["A", "B"], []), "A  B");
    }

    #[test]
    fn one_thing_is_no_more() {
        assert_eq!([0, 1, 2].map(|number| count(number, "client")), ["0 clients", "1 client", "2 clients"]);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_fault_but_a_full_disk_is() {
        assert_eq!(write_line(Pipe(None), &"x").ok(), Some(Reader::Listens));
        assert_eq!(write_line(Pipe(Some(io::ErrorKind::BrokenPipe)), &"x").ok(), Some(Reader::Gone));
        let error = write_line(Pipe(Some(io::ErrorKind::StorageFull)), &"x").expect_err("not written");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
