//! Twenty of a thousand subscribers stop reading: what that costs the server, and the others.

use crate::{
    bench::{self, Bench, Running},
    crowd::Crowd,
    publisher::{Cost, Load, Publisher},
    socket::Socket,
    turns::{Found, Outcome, in_turns},
};

const STOPPED: usize = 20;
const OTHERS: usize = 980;
const BURST: Load = Load { messages: 320, outstanding: 16, payload_bytes: 1024, channels: 1, subscribers: OTHERS };
/// Six bursts are 2 MB for each who does not read: more than its sockets hold.
const BURSTS: usize = 6;
const BURSTS_QUICK: usize = 2;

/// Measures all servers, in turns.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let bursts = bench.scaled(BURSTS, BURSTS_QUICK);
    let measure = async |running: &mut Running| {
        let mut crowd = Crowd::new();
        crowd.gather_all(running, OTHERS, |_| vec![0]).await?;
        let publisher = Publisher::open(running, 1).await?;
        publisher.burst(&crowd, &BURST).await?;
        let before = publisher.burst(&crowd, &BURST).await?;
        let mut stopped = Vec::new();
        for _ in 0..STOPPED {
            stopped.push(Socket::open(running.peer, &running.address, &[0]).await?);
        }
        let rss = running.server.rss_bytes()? as f64;
        let mut most = rss;
        let mut during = Vec::new();
        for _ in 0..bursts {
            during.push(publisher.burst(&crowd, &BURST).await?);
            most = most.max(running.server.rss_bytes()? as f64);
        }
        drop(stopped);
        crowd.leave().await?;
        let worst = |figure: fn(&Cost) -> f64| during.iter().map(figure).fold(0.0, f64::max);
        let figures = vec![
            ("growth_mb", (most - rss) / 1e6),
            ("others_p99_us", worst(|cost| cost.p99_us)),
            ("others_p99_over_before", worst(|cost| cost.p99_us) / before.p99_us),
            ("others_cpu_us", worst(|cost| cost.cpu_us)),
        ];
        let lost = before.lost + during.iter().map(|cost| cost.lost).sum::<u64>();
        Ok(vec![Found { load: format!("{STOPPED} of 1,000 stop reading, 1 KiB, 16 at once"), lost, figures }])
    };
    Ok(in_turns("slow", bench.cold_rounds(), bench::start(bench.sides()).await?, measure).await)
}
