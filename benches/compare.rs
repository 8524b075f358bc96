//! Each figure as a group of criterion's: in a sandbox, through the engine's API, by its command, and bare.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use sandbox_benches::{Arena, Bare, Engine, Ours, Result};

/// Bytes of output that are taken.
const STREAM: u64 = 100_000_000;

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    Arena::with(&Engine::named()?, |arena| {
        exec(&mut criterion, arena)?;
        first_output(&mut criterion, arena)?;
        stream(&mut criterion, arena)
    })?;
    criterion.final_summary();
    Ok(())
}

/// Measures one contender; criterion knows no errors, so the first is kept and ends the run when the group is done.
fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    contender: &str,
    mut work: impl FnMut() -> Result<Duration>,
) -> Result<()> {
    let mut failed = None;
    group.bench_function(contender, |bencher| {
        bencher.iter_custom(|times| {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                match work() {
                    Ok(time) => total += time,
                    Err(error) => {
                        failed.get_or_insert(error);
                        // Criterion makes rates of it, and so needs a time.
                        total += Duration::from_secs(1);
                    }
                }
            }
            total
        });
    });
    failed.map_or(Ok(()), Err)
}

fn exec(criterion: &mut Criterion, arena: &Arena) -> Result<()> {
    let mut group = criterion.benchmark_group("exec");
    group.sample_size(20).measurement_time(Duration::from_secs(10));
    measure(&mut group, "sandbox", || arena.block_on(Ours::exec(&arena.sandbox)))?;
    measure(&mut group, "api", || arena.block_on(arena.raw.exec(&arena.container)))?;
    measure(&mut group, "docker", || arena.docker.exec(&arena.container))?;
    measure(&mut group, "bare", Bare::exec)
}

/// What follows the output is not counted.
fn first_output(criterion: &mut Criterion, arena: &Arena) -> Result<()> {
    let mut group = criterion.benchmark_group("first-output");
    group.sample_size(12).measurement_time(Duration::from_secs(20));
    measure(&mut group, "sandbox", || Ok(arena.block_on(arena.ours.turn())?.first_output))?;
    measure(&mut group, "api", || Ok(arena.block_on(arena.raw.turn())?.first_output))?;
    measure(&mut group, "docker", || Ok(arena.docker.turn()?.first_output))
}

fn stream(criterion: &mut Criterion, arena: &Arena) -> Result<()> {
    let mut group = criterion.benchmark_group("stream");
    group.sample_size(10).measurement_time(Duration::from_secs(10)).throughput(Throughput::Bytes(STREAM));
    measure(&mut group, "sandbox", || arena.in_a_task(Ours::stream(arena.sandbox.guest().clone(), STREAM)))?;
    measure(&mut group, "api", || arena.in_a_task(arena.raw.clone().stream(arena.container.clone(), STREAM)))?;
    measure(&mut group, "docker", || arena.docker.stream(&arena.container, STREAM))?;
    measure(&mut group, "bare", || Bare::stream(STREAM))
}
