//! Servers take turns, round by round, so that what else the machine does falls on all of them.

use serde::{Deserialize, Serialize};

use crate::stats::median;

/// What one server needed for one load in one round.
pub(crate) struct Found {
    /// The load, in words.
    pub(crate) load: String,
    /// What did not come, in deliveries, answers or connections; has to be 0.
    pub(crate) lost: u64,
    /// Name and value; names end in their unit. The first is what servers are compared by.
    pub(crate) figures: Vec<(&'static str, f64)>,
}

/// One server under one load, over all rounds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) scenario: String,
    pub(crate) load: String,
    pub(crate) server: String,
    /// Also those of the warm-up.
    pub(crate) lost: u64,
    pub(crate) figures: Vec<Figure>,
}

/// One figure of a [`Line`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    /// One of each measured round.
    pub(crate) values: Vec<f64>,
}

impl Figure {
    /// Median, least and most.
    pub(crate) fn spread(&self) -> (f64, f64, f64) {
        let values = || self.values.iter().copied();
        (median(values()), values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
    }
}

impl Line {
    /// The values of a figure.
    pub(crate) fn values(&self, figure: &str) -> Option<&[f64]> {
        self.figures.iter().find(|other| other.name == figure).map(|figure| &figure.values[..])
    }

    /// The median of the ratios that a figure had to another server's in the same round.
    pub(crate) fn ratio(&self, other: &Self, figure: &str) -> Option<f64> {
        let (ours, theirs) = (self.values(figure)?, other.values(figure)?);
        let ratio = median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs));
        ratio.is_finite().then_some(ratio)
    }
}

/// What a scenario came to.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) lines: Vec<Line>,
    /// Which server could not be measured, and why.
    pub(crate) faults: Vec<String>,
}

/// Rounds of a scenario.
#[derive(Clone, Copy)]
pub(crate) struct Rounds {
    /// Those that warm up caches, compilers at run time, and the kernel's buffers; not counted.
    pub(crate) warm: usize,
    pub(crate) measured: usize,
}

/// Has `measure` done with each of `sides` in each round. A side that fails is out from then on.
pub(crate) async fn in_turns<S>(
    scenario: &str,
    rounds: Rounds,
    sides: Vec<(&'static str, S)>,
    measure: impl AsyncFn(&mut S) -> anyhow::Result<Vec<Found>>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut sides: Vec<_> = sides.into_iter().map(|(server, side)| (server, Some(side))).collect();
    for round in 0..rounds.warm + rounds.measured {
        for (server, place) in &mut sides {
            let Some(side) = place else { continue };
            eprintln!("{scenario}: round {} of {}, {server}", round + 1, rounds.warm + rounds.measured);
            match measure(side).await {
                Ok(found) => {
                    for found in found {
                        outcome.add(scenario, server, found, round >= rounds.warm);
                    }
                }
                Err(error) => {
                    eprintln!("{scenario}: {server} failed: {error:#}");
                    outcome.faults.push(format!("{server} in {scenario}: {error:#}"));
                    *place = None;
                }
            }
        }
    }
    outcome
}

impl Outcome {
    fn add(&mut self, scenario: &str, server: &str, found: Found, counts: bool) {
        let same = |line: &Line| line.load == found.load && line.server == server;
        let at = self.lines.iter().position(same).unwrap_or_else(|| {
            let figure = |(name, _): &(&str, f64)| Figure { name: (*name).to_owned(), values: Vec::new() };
            self.lines.push(Line {
                scenario: scenario.to_owned(),
                load: found.load.clone(),
                server: server.to_owned(),
                lost: 0,
                figures: found.figures.iter().map(figure).collect(),
            });
            self.lines.len() - 1
        });
        let line = &mut self.lines[at];
        line.lost += found.lost;
        if counts {
            for (figure, (_, value)) in line.figures.iter_mut().zip(found.figures) {
                figure.values.push(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sides_take_turns_the_warm_up_is_not_counted_and_who_fails_is_out() {
        let rounds = Rounds { warm: 1, measured: 2 };
        let outcome = in_turns("test", rounds, vec![("ours", 0_u32), ("theirs", 10)], async |side| {
            *side += 1;
            anyhow::ensure!(*side < 12, "enough");
            Ok(vec![Found { load: "l".into(), lost: 1, figures: vec![("cpu_us", f64::from(*side))] }])
        })
        .await;
        assert_eq!(outcome.faults, ["theirs in test: enough"]);
        assert_eq!(outcome.lines[0].values("cpu_us"), Some(&[2.0, 3.0][..]));
        assert_eq!((outcome.lines[0].lost, outcome.lines[1].lost), (3, 1));
        assert_eq!(outcome.lines[0].ratio(&outcome.lines[1], "cpu_us"), None);
    }

    #[test]
    fn a_ratio_is_that_of_rounds() {
        let line = |values| Line {
            scenario: String::new(),
            load: String::new(),
            server: String::new(),
            lost: 0,
            figures: vec![Figure { name: "cpu_us".into(), values }],
        };
        let ratio = line(vec![2.0, 9.0, 6.0]).ratio(&line(vec![1.0, 3.0, 3.0]), "cpu_us");
        assert_eq!(ratio, Some(2.0));
    }
}
