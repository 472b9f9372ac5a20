//! What is measured. A scenario is one small file; it knows no peer.

mod fanout;
mod growth;
mod handshake;
mod idle;
mod ingest;
mod own;
mod pace;
mod request;
mod slow;
mod storm;

use clap::ValueEnum;

use crate::{bench::Bench, turns::Outcome};

/// A scenario, by the name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// All of them.
    All,
    /// One message to every subscriber of a channel.
    Fanout,
    /// The same at half the rate that the servers can bear.
    Pace,
    /// Clients that publish and wait for their own message.
    Own,
    /// A request to a service and its reply.
    Request,
    /// Messages that services push in.
    Ingest,
    /// Connections that do nothing.
    Idle,
    /// Connect and subscribe.
    Handshake,
    /// Thousands that connect at once.
    Storm,
    /// Subscribers that stop reading.
    Slow,
    /// The same load among more and more sessions and channels.
    Growth,
}

impl Scenario {
    /// This one, or each.
    pub(crate) fn each(self) -> Vec<Self> {
        match self {
            Self::All => Self::value_variants().iter().copied().filter(|other| *other != Self::All).collect(),
            one => vec![one],
        }
    }

    /// The name on the command line, and in the output.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Measures it.
    ///
    /// # Errors
    /// If a server does not start.
    pub(crate) async fn run(self, bench: &Bench) -> anyhow::Result<Outcome> {
        match self {
            Self::All => Ok(Outcome::default()),
            Self::Fanout => fanout::run(bench).await,
            Self::Pace => pace::run(bench).await,
            Self::Own => own::run(bench).await,
            Self::Request => request::run(bench).await,
            Self::Ingest => ingest::run(bench).await,
            Self::Idle => Ok(idle::run(bench).await),
            Self::Handshake => handshake::run(bench).await,
            Self::Storm => Ok(storm::run(bench).await),
            Self::Slow => slow::run(bench).await,
            Self::Growth => growth::run(bench).await,
        }
    }
}

/// A number as people write it: 10,000.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Bytes as people write them: 128 B, 1 KiB.
fn size(bytes: usize) -> String {
    if bytes.is_multiple_of(1024) { format!("{} KiB", bytes / 1024) } else { format!("{bytes} B") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_do() {
        assert_eq!([thousands(7), thousands(1_000), thousands(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([size(128), size(2048)], ["128 B", "2 KiB"]);
    }
}
