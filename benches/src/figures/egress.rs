//! Our gateway beside other proxies.

use std::time::Instant;

use crate::egress::{Contest, Via};
use crate::{Effort, OURS, Result, Row, Run, Target, Unit};

/// Measures the group.
///
/// # Errors
/// If a proxy is missing, or does not do what it is asked for.
pub fn egress(run: &Run) -> Result<Vec<Row>> {
    let contest = Contest::start()?;
    let mut rows = Vec::new();
    run.figure("tunnel", &mut rows, || {
        let targets = &[Target::AtLeastTimes(1.3, "squid"), Target::AtLeastTimes(0.5, "direct")];
        let row = Row::new("100 MB by a tunnel", Unit::MegabytesPerSecond, targets);
        large(run.times(10), &contest, row, Via::Tunnel, &[OURS, "direct", "squid", "tinyproxy"])
    })?;
    run.figure("tls", &mut rows, || {
        let row = Row::new("100 MB, TLS seen", Unit::MegabytesPerSecond, &[Target::AtLeastTimes(5.0, "mitmdump")]);
        large(run.times(8), &contest, row, Via::Tls, &[OURS, "direct", "mitmdump"])
    })?;
    run.figure("tls requests", &mut rows, || tls_requests(run, &contest))?;
    run.figure("kept", &mut rows, || kept(run, &contest))?;
    run.figure("connections", &mut rows, || connections(run, &contest))?;
    run.figure("idle", &mut rows, || idle(run, &contest))?;
    Ok(rows)
}

fn large(times: usize, contest: &Contest, mut row: Row, via: Via, names: &[&'static str]) -> Result<Vec<Row>> {
    let entrants = contest.entrants(names)?;
    for _ in 0..times {
        for entrant in &entrants {
            let mut session = entrant.open(via)?;
            // So that what is set up once is.
            session.get("/small")?;
            row.of(entrant.name).push_rate(100.0, entrant.large(&mut session)?);
        }
    }
    Ok(vec![row])
}

fn tls_requests(run: &Run, contest: &Contest) -> Result<Vec<Row>> {
    let mut row = Row::new("requests, TLS seen", Unit::PerSecond, &[Target::AtLeastTimes(20.0, "mitmdump")]);
    let requests = run.times(200);
    let mut entrants = Vec::new();
    for entrant in contest.entrants(&[OURS, "direct", "mitmdump"])? {
        entrants.push((entrant.name, entrant.open(Via::Tls)?));
    }
    for _ in 0..run.times(10) {
        for (name, session) in &mut entrants {
            session.get("/small")?;
            let begun = Instant::now();
            (0..requests)
                .try_for_each(|_| session.get("/small").map(drop))
                .map_err(|error| format!("{name}: {error}"))?;
            #[expect(clippy::cast_precision_loss, reason = "there are hundreds, not billions of billions")]
            row.of(name).push_rate(requests as f64, begun.elapsed());
        }
    }
    Ok(vec![row])
}

fn kept(run: &Run, contest: &Contest) -> Result<Vec<Row>> {
    const TARGETS: &[Target] = &[Target::AtMostAbove(0.03, "direct")];
    let mut rows = Vec::new();
    for (name, via, names) in [
        ("kept-alive request, by a tunnel", Via::Tunnel, &[OURS, "direct", "squid", "tinyproxy"][..]),
        // Tinyproxy keeps no connection.
        ("the same, each decided on", Via::Forward, &[OURS, "direct", "squid"]),
    ] {
        let mut row = Row::new(name, Unit::Milliseconds, TARGETS);
        let mut entrants = Vec::new();
        for entrant in contest.entrants(names)? {
            entrants.push((entrant.name, entrant.open(via)?));
        }
        for _ in 0..run.times(20) {
            for (name, session) in &mut entrants {
                session.get("/small").map_err(|error| format!("{name}: {error}"))?;
                for _ in 0..run.times(500) {
                    let begun = Instant::now();
                    session.get("/small").map_err(|error| format!("{name}: {error}"))?;
                    row.of(name).push(begun.elapsed());
                }
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

fn connections(run: &Run, contest: &Contest) -> Result<Vec<Row>> {
    let targets = &[Target::AtLeastTimes(1.0, "tinyproxy")];
    let mut row = Row::new("new connections of 16 clients", Unit::PerSecond, targets);
    let entrants = contest.entrants(&[OURS, "direct", "squid", "tinyproxy"])?;
    for _ in 0..run.times(12) {
        for entrant in &entrants {
            row.of(entrant.name).push_figure(entrant.crowd(run.times(100))?);
        }
    }
    Ok(vec![row])
}

fn idle(run: &Run, contest: &Contest) -> Result<Vec<Row>> {
    let count = contest.room(if run.effort == Effort::Measured { 10_000 } else { 100 });
    let name = format!("memory for each of {count} idle tunnels");
    let mut row = Row::new(name, Unit::Kibibytes, &[Target::AtMost(64.0)]);
    for _ in 0..run.times(3) {
        for name in [OURS, "squid"] {
            row.of(name).push_figure(contest.idle(name, count)?);
        }
    }
    Ok(vec![row])
}
