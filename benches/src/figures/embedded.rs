//! A sandbox without an engine beside `docker run`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sandbox_core::Sandbox;
use tokio::runtime::Runtime;

use crate::{CommandLine, Engine, OURS, Ours, Result, Row, Run, Target, Unit, scratch};

/// Sandboxes that are started at once.
const CROWD: usize = 50;

/// Measures the group.
///
/// # Errors
/// The engine's, or a sandbox's.
pub fn embedded(run: &Run) -> Result<Vec<Row>> {
    let docker = CommandLine::new(&Engine::named()?);
    let state = scratch()?;
    let tokio = Runtime::new()?;
    let ours = Arc::new(tokio.block_on(Ours::embedded(state.path()))?);
    let mut rows = Vec::new();
    run.figure("start", &mut rows, || start(run, &tokio, &ours, &docker))?;
    run.figure("crowd", &mut rows, || {
        let targets = &[Target::AtMostTimes(1.0 / 15.0, "docker")];
        let mut row = Row::new("50 at once, all answered", Unit::Milliseconds, targets);
        for _ in 0..run.times(5) {
            row.of(OURS).push(tokio.block_on(ours.crowd(CROWD))?);
            row.of("docker").push(docker.crowd(CROWD)?);
        }
        Ok(vec![row])
    })?;
    run.figure("idle", &mut rows, || idle(run, &tokio, &ours))?;
    Ok(rows)
}

fn start(run: &Run, tokio: &Runtime, ours: &Arc<Ours>, docker: &CommandLine) -> Result<Vec<Row>> {
    let targets = &[Target::AtMost(20.0), Target::AtMostTimes(0.1, "docker")];
    let mut first = Row::new("start to first output", Unit::Milliseconds, targets);
    let mut destroy = Row::new("destroy", Unit::Milliseconds, &[Target::AtMost(10.0)]);
    let turn = || {
        let ours = Arc::clone(ours);
        tokio.block_on(async { tokio.spawn(async move { ours.turn().await }).await? })
    };
    // The first one fills what all others share.
    turn()?;
    for _ in 0..run.times(30) {
        for (name, turn) in [(OURS, turn()?), ("docker", docker.turn()?)] {
            first.of(name).push(turn.first_output);
            destroy.of(name).push(turn.destroy);
        }
    }
    Ok(vec![first, destroy])
}

fn idle(run: &Run, tokio: &Runtime, ours: &Ours) -> Result<Vec<Row>> {
    let mut row = Row::new("memory of an idle sandbox", Unit::Mebibytes, &[Target::AtMost(4.0)]);
    for _ in 0..run.times(5) {
        let sandbox = tokio.block_on(ours.start())?;
        let held = tokio.block_on(Ours::exec(&sandbox)).and_then(|_| held(&sandbox));
        tokio.block_on(sandbox.destroy())?;
        row.of(OURS).push_figure(held?);
    }
    Ok(vec![row])
}

/// What the processes of a sandbox hold, each page divided by how many share it, and what the kernel holds for them, in MiB.
fn held(sandbox: &Sandbox) -> Result<f64> {
    let begun = Instant::now();
    let group = memory_group(sandbox.container().as_str())?;
    let read = |file: &str| std::fs::read_to_string(group.join(file));
    // What a program of the sandbox's left is gone in a moment.
    let processes = loop {
        let processes = read("cgroup.procs")?;
        if processes.lines().count() == 1 || begun.elapsed().as_secs() > 5 {
            break processes;
        }
        std::thread::yield_now();
    };
    let mut bytes = 0.0;
    for process in processes.lines() {
        // smaps_rollup: proc_pid_smaps(5).
        let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("the kernel tells no share")?;
        bytes += pss.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0;
    }
    // Version 1 of control groups, or version 2.
    bytes += if let Ok(text) = read("memory.kmem.usage_in_bytes") {
        text.trim().parse::<f64>()?
    } else {
        let stat = read("memory.stat")?;
        let kernel = stat.lines().find_map(|line| line.strip_prefix("kernel "));
        kernel.ok_or("the kernel tells not what it holds")?.trim().parse::<f64>()?
    };
    Ok(bytes / f64::from(1 << 20))
}

/// The control group that counts a container's memory.
fn memory_group(container: &str) -> Result<PathBuf> {
    let places = ["/sys/fs/cgroup/memory/sandbox", "/sys/fs/cgroup/sandbox"];
    let group = places.map(|place| Path::new(place).join(container)).into_iter().find(|group| group.is_dir());
    group.ok_or_else(|| format!("{container} has no control group in {}", places.join(" or ")).into())
}
