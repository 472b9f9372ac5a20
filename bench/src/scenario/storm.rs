//! Thousands connect and subscribe at once, to a server that has just started.

use std::time::Instant;

use super::thousands;
use crate::{
    bench::{Bench, Side},
    crowd::Crowd,
    turns::{Found, Outcome, in_turns},
};

const COMERS: [usize; 2] = [5_000, 10_000];

/// Measures all servers, in turns.
pub(super) async fn run(bench: &Bench) -> Outcome {
    let measure = async |side: &mut Side| {
        let mut found = Vec::new();
        for comers in COMERS {
            let running = side.start().await?;
            let (cpu, begun) = (running.server.cpu_ns()?, Instant::now());
            let mut crowd = Crowd::new();
            let errors = crowd.gather(&running, comers, comers, |_| vec![0]).await;
            let (cpu, wall) = (running.server.cpu_ns()? - cpu, begun.elapsed());
            if let Some(error) = errors.first() {
                eprintln!("storm: one of {} errors: {error:#}", errors.len());
            }
            let figures = vec![("all_subscribed_s", wall.as_secs_f64()), ("cpu_us", cpu as f64 / 1e3 / comers as f64)];
            found.push(Found { load: format!("{} at once", thousands(comers)), lost: errors.len() as u64, figures });
            crowd.leave().await?;
            running.server.stop().await?;
        }
        Ok(found)
    };
    in_turns("storm", bench.cold_rounds(), bench.sides(), measure).await
}
