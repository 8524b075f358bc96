//! The `sandbox` command: a small client of the library.
//!
//! It says what was typed to the library, and what the library found to people. It enforces nothing itself.

mod args;
mod attend;
mod audit;
mod client;
mod commands;
mod config;
mod exit;
mod failure;
mod hold;
mod inspection;
mod learn;
mod outward;
mod progress;
mod protocol;
mod pump;
mod render;
mod secret;
mod signals;
mod supervise;
mod terminal;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind as ClapKind;

use crate::args::Cli;
use crate::config::Config;
use crate::exit::Kind;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let config = Config::new(&cli.global);
    let kind = Kind::of(&cli.verb);
    let code = commands::run(&config, cli).unwrap_or_else(|failure| {
        config.screen.fail(&failure);
        kind.failure(&failure)
    });
    ExitCode::from(code)
}

/// Prints help, the version, or what is wrong with the arguments.
fn misused(error: &clap::Error) -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let words = || arguments.iter().map(String::as_str);
    let asked_for = matches!(error.kind(), ClapKind::DisplayHelp | ClapKind::DisplayVersion);
    if !asked_for && words().take_while(|word| *word != "--").any(|word| word == "--json") {
        let text = error.render().to_string();
        let failure =
            failure::Failure::new(sandbox_core::ErrorKind::InvalidInput, text.trim().trim_start_matches("error: "));
        render::Screen::new(render::Form::Json, render::Volume::Normal, true).fail(&failure);
    } else {
        // Where there is nobody to read it, there is nothing more to do.
        let _ = error.print();
    }
    ExitCode::from(if asked_for { 0 } else { Kind::guess(words()).usage() })
}
