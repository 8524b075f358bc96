//! Prints one table: each figure, the engine's own, the ratio, what is to be reached, and whether it is.
//!
//! usage: `cargo bench -p sandbox-benches --bench report -- [FIGURE]…`, where each figure is named by a part of its name.
#![expect(clippy::print_stdout, reason = "printing is what a report is for")]

use std::process::Command;

use sandbox_benches::{Arena, Bare, Engine, Ours, Result, Row, Target, Tree, Unit, print, scratch};

/// Measures everybody's share of some rows.
type Figure = fn(&Arena) -> Result<Vec<Row>>;

/// Millions of bytes of output that are taken.
const STREAM: u32 = 500;
/// Bytes of output that are taken while memory is watched.
const LONG_STREAM: u64 = 2_000_000_000;
/// What makes this program the one whose memory is watched.
const WATCHED: &str = "--watched";

fn main() -> Result<()> {
    let engine = Engine::named()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == WATCHED) {
        return watched(&engine);
    }
    let chosen: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let figures: [(&str, Figure); 5] =
        [("exec", exec), ("start", start), ("stream", stream), ("memory", memory), ("files", files)];
    let rows = Arena::with(&engine, |arena| {
        let mut rows = Vec::new();
        for (name, figure) in figures {
            if chosen.is_empty() || chosen.iter().any(|part| name.contains(part.as_str())) {
                rows.extend(figure(arena)?);
            }
        }
        Ok(rows)
    })?;
    print(&rows);
    Ok(())
}

fn exec(arena: &Arena) -> Result<Vec<Row>> {
    let mut row = Row::new("exec of true", Unit::Milliseconds, &[Target::AtMost(3.0), Target::AtMostTimesDocker(0.05)]);
    // In blocks: right after an exec of its own, an engine is still busy cleaning up, which would be the next one's time.
    for _ in 0..10 {
        for _ in 0..20 {
            row.ours.push(arena.block_on(Ours::exec(&arena.sandbox))?);
        }
        for _ in 0..20 {
            row.bare.push(Bare::exec()?);
        }
        for _ in 0..20 {
            row.raw.push(arena.block_on(arena.raw.exec(&arena.container))?);
        }
        for _ in 0..20 {
            row.docker.push(arena.docker.exec(&arena.container)?);
        }
    }
    Ok(vec![row])
}

fn start(arena: &Arena) -> Result<Vec<Row>> {
    let mut first = Row::new("start to first output", Unit::Milliseconds, &[Target::AtMostTimesDocker(0.75)]);
    let mut destroy = Row::new("destroy", Unit::Milliseconds, &[]);
    let mut whole = Row::new("start, output, destroy", Unit::Milliseconds, &[Target::AtMostTimesDocker(1.0)]);
    for _ in 0..24 {
        let ours = arena.block_on(arena.ours.turn())?;
        let raw = arena.block_on(arena.raw.turn())?;
        let docker = arena.docker.turn()?;
        for (turn, at) in [(ours, 0), (raw, 1), (docker, 2)] {
            let total = turn.first_output + turn.destroy;
            for (row, time) in [(&mut first, turn.first_output), (&mut destroy, turn.destroy), (&mut whole, total)] {
                [&mut row.ours, &mut row.raw, &mut row.docker][at].push(time);
            }
        }
    }
    Ok(vec![first, destroy, whole])
}

fn stream(arena: &Arena) -> Result<Vec<Row>> {
    const TARGETS: &[Target] = &[Target::AtLeastTimesBare(0.8)];
    let mut row = Row::new("500 MB of output", Unit::MegabytesPerSecond, TARGETS);
    // The main future of a runtime hears of its events from another thread, which costs a switch for each read.
    let mut awaited = Row::new("the same in the main future", Unit::MegabytesPerSecond, TARGETS);
    let (megabytes, bytes) = (f64::from(STREAM), u64::from(STREAM) * 1_000_000);
    for _ in 0..12 {
        let guest = || arena.sandbox.guest().clone();
        row.ours.push_rate(megabytes, arena.in_a_task(Ours::stream(guest(), bytes))?);
        awaited.ours.push_rate(megabytes, arena.block_on(Ours::stream(guest(), bytes))?);
        let raw = || arena.raw.clone().stream(arena.container.clone(), bytes);
        row.raw.push_rate(megabytes, arena.in_a_task(raw())?);
        awaited.raw.push_rate(megabytes, arena.block_on(raw())?);
        row.docker.push_rate(megabytes, arena.docker.stream(&arena.container, bytes)?);
        let bare = Bare::stream(bytes)?;
        row.bare.push_rate(megabytes, bare);
        awaited.bare.push_rate(megabytes, bare);
    }
    Ok(vec![row, awaited])
}

fn memory(_: &Arena) -> Result<Vec<Row>> {
    let mut row = Row::new("peak while 2 GB stream", Unit::Mebibytes, &[Target::AtMost(20.0)]);
    for _ in 0..3 {
        let output = Command::new(std::env::current_exe()?).arg(WATCHED).output()?;
        if !output.status.success() {
            return Err(format!("the watched client failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        row.ours.push_figure(String::from_utf8(output.stdout)?.trim().parse::<f64>()? / 1024.0);
    }
    Ok(vec![row])
}

fn files(arena: &Arena) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (count, bytes, amount, unit, names) in [
        (1, 200_000_000, 200.0, Unit::MegabytesPerSecond, ["200 MB in", "200 MB out"]),
        (5_000, 1_000, 5_000.0, Unit::FilesPerSecond, ["5,000 files in", "5,000 files out"]),
    ] {
        let [mut up, mut down] = names.map(|name| Row::new(name, unit, &[Target::AtLeastTimesDocker(1.0)]));
        let tree = Tree::new(count, bytes)?;
        for _ in 0..6 {
            up.ours.push_rate(amount, arena.block_on(Ours::upload(&arena.sandbox, tree.path()))?);
            up.docker.push_rate(amount, arena.docker.upload(&arena.container, tree.path())?);
            let to = scratch()?;
            down.ours.push_rate(amount, arena.block_on(Ours::download(&arena.sandbox, to.path()))?);
            tree.compare(to.path())?;
            let to = scratch()?;
            down.docker.push_rate(amount, arena.docker.download(&arena.container, to.path())?);
            tree.compare(to.path())?;
        }
        rows.extend([up, down]);
    }
    Ok(rows)
}

/// The client whose memory is watched: prints the most that it ever held, in KiB (`VmHWM`, `proc_pid_status(5)`).
fn watched(engine: &Engine) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let sandbox = Ours::connect(engine).await?.start().await?;
        let streamed = Ours::stream(sandbox.guest().clone(), LONG_STREAM).await;
        sandbox.destroy().await?;
        streamed
    })?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the kernel tells no peak")?;
    println!("{}", peak.trim().trim_end_matches(" kB"));
    Ok(())
}
