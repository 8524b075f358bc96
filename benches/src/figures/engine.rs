//! A sandbox on Docker beside Docker's own ways.

use std::process::Command;

use crate::{Arena, Bare, Engine, OURS, Ours, Result, Row, Run, Target, Unit};

/// Millions of bytes of output that are taken.
const STREAM: u32 = 500;
/// Bytes of output that are taken while memory is watched.
const LONG_STREAM: u64 = 2_000_000_000;
/// What makes this program the one whose memory is watched.
pub const WATCHED: &str = "--watched";

/// Measures the group.
///
/// # Errors
/// The engine's, or a contender's.
pub fn engine(run: &Run) -> Result<Vec<Row>> {
    Arena::with(&Engine::named()?, |arena| {
        let mut rows = Vec::new();
        run.figure("exec", &mut rows, || exec(run, arena))?;
        run.figure("start", &mut rows, || start(run, arena))?;
        run.figure("stream", &mut rows, || stream(run, arena))?;
        run.figure("memory", &mut rows, || memory(run))?;
        Ok(rows)
    })
}

fn exec(run: &Run, arena: &Arena) -> Result<Vec<Row>> {
    let targets = &[Target::AtMost(3.0), Target::AtMostTimes(0.05, "docker")];
    let mut row = Row::new("exec of true", Unit::Milliseconds, targets);
    // In blocks: right after an exec of its own, an engine is still busy cleaning up, which would be the next one's time.
    for _ in 0..run.times(10) {
        for _ in 0..run.times(20) {
            row.of(OURS).push(arena.block_on(Ours::exec(&arena.sandbox))?);
        }
        for _ in 0..run.times(20) {
            row.of("bare").push(Bare::exec()?);
        }
        for _ in 0..run.times(20) {
            row.of("API").push(arena.block_on(arena.raw.exec(&arena.container))?);
        }
        for _ in 0..run.times(20) {
            row.of("docker").push(arena.docker.exec(&arena.container)?);
        }
    }
    Ok(vec![row])
}

fn start(run: &Run, arena: &Arena) -> Result<Vec<Row>> {
    let mut first = Row::new("start to first output", Unit::Milliseconds, &[Target::AtMostTimes(0.75, "docker")]);
    let mut destroy = Row::new("destroy", Unit::Milliseconds, &[]);
    let mut whole = Row::new("start, output, destroy", Unit::Milliseconds, &[Target::AtMostTimes(1.0, "docker")]);
    for _ in 0..run.times(24) {
        let ours = arena.block_on(arena.ours.turn())?;
        let raw = arena.block_on(arena.raw.turn())?;
        let docker = arena.docker.turn()?;
        for (name, turn) in [(OURS, ours), ("API", raw), ("docker", docker)] {
            first.of(name).push(turn.first_output);
            destroy.of(name).push(turn.destroy);
            whole.of(name).push(turn.first_output + turn.destroy);
        }
    }
    Ok(vec![first, destroy, whole])
}

fn stream(run: &Run, arena: &Arena) -> Result<Vec<Row>> {
    const TARGETS: &[Target] = &[Target::AtLeastTimes(0.8, "bare")];
    let mut row = Row::new("500 MB of output", Unit::MegabytesPerSecond, TARGETS);
    // The main future of a runtime hears of its events from another thread, which costs a switch for each read.
    let mut awaited = Row::new("the same in the main future", Unit::MegabytesPerSecond, TARGETS);
    let (megabytes, bytes) = (f64::from(STREAM), u64::from(STREAM) * 1_000_000);
    for _ in 0..run.times(12) {
        let guest = || arena.sandbox.guest().clone();
        row.of(OURS).push_rate(megabytes, arena.in_a_task(Ours::stream(guest(), bytes))?);
        awaited.of(OURS).push_rate(megabytes, arena.block_on(Ours::stream(guest(), bytes))?);
        let raw = || arena.raw.clone().stream(arena.container.clone(), bytes);
        row.of("API").push_rate(megabytes, arena.in_a_task(raw())?);
        awaited.of("API").push_rate(megabytes, arena.block_on(raw())?);
        row.of("docker").push_rate(megabytes, arena.docker.stream(&arena.container, bytes)?);
        let bare = Bare::stream(bytes)?;
        row.of("bare").push_rate(megabytes, bare);
        awaited.of("bare").push_rate(megabytes, bare);
    }
    Ok(vec![row, awaited])
}

fn memory(run: &Run) -> Result<Vec<Row>> {
    let mut row = Row::new("peak while 2 GB stream", Unit::Mebibytes, &[Target::AtMost(20.0)]);
    for _ in 0..run.times(3) {
        let output = Command::new(std::env::current_exe()?).arg(WATCHED).output()?;
        if !output.status.success() {
            return Err(format!("the watched client failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        row.of(OURS).push_figure(String::from_utf8(output.stdout)?.trim().parse::<f64>()? / 1024.0);
    }
    Ok(vec![row])
}

/// Is the client whose memory is watched: prints the most that it ever held, in KiB.
///
/// # Errors
/// The engine's.
#[expect(clippy::print_stdout, reason = "it is how the figure is told")]
pub fn watched() -> Result<()> {
    let engine = Engine::named()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let sandbox = Ours::connect(&engine).await?.start().await?;
        let streamed = Ours::stream(sandbox.guest().clone(), LONG_STREAM).await;
        sandbox.destroy().await?;
        streamed
    })?;
    println!("{}", crate::egress::Memory::of(std::process::id())?.peak);
    Ok(())
}
