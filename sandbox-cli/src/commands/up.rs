//! `up`: a sandbox that stays, held by a process of its own.

use sandbox_core::ErrorKind;
use serde::Serialize;

use crate::args::{Global, SandboxArgs};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::progress::Progress;
use crate::protocol::News;
use crate::supervise::{Plan, news, spawn, take};

pub(super) fn run(config: &Config, global: Global, sandbox: SandboxArgs) -> Result<u8> {
    let progress = Progress::new(config.screen);
    let stream = spawn(&Plan { global, sandbox })?;
    let mut warnings = Vec::new();
    let id = loop {
        match news(&stream) {
            Ok(Some(News::Step(step))) => progress.show(&step),
            Ok(Some(News::Warning(warning))) => warnings.push(warning),
            Ok(Some(News::Ready(id))) => break Ok(id),
            Ok(Some(News::Failed(failure))) | Err(failure) => break Err(failure),
            Ok(None) => {
                break Err(Failure::new(
                    ErrorKind::SandboxGone,
                    "the process that holds the sandbox ended without a word",
                ));
            }
        }
    };
    progress.clear();
    let id = id?;
    for warning in warnings {
        config.screen.warn(&warning);
    }
    config.screen.answer(&Up { id: &id }, || id.clone())?;
    take(&stream)?;
    Ok(0)
}

#[derive(Debug, Serialize)]
struct Up<'a> {
    id: &'a str,
}
