//! Files that go in and out, on Docker and without an engine.

use sandbox_core::Sandbox;
use tokio::runtime::Runtime;

use crate::{
    Arena, Bare, Effort, Engine, Forge, OURS, Ours, Repository, Result, Row, Run, Target, Tree, Unit, scratch,
};

/// Measures the group.
///
/// # Errors
/// The engine's, or a contender's.
pub fn workspace(run: &Run) -> Result<Vec<Row>> {
    let tokio = Runtime::new()?;
    let state = scratch()?;
    let embedded = tokio.block_on(Ours::embedded(state.path()))?;
    Arena::with(&Engine::named()?, |arena| {
        let mut rows = Vec::new();
        run.figure("copy", &mut rows, || copy(run, arena, &embedded))?;
        run.figure("clone", &mut rows, || clone(run, arena, &embedded))?;
        let sandbox = tokio.block_on(embedded.start())?;
        let figure = run.figure("files", &mut rows, || files(run, arena, &sandbox));
        tokio.block_on(sandbox.destroy())?;
        figure.map(|()| rows)
    })
}

fn copy(run: &Run, arena: &Arena, embedded: &Ours) -> Result<Vec<Row>> {
    let files = if run.effort == Effort::Measured { 20_000 } else { 200 };
    let repository = Repository::new(files)?;
    let targets = &[Target::AtMostTimes(1.0, "cp -a")];
    let row = |place| Row::new(format!("copy of {files} files, {place}"), Unit::Milliseconds, targets);
    let [mut docker, mut none] = ["Docker", "no engine"].map(row);
    for _ in 0..run.times(7) {
        let to = scratch()?;
        let bare = Bare::copy(repository.path(), &to.path().join("copy"))?;
        drop(to);
        for (row, ours) in [(&mut docker, &arena.ours), (&mut none, embedded)] {
            row.of("cp -a").push(bare);
            row.of(OURS).push(arena.block_on(ours.copied(repository.path()))?);
        }
    }
    Ok(vec![docker, none])
}

fn clone(run: &Run, arena: &Arena, embedded: &Ours) -> Result<Vec<Row>> {
    let files = if run.effort == Effort::Measured { 20_000 } else { 200 };
    let forge = Forge::start(&Repository::new(files)?)?;
    let targets = &[Target::AtMostTimes(0.2, "git clone")];
    let row =
        |place| Row::new(format!("start with a second clone of {files} files, {place}"), Unit::Milliseconds, targets);
    let [mut docker, mut none] = ["Docker", "no engine"].map(row);
    // Below a directory that others may write, there is no mirror.
    let mirrors = tempfile::tempdir()?;
    arena.block_on(arena.ours.cloned(&forge, mirrors.path()))?;
    arena.block_on(embedded.cloned(&forge, mirrors.path()))?;
    for _ in 0..run.times(7) {
        let to = scratch()?;
        let bare = forge.clone_to(&to.path().join("clone"))?;
        drop(to);
        for (row, ours) in [(&mut docker, &arena.ours), (&mut none, embedded)] {
            row.of("git clone").push(bare);
            row.of(OURS).push(arena.block_on(ours.cloned(&forge, mirrors.path()))?);
        }
    }
    Ok(vec![docker, none])
}

fn files(run: &Run, arena: &Arena, embedded: &Sandbox) -> Result<Vec<Row>> {
    const LARGE: &[Target] = &[Target::AtLeastTimes(0.8, "cat"), Target::AtLeastTimes(2.0, "docker cp")];
    const SMALL: &[Target] = &[Target::AtLeastTimes(2.0, "docker cp")];
    let mut rows = Vec::new();
    for (count, bytes, amount, unit, targets, names) in [
        (1, 200_000_000, 200.0, Unit::MegabytesPerSecond, LARGE, ["200 MB in", "200 MB out"]),
        (5_000, 1_000, 5_000.0, Unit::FilesPerSecond, SMALL, ["5,000 files in", "5,000 files out"]),
    ] {
        let row = |name: &str, place: &str| Row::new(format!("{name}, {place}"), unit, targets);
        let places = [(&arena.sandbox, "Docker"), (embedded, "no engine")];
        let mut pairs = places.map(|(_, place)| names.map(|name| row(name, place)));
        let tree = Tree::new(count, bytes)?;
        for _ in 0..run.times(6) {
            let cat = if count == 1 {
                let to = scratch()?;
                Some(Bare::cat(&tree.path().join("0/0"), &to.path().join("copy"))?)
            } else {
                None
            };
            let docker_up = arena.docker.upload(&arena.container, tree.path())?;
            let to = scratch()?;
            let docker_down = arena.docker.download(&arena.container, to.path())?;
            tree.compare(to.path())?;
            drop(to);
            for ((sandbox, _), [up, down]) in places.iter().zip(&mut pairs) {
                up.of(OURS).push_rate(amount, arena.block_on(Ours::upload(sandbox, tree.path()))?);
                let to = scratch()?;
                down.of(OURS).push_rate(amount, arena.block_on(Ours::download(sandbox, to.path()))?);
                tree.compare(to.path())?;
                up.of("docker cp").push_rate(amount, docker_up);
                down.of("docker cp").push_rate(amount, docker_down);
                if let Some(cat) = cat {
                    up.of("cat").push_rate(amount, cat);
                    down.of("cat").push_rate(amount, cat);
                }
            }
        }
        rows.extend(pairs.into_iter().flatten());
    }
    Ok(rows)
}
