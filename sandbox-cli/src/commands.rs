//! One room for each verb.

mod cleanup;
mod cp;
mod doctor;
mod down;
mod egress;
mod exec;
mod import;
mod inspect;
mod ls;
mod policy;
mod pull;
mod repo;
mod run;
mod shell;
mod token;
mod up;
mod work;

use std::time::Duration;

use crate::args::{Cli, ImageVerb, Verb};
use crate::config::Config;
use crate::failure::{Failure, Result};

/// Does what was asked, and says with which code to exit.
pub(crate) fn run(config: &Config, cli: Cli) -> Result<u8> {
    match cli.verb {
        // It only starts another process and listens to it.
        Verb::Up(arguments) => up::run(config, cli.global, arguments),
        Verb::Cleanup => wait(cleanup::run(config)),
        Verb::Cp(arguments) => wait(cp::run(config, arguments)),
        Verb::Diff(arguments) => wait(work::run(config, work::Wanted::Diff, arguments)),
        Verb::Doctor => wait(doctor::run(config)),
        Verb::Down(arguments) => wait(down::run(config, arguments)),
        Verb::Egress(arguments) => wait(egress::run(config, arguments)),
        Verb::Exec(arguments) => wait(exec::run(config, arguments)),
        Verb::Image(ImageVerb::Import(arguments)) => wait(import::run(config, arguments)),
        Verb::Image(ImageVerb::Pull(arguments)) => wait(pull::run(config, arguments)),
        Verb::Inspect(arguments) => wait(inspect::run(config, arguments)),
        Verb::Ls => wait(ls::run(config)),
        Verb::Policy(verb) => wait(policy::run(config, verb)),
        Verb::Patch(arguments) => wait(work::run(config, work::Wanted::Patch, arguments)),
        Verb::Pull(arguments) => wait(work::run(config, work::Wanted::Commits, arguments)),
        Verb::Repo(verb) => wait(repo::run(config, verb)),
        Verb::Run(arguments) => wait(run::run(config, arguments)),
        Verb::Shell(arguments) => wait(shell::run(config, arguments)),
        Verb::Token(verb) => wait(token::run(config, verb)),
        Verb::Supervise => wait(async { crate::supervise::supervise().await.map(|()| 0) }),
    }
}

/// Runs a verb to its end. Work on files that was given up may still sit in a system call: it is not waited for.
fn wait<T>(verb: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| Failure::io("cannot start", error))?;
    let result = runtime.block_on(verb);
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

/// One for the verb, one for what it waits for.
const WORKERS: usize = 2;
