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

const fn target(
    work: &'static str,
    (scenario, load, ours): Work,
    figure: &'static str,
    over: Option<&'static str>,
    bound: Bound,
) -> Target {
    Target { work, scenario, load, ours, figure, over, bound }
}

/// A load of the gateway: scenario, load, and how the lines call it.
type Work = (&'static str, &'static str, &'static str);

const FANOUT_1: Work = ("fanout", "1,000 subscribers, 1 channel, 128 B, 1 at once", "trestle");
const FANOUT_16: Work = ("fanout", "1,000 subscribers, 1 channel, 128 B, 16 at once", "trestle");
const PACE: Work = ("pace", "", "trestle");
const OWN: Work = ("own", "", "trestle");
const REQUEST: Work = ("request", " 1 at once", "trestle");
const REQUEST_NATS: Work = ("request", " 1 at once", "trestle-nats");
const PUSH_STREAM: Work = ("ingest", "PushStream, 128 B, 256 at once", "trestle");
const ATTACH: Work = ("ingest", "Attach, 128 B, 256 at once", "trestle");
const IDLE: Work = ("idle", "", "trestle");
const HANDSHAKE: Work = ("handshake", "", "trestle");
const STORM: Work = ("storm", "5,000 at once", "trestle");
const SESSIONS: Work = ("growth", "sessions", "trestle");
const CHANNELS: Work = ("growth", "channels", "trestle");

/// The name of the first figure of most scenarios.
const CPU: &str = "cpu_us";
const RATE: &str = "per_cpu_second";
const FLOOR: Option<&str> = Some("floor");
const CENTRIFUGE: Option<&str> = Some("centrifuge");

/// As the project has set them.
const TARGETS: [Target; 20] = [
    target("fan-out, 1 at once, CPU", FANOUT_1, CPU, FLOOR, AtMost(1.1)),
    target("fan-out, 1 at once, CPU", FANOUT_1, CPU, CENTRIFUGE, AtMost(0.6)),
    target("fan-out, 16 at once, CPU", FANOUT_16, CPU, FLOOR, AtMost(1.3)),
    target("fan-out, 16 at once, CPU", FANOUT_16, CPU, CENTRIFUGE, AtMost(0.25)),
    target("fan-out at half the saturation rate, p99", PACE, "p99_us", FLOOR, AtMost(1.5)),
    target("publish and receive one's own, CPU, us", OWN, CPU, None, AtMost(16.0)),
    target("request through NATS, CPU", REQUEST_NATS, CPU, FLOOR, AtMost(3.0)),
    target("request through NATS, p50", REQUEST_NATS, "p50_us", FLOOR, AtMost(4.0)),
    target("request, embedded bus, CPU", REQUEST, CPU, FLOOR, AtMost(3.0)),
    target("request, embedded bus, p50", REQUEST, "p50_us", FLOOR, AtMost(4.0)),
    target("PushStream, messages per CPU second", PUSH_STREAM, RATE, FLOOR, AtLeast(0.5)),
    target("Attach, messages per CPU second", ATTACH, RATE, FLOOR, AtLeast(0.5)),
    target("PushStream, messages per CPU second, over unary", PUSH_STREAM, RATE, CENTRIFUGE, AtLeast(10.0)),
    target("memory of an idle connection, KB", IDLE, "connection_kb", None, AtMost(4.0)),
    target("idle CPU of a connection, us/s", IDLE, "connection_cpu_us_per_second", None, AtMost(3.0)),
    target("memory after all have left, over before", IDLE, "left_over_before", None, AtMost(1.2)),
    target("connect and subscribe, CPU, us", HANDSHAKE, CPU, None, AtMost(100.0)),
    target("5,000 at once, s", STORM, "all_subscribed_s", None, AtMost(0.7)),
    target("CPU per delivery as sessions grow", SESSIONS, "cpu_over_first", None, AtMost(1.15)),
    target("CPU per delivery as channels grow", CHANNELS, "cpu_over_first", None, AtMost(1.15)),
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
