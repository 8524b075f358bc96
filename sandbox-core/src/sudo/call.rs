//! One call of `sudo`: heard, decided, recorded, run, and ended with its caller.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use sandbox_guest::frame::{Incoming, Outgoing};
use sandbox_guest::sudo::{Answer, Ask, MAX_ANSWER, MAX_ASK, MAX_COMMAND};
use sandbox_guest::wire::{Command, Exec, Reply, Request, RunAs};
use sandbox_policy::{Login, SandboxSpec, SudoAction, SudoCall, SudoDecision, SudoRule, Variable};
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{peer, streams};
use crate::guest::{ANSWER, Guest, send, shown};
use crate::{Event, Events};

/// What every call of one sandbox has in common.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) spec: SandboxSpec,
    pub(super) events: Events,
    pub(super) guest: Guest,
}

/// What is to be done about a call.
enum Outcome {
    /// Nothing is run, and this is why or instead.
    Say(Answer),
    /// This is run.
    Run(Box<Exec>),
}

impl Calls {
    /// Serves a caller to its end.
    pub(super) async fn attend(self: Arc<Self>, caller: UnixStream) {
        // A caller that breaks off, or makes no sense, needs no answer: it sees that nobody is there.
        let _ = self.serve(&caller).await;
    }

    async fn serve(&self, caller: &UnixStream) -> io::Result<()> {
        peer::check(caller)?;
        let mut frame = Incoming::new(MAX_ASK);
        let asked = tokio::time::timeout(HEARING, next::<Ask>(caller, &mut frame, MAX_ASK)).await;
        let (ask, descriptors) = asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let outcome = match streams::check(&descriptors) {
            Ok(()) => self.decide(&ask),
            Err(reason) => Outcome::Say(refusal(&reason)),
        };
        let answer = match outcome {
            Outcome::Run(exec) => self.run(*exec, descriptors, caller).await?,
            Outcome::Say(answer) => {
                // Whoever asks without end waits, so that neither the host nor its record is worn down.
                tokio::time::sleep(PAUSE).await;
                answer
            }
        };
        let frame = Outgoing::new(&answer, MAX_ANSWER)?;
        tokio::time::timeout(HEARING, send(caller, frame, &[])).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    fn decide(&self, ask: &Ask) -> Outcome {
        let call = match SudoCall::parse(&ask.arguments) {
            Ok(call) => call,
            Err(error) => return Outcome::Say(refusal(&error.to_string())),
        };
        match &call.action {
            SudoAction::Help => return Outcome::Say(said(USAGE)),
            SudoAction::Version => return Outcome::Say(said(VERSION)),
            SudoAction::Forget => return Outcome::Say(said("")),
            SudoAction::List(command) if !command.is_empty() => {
                let inner = SudoCall { action: SudoAction::Run(command.clone()), ..call.clone() };
                return Outcome::Say(match self.spec.decide_sudo(&inner, &ask.environment) {
                    SudoDecision::Allow { rule, .. } => said(&format!("allowed by {rule}\n")),
                    SudoDecision::Deny { rule, reason, hint } => denial(&rule, &reason, &hint),
                });
            }
            SudoAction::List(_) | SudoAction::Run(_) | SudoAction::Shell { .. } | SudoAction::Validate => {}
        }
        let decision = self.spec.decide_sudo(&call, &ask.environment);
        let directory = match &call.action {
            SudoAction::Shell { login: Login::Login, .. } => None,
            _ => Some(ask.directory.clone()),
        };
        let argv = match call.action {
            SudoAction::Run(argv) => argv,
            SudoAction::Shell { login, ref arguments } => shell(login, arguments, &ask.environment),
            // These look, and change nothing.
            _ => {
                return Outcome::Say(match decision {
                    SudoDecision::Allow { rule, .. } => said(&format!("{rule}: {}\n", meaning(self.spec.sudo()))),
                    SudoDecision::Deny { rule, reason, hint } => denial(&rule, &reason, &hint),
                });
            }
        };
        let program = argv.first().map_or_else(String::new, |program| shown(program));
        let (word, rule) = match &decision {
            SudoDecision::Allow { rule, .. } => ("allow", rule.clone()),
            SudoDecision::Deny { rule, .. } => ("deny", rule.clone()),
        };
        if self.events.announce(Event::SudoDecided { program, decision: word, rule }).is_err() {
            return Outcome::Say(refusal("it could not be recorded, so it is not done"));
        }
        match decision {
            SudoDecision::Deny { rule, reason, hint } => Outcome::Say(denial(&rule, &reason, &hint)),
            SudoDecision::Allow { rule: _, environment } => Outcome::Run(Box::new(Exec {
                argv,
                environment,
                directory,
                deadline: None,
                grace: 2_000,
                terminal: None,
                run_as: RunAs::Root,
            })),
        }
    }

    /// Runs a program until it has ended; an error is the caller's end, and then the program is ended with all it started.
    async fn run(&self, exec: Exec, streams: Vec<OwnedFd>, caller: &UnixStream) -> io::Result<Answer> {
        let name = exec.argv.first().map_or_else(String::new, |program| shown(program));
        let failed = |error: &crate::Error| refusal(&error.to_string());
        let mut control = match self.guest.request(Request::Exec(exec), streams).await {
            Ok(control) => control,
            Err(error) => return Ok(failed(&error)),
        };
        match control.answer(&format!("running {name}"), ANSWER).await {
            Ok((Reply::Started { .. }, _)) => {}
            Ok(_) => return Ok(refusal("the guest answered out of turn")),
            Err(error) => return Ok(failed(&error)),
        }
        let mut frame = Incoming::new(MAX_COMMAND);
        loop {
            tokio::select! {
                reply = control.reply() => return Ok(match reply {
                    Ok((Reply::Exited(exit), _)) => Answer::Exited(exit),
                    Ok(_) => refusal("the guest answered out of turn"),
                    Err(error) => failed(&error),
                }),
                said = next::<Command>(caller, &mut frame, MAX_COMMAND) => match said?.0 {
                    // A program that has just ended needs no signal.
                    Command::Signal(signal) if PASSED_ON.contains(&signal) => {
                        let _ = control.command(&Command::Signal(signal));
                    }
                    _ => return Err(io::ErrorKind::InvalidData.into()),
                },
            }
        }
    }
}

/// Awaits a message. May be dropped and called again: nothing is lost.
async fn next<T: DeserializeOwned>(
    caller: &UnixStream,
    frame: &mut Incoming,
    limit: usize,
) -> io::Result<(T, Vec<OwnedFd>)> {
    loop {
        caller.readable().await?;
        match caller.try_io(Interest::READABLE, || frame.advance(caller)) {
            Ok(()) => return std::mem::replace(frame, Incoming::new(limit)).finish(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The shell that the caller has, or the one that every system has; a command is one word for it, as sudo(8) makes it.
fn shell(login: Login, arguments: &[Vec<u8>], environment: &[Variable]) -> Vec<Vec<u8>> {
    let own = environment.iter().rfind(|(name, _)| name == b"SHELL").map(|(_, value)| value.clone());
    let mut argv = vec![own.filter(|shell| shell.starts_with(b"/")).unwrap_or_else(|| b"/bin/sh".to_vec())];
    if login == Login::Login {
        argv.push(b"-l".to_vec());
    }
    if !arguments.is_empty() {
        let words: Vec<Vec<u8>> =
            arguments.iter().map(|word| word.iter().flat_map(|byte| escape(*byte)).collect()).collect();
        argv.extend([b"-c".to_vec(), words.join(&b' ')]);
    }
    argv
}

fn escape(byte: u8) -> impl Iterator<Item = u8> {
    let plain = byte.is_ascii_alphanumeric() || b"_-$".contains(&byte) || !byte.is_ascii();
    (!plain).then_some(b'\\').into_iter().chain([byte])
}

fn said(text: &str) -> Answer {
    Answer::Said { status: 0, output: text.to_owned(), error: String::new() }
}

fn refusal(reason: &str) -> Answer {
    Answer::Said { status: 1, output: String::new(), error: format!("sudo: {reason}\n") }
}

fn denial(rule: &str, reason: &str, hint: &str) -> Answer {
    refusal(&format!("{reason}\nsudo: denied by {rule}; {hint}"))
}

fn meaning(rule: SudoRule) -> &'static str {
    match rule {
        SudoRule::Deny => "nothing may be run as root inside",
        SudoRule::Packages => "apt, apt-get, dpkg, pip, npm -g, gem and cargo may install packages as root inside",
        SudoRule::Any => "anything may be run as root inside",
    }
}

const VERSION: &str = concat!("sudo of sandbox ", env!("CARGO_PKG_VERSION"), "\n");
const USAGE: &str = "usage: sudo [-EHn] [-u root] [--preserve-env=NAMES] [NAME=value ...] program [argument ...]\n       \
                     sudo -i | -s [command]\n       sudo -l [command] | -v | -k | -V\n\nThe host decides on each command \
                     and records it.\n";

/// The signals that reach what runs: hang up, interrupt, quit, the two of users, terminate and window change (signal(7)).
const PASSED_ON: [i32; 7] = [1, 2, 3, 10, 12, 15, 28];

/// How long a caller may take to say what it wants, or to hear what came of it.
const HEARING: Duration = Duration::from_secs(5);

/// How long a caller waits for an answer that nothing was run for.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<Vec<u8>> {
        list.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_command_of_a_shell_stays_the_words_that_it_was() {
        let environment = [(b"SHELL".to_vec(), b"/bin/bash".to_vec())];
        assert_eq!(shell(Login::Plain, &[], &environment), words(&["/bin/bash"]));
        assert_eq!(shell(Login::Login, &[], &[(b"SHELL".to_vec(), b"bash".to_vec())]), words(&["/bin/sh", "-l"]));
        let asked = words(&["echo", "a b", "$HOME;id", "'"]);
        assert_eq!(shell(Login::Plain, &asked, &[]), words(&["/bin/sh", "-c", "echo a\\ b $HOME\\;id \\'"]));
    }
}
