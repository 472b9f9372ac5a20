//! What was promised, and whether it holds.

use crate::turns::Line;

/// One promise about a figure of the gateway.
struct Target {
    /// In words.
    work: &'static str,
    scenario: &'static str,
    /// What the load's name has in it; of several loads the worst counts.
    load: &'static str,
    /// The gateway as the lines call it.
    ours: &'static str,
    figure: &'static str,
    /// The server whose figure ours is divided by, if any.
    over: Option<&'static str>,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}
use Bound::{AtLeast, AtMost};

/// A target beside what was measured.
pub(super) struct Verdict {
    pub(super) work: &'static str,
    pub(super) target: String,
    /// Nothing if it was not measured.
    pub(super) measured: Option<f64>,
    pub(super) met: bool,
}

const ONE: &str = "1,000 subscribers, 1 channel, 128 B, 1 at once";
const SIXTEEN: &str = "1,000 subscribers, 1 channel, 128 B, 16 at once";

const fn target(
    work: &'static str,
    (scenario, load, ours): (&'static str, &'static str, &'static str),
    figure: &'static str,
    over: Option<&'static str>,
    bound: Bound,
) -> Target {
    Target { work, scenario, load, ours, figure, over, bound }
}

const TARGETS: [Target; 20] = [
    target("fan-out, 1 at once, CPU", ("fanout", ONE, "trestle"), "cpu_us", Some("floor"), AtMost(1.1)),
    target("fan-out, 1 at once, CPU", ("fanout", ONE, "trestle"), "cpu_us", Some("centrifuge"), AtMost(0.6)),
    target("fan-out, 16 at once, CPU", ("fanout", SIXTEEN, "trestle"), "cpu_us", Some("floor"), AtMost(1.3)),
    target("fan-out, 16 at once, CPU", ("fanout", SIXTEEN, "trestle"), "cpu_us", Some("centrifuge"), AtMost(0.25)),
    target("fan-out at half the saturation rate, p99", ("pace", "", "trestle"), "p99_us", Some("floor"), AtMost(1.5)),
    target("publish and receive one's own, CPU, us", ("own", "", "trestle"), "cpu_us", None, AtMost(16.0)),
    target("request through NATS, CPU", ("request", "1 at once", "trestle-nats"), "cpu_us", Some("floor"), AtMost(3.0)),
    target(
        "request through NATS, p50",
        ("request", " 1 at once", "trestle-nats"),
        "p50_us",
        Some("floor"),
        AtMost(4.0),
    ),
    target("request, embedded bus, CPU", ("request", " 1 at once", "trestle"), "cpu_us", Some("floor"), AtMost(3.0)),
    target("request, embedded bus, p50", ("request", " 1 at once", "trestle"), "p50_us", Some("floor"), AtMost(4.0)),
    target(
        "PushStream, messages per CPU second",
        ("ingest", "PushStream, 128 B, 256", "trestle"),
        "per_cpu_second",
        Some("floor"),
        AtLeast(0.5),
    ),
    target(
        "Attach, messages per CPU second",
        ("ingest", "Attach", "trestle"),
        "per_cpu_second",
        Some("floor"),
        AtLeast(0.5),
    ),
    target(
        "PushStream, messages per CPU second, over unary",
        ("ingest", "PushStream, 128 B, 256", "trestle"),
        "per_cpu_second",
        Some("centrifuge"),
        AtLeast(10.0),
    ),
    target("memory of an idle connection, KB", ("idle", "", "trestle"), "connection_kb", None, AtMost(4.0)),
    target(
        "idle CPU of a connection, us/s",
        ("idle", "", "trestle"),
        "connection_cpu_us_per_second",
        None,
        AtMost(3.0),
    ),
    target("memory after all have left, over before", ("idle", "", "trestle"), "left_over_before", None, AtMost(1.2)),
    target("connect and subscribe, CPU, us", ("handshake", "", "trestle"), "cpu_us", None, AtMost(100.0)),
    target("5,000 at once, s", ("storm", "5,000", "trestle"), "all_subscribed_s", None, AtMost(0.7)),
    target(
        "CPU per delivery as sessions grow",
        ("growth", "sessions", "trestle"),
        "cpu_over_first",
        None,
        AtMost(1.15),
    ),
    target(
        "CPU per delivery as channels grow",
        ("growth", "channels", "trestle"),
        "cpu_over_first",
        None,
        AtMost(1.15),
    ),
];

/// Each target beside what `lines` say.
pub(super) fn verdicts(lines: &[Line]) -> Vec<Verdict> {
    TARGETS.iter().map(|target| target.judge(lines)).collect()
}

impl Target {
    fn judge(&self, lines: &[Line]) -> Verdict {
        let ours = lines
            .iter()
            .filter(|line| line.scenario == self.scenario && line.server == self.ours && line.load.contains(self.load));
        let measured = ours.filter_map(|line| self.value(line, lines)).reduce(|one, other| match self.bound {
            AtMost(_) => one.max(other),
            AtLeast(_) => one.min(other),
        });
        let (sign, limit) = match self.bound {
            AtMost(most) => ("<=", most),
            AtLeast(least) => (">=", least),
        };
        let over = self.over.map_or(String::new(), |server| format!(" x {server}"));
        let met = measured.is_some_and(|value| match self.bound {
            AtMost(most) => value <= most,
            AtLeast(least) => value >= least,
        });
        Verdict { work: self.work, target: format!("{sign} {limit}{over}"), measured, met }
    }

    fn value(&self, ours: &Line, lines: &[Line]) -> Option<f64> {
        match self.over {
            None => Some(ours.figures.iter().find(|figure| figure.name == self.figure)?.spread().0),
            Some(server) => {
                // A peer may have the figure under a load of its own name; then it has only one.
                let theirs = |line: &&Line| line.scenario == ours.scenario && line.server == server;
                let same = lines.iter().find(|line| theirs(line) && line.load == ours.load);
                ours.ratio(same.or_else(|| lines.iter().find(theirs))?, self.figure)
            }
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (word, value) = self.words();
        write!(f, "{word:12} {:50} {:22} {value}", self.work, self.target)
    }
}

impl Verdict {
    /// Whether it is met, and by which value.
    pub(super) fn words(&self) -> (&'static str, String) {
        match self.measured {
            None => ("not measured", String::new()),
            Some(value) => (if self.met { "met" } else { "missed" }, super::short(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        let mut lines = example().lines;
        let first = |lines: &[Line]| verdicts(lines).remove(0).words();
        assert_eq!(first(&lines), ("met", "1.10".to_owned()));
        lines[0].figures[0].values = vec![12.0, 12.0, 12.0];
        assert_eq!(first(&lines), ("missed", "1.20".to_owned()));
        assert_eq!(verdicts(&lines)[1].words(), ("not measured", String::new()));
    }
}
