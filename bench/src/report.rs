//! What a run found: JSON lines for programs, tables for people, and the page in `docs/`.

mod machine;
mod page;
mod plot;
mod target;
mod words;

use serde::{Deserialize, Serialize};

use crate::{
    bench::Bench,
    turns::{Figure, Line, Outcome},
};
use machine::Machine;
use words::label;

/// Everything that is known at the end.
#[derive(Default)]
pub(crate) struct Report {
    machine: Machine,
    lines: Vec<Line>,
    /// Who could not be measured, and why.
    faults: Vec<String>,
}

/// One line of the output.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Machine(Machine),
    Line(Line),
    Fault(String),
}

impl Report {
    /// Of this machine, with nothing measured yet.
    pub(crate) fn new(bench: &Bench) -> anyhow::Result<Self> {
        let machine = Machine::here(bench)?;
        println!("{}", serde_json::to_string(&Record::Machine(machine.clone()))?);
        Ok(Self { machine, ..Self::default() })
    }

    /// Adds what a scenario came to, and prints it.
    pub(crate) fn add(&mut self, outcome: Outcome) -> anyhow::Result<()> {
        let records = outcome.lines.into_iter().map(Record::Line).chain(outcome.faults.into_iter().map(Record::Fault));
        for record in records {
            println!("{}", serde_json::to_string(&record)?);
            self.take(record);
        }
        Ok(())
    }

    /// Adds what an earlier run printed.
    pub(crate) fn read(&mut self, line: &str) -> anyhow::Result<()> {
        self.take(serde_json::from_str(line)?);
        Ok(())
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::Machine(machine) => self.machine = machine,
            Record::Line(line) => self.lines.push(line),
            Record::Fault(fault) => self.faults.push(fault),
        }
    }

    /// Whether everything came and everybody could be measured. A peer that cannot be had is no fault.
    pub(crate) fn whole(&self) -> bool {
        self.faults.is_empty() && self.lines.iter().all(|line| line.lost == 0)
    }

    /// The loads of each scenario, in order, with their lines.
    fn loads(&self) -> Vec<(&str, &str, Vec<&Line>)> {
        let mut loads: Vec<(&str, &str, Vec<&Line>)> = Vec::new();
        for line in &self.lines {
            match loads.iter_mut().find(|(scenario, load, _)| *scenario == line.scenario && *load == line.load) {
                Some((.., lines)) => lines.push(line),
                None => loads.push((&line.scenario, &line.load, vec![line])),
            }
        }
        loads
    }

    /// A table on stderr.
    pub(crate) fn table(&self) {
        for (scenario, load, lines) in self.loads() {
            let figures: Vec<_> = lines[0].figures.iter().map(|figure| label(&figure.name)).collect();
            eprintln!("\n{scenario}: {load}\n{:14}{:>10}{:>8}  {}", "", "x floor", "lost", columns(&figures));
            for line in &lines {
                let values: Vec<_> = line.figures.iter().map(spread).collect();
                let ratio = over_floor(line, &lines).map_or(String::new(), |ratio| format!("{ratio:.2}"));
                eprintln!("{:14}{ratio:>10}{:>8}  {}", line.server, line.lost, columns(&values));
            }
        }
        eprintln!();
        for verdict in target::verdicts(&self.lines) {
            eprintln!("{verdict}");
        }
        for gone in self
            .machine
            .missing
            .iter()
            .map(|peer| format!("missing: {peer}"))
            .chain(self.faults.iter().map(|fault| format!("failed: {fault}")))
        {
            eprintln!("{gone}");
        }
    }
}

/// A line's first figure over the floor's, the median of the rounds.
fn over_floor(line: &Line, lines: &[&Line]) -> Option<f64> {
    let floor = lines.iter().find(|line| line.server == "floor")?;
    line.ratio(floor, &line.figures.first()?.name)
}

fn columns(cells: &[String]) -> String {
    cells.iter().map(|cell| format!("{cell:>28}")).collect()
}

/// Median, least and most.
fn spread(figure: &Figure) -> String {
    let (median, least, most) = figure.spread();
    format!("{} ({}..{})", short(median), short(least), short(most))
}

/// Three digits, or all before the point.
fn short(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "-".to_owned(),
        _ if value.abs() >= 100.0 => format!("{value:.0}"),
        _ if value.abs() >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two servers under two loads.
    pub(super) fn example() -> Report {
        let line = |server: &str, load: &str, values: [f64; 3]| Line {
            scenario: "fanout".into(),
            load: load.into(),
            server: server.into(),
            lost: 0,
            figures: vec![Figure { name: "cpu_us".into(), values: values.into() }],
        };
        let mut report = Report::default();
        for load in ["1,000 subscribers, 1 channel, 128 B, 1 at once", "another"] {
            report.take(Record::Line(line("trestle", load, [11.0, 10.0, 12.0])));
            report.take(Record::Line(line("floor", load, [10.0, 10.0, 10.0])));
        }
        report
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let mut again = Report::default();
        for line in example().lines {
            again.read(&serde_json::to_string(&Record::Line(line)).expect("text and numbers")).expect("a record");
        }
        let loads = again.loads();
        assert_eq!(loads.len(), 2);
        assert_eq!(over_floor(loads[0].2[0], &loads[0].2), Some(1.1));
        assert_eq!(spread(&loads[0].2[0].figures[0]), "11.0 (10.0..12.0)");
    }

    #[test]
    fn a_loss_or_a_fault_is_not_whole() {
        let mut report = example();
        assert!(report.whole());
        report.lines[0].lost = 1;
        assert!(!report.whole());
        report.lines[0].lost = 0;
        report.take(Record::Fault("nats in fanout".into()));
        assert!(!report.whole());
    }
}
