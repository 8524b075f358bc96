//! What installing a package looks like, tool by tool.

mod debian;
mod language;

use debian::{APT, DPKG};
use language::{CARGO, GEM, NPM, PIP};

use super::grammar::{Grammar, Refusal, is_word};
use crate::parse::clip;

/// Weighs a command; returns its form, such as `apt install`.
pub(super) fn weigh(arguments: &[Vec<u8>]) -> Result<String, Refusal> {
    let refuse = |reason: String| Refusal { grammar: None, reason, hint: HINT.to_owned() };
    let words: Result<Vec<&str>, _> = arguments.iter().map(|argument| str::from_utf8(argument)).collect();
    let Ok(words) = words else { return Err(refuse("the command is not UTF-8".to_owned())) };
    let Some((program, mut rest)) = words.split_first().map(|(program, rest)| (*program, rest)) else {
        return Err(refuse("there is no command".to_owned()));
    };
    let Some(name) = name_of(program) else {
        return Err(refuse(format!("\"{}\" is not a program of the system", clip(program))));
    };
    let grammar = if is_python(name) {
        rest = after_module(rest)
            .ok_or_else(|| refuse("python may be run as root for its module pip alone".to_owned()))?;
        &PIP
    } else {
        let Some(grammar) = grammar_of(name) else {
            return Err(refuse(format!("\"{}\" does not install packages", clip(program))));
        };
        grammar
    };
    grammar.weigh(rest).map(|verb| format!("{} {}", grammar.name, verb.trim_start_matches('-')))
}

/// The variables that a form is always run with. A package of npm's is anybody's, and its scripts would run as root: so none does
/// (<https://docs.npmjs.com/cli/commands/npm-install>, `ignore-scripts`). Options say otherwise in no way that [`NPM`] knows.
pub(super) fn settings(form: &str) -> &'static [(&'static str, &'static str)] {
    if form.starts_with("npm ") { &[("npm_config_ignore_scripts", "true")] } else { &[] }
}

/// The name of a program that is looked up in root's own `PATH`, or lies where systems keep theirs.
fn name_of(program: &str) -> Option<&str> {
    match program.rsplit_once('/') {
        None => Some(program),
        Some((directory, name)) => DIRECTORIES.contains(&directory).then_some(name),
    }
}

fn grammar_of(name: &str) -> Option<&'static Grammar> {
    match name {
        "apt" | "apt-get" => Some(&APT),
        "cargo" => Some(&CARGO),
        "dpkg" => Some(&DPKG),
        "gem" => Some(&GEM),
        "npm" => Some(&NPM),
        _ if is_versioned(name, "pip") => Some(&PIP),
        _ => None,
    }
}

fn is_python(name: &str) -> bool {
    is_versioned(name, "python")
}

/// Tells whether a name is that of a tool, with a version or without: `pip`, `pip3`, `pip3.11`.
fn is_versioned(name: &str, tool: &str) -> bool {
    name.strip_prefix(tool).is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// What follows `-m pip`, with nothing before it but options that make python load less.
fn after_module<'a>(rest: &'a [&'a str]) -> Option<&'a [&'a str]> {
    let start = rest.iter().position(|argument| !["-B", "-I", "-P", "-s", "-u"].contains(argument))?;
    match &rest[start..] {
        ["-m", "pip", rest @ ..] => Some(rest),
        _ => None,
    }
}

/// A file that is named by a path: so that no tool takes it for anything else.
fn is_file(operand: &str, kinds: &[&str]) -> bool {
    is_word(operand, "._+~:@/-") && operand.contains('/') && !operand.contains("://") && ends_with(operand, kinds)
}

fn ends_with(operand: &str, kinds: &[&str]) -> bool {
    kinds.iter().any(|kind| operand.len() > kind.len() && operand.ends_with(kind))
}

const DIRECTORIES: [&str; 6] = ["/bin", "/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/sbin", "/usr/sbin"];
const HINT: &str = "apt-get, apt, dpkg, pip, npm, gem or cargo install; for all else, sudo = \"any\" in the policy";
const RUNS_PROGRAMS: &str = "can name programs to run";
const MOVES_ROOT: &str = "moves where packages go";
const UNSIGNED: &str = "lets packages in that nobody vouches for";
const OTHER_SOURCE: &str = "takes packages from elsewhere";
