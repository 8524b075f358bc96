//! The installers of languages: <https://pip.pypa.io/en/stable/cli/pip_install/>,
//! <https://docs.npmjs.com/cli/commands/npm-install>, <https://guides.rubygems.org/command-reference/> and
//! <https://doc.rust-lang.org/cargo/commands/cargo-install.html>.

use super::{MOVES_ROOT, OTHER_SOURCE, RUNS_PROGRAMS, UNSIGNED, ends_with, is_file};
use crate::sudo::grammar::{Grammar, Letters, Value, is_word};

pub(super) const PIP: Grammar = Grammar {
    name: "pip",
    verbs: &["install", "uninstall"],
    questions: &["--version", "-V", "--help", "-h", "list", "freeze", "check"],
    flags: &[
        "-I",
        "-U",
        "-q",
        "-qq",
        "-v",
        "-vv",
        "-y",
        "--break-system-packages",
        "--compile",
        "--disable-pip-version-check",
        "--force-reinstall",
        "--ignore-installed",
        "--no-cache-dir",
        "--no-color",
        "--no-compile",
        "--no-deps",
        "--no-index",
        "--no-input",
        "--no-warn-conflicts",
        "--no-warn-script-location",
        "--pre",
        "--prefer-binary",
        "--quiet",
        "--require-hashes",
        "--upgrade",
        "--verbose",
        "--yes",
    ],
    options: &[
        ("--only-binary", Value::Word),
        ("--progress-bar", Value::Among(&["on", "off", "raw", "ascii", "pretty", "emoji"])),
        ("--retries", Value::Number),
        ("--root-user-action", Value::Among(&["warn", "ignore"])),
        ("--timeout", Value::Number),
        ("--upgrade-strategy", Value::Among(&["eager", "only-if-needed"])),
    ],
    refused: &[
        ("-e", "links a directory in which anybody may change what root runs"),
        ("--editable", "links a directory in which anybody may change what root runs"),
        ("-r", "names a file whose options nobody has looked at"),
        ("--requirement", "names a file whose options nobody has looked at"),
        ("-c", "names a file whose options nobody has looked at"),
        ("--constraint", "names a file whose options nobody has looked at"),
        ("-t", MOVES_ROOT),
        ("--target", MOVES_ROOT),
        ("--prefix", MOVES_ROOT),
        ("--root", MOVES_ROOT),
        ("--src", MOVES_ROOT),
        ("--user", MOVES_ROOT),
        ("-i", OTHER_SOURCE),
        ("--index-url", OTHER_SOURCE),
        ("--extra-index-url", OTHER_SOURCE),
        ("-f", OTHER_SOURCE),
        ("--find-links", OTHER_SOURCE),
        ("--trusted-host", UNSIGNED),
        ("--cert", UNSIGNED),
        ("--proxy", OTHER_SOURCE),
        ("-C", RUNS_PROGRAMS),
        ("--config-settings", RUNS_PROGRAMS),
        ("--global-option", RUNS_PROGRAMS),
        ("--build-option", RUNS_PROGRAMS),
        ("--python", RUNS_PROGRAMS),
        ("--no-build-isolation", RUNS_PROGRAMS),
    ],
    needed: &[],
    letters: Letters::Apart,
    operand: python_requirement,
    operands: "a requirement by name, or a .whl file",
};

pub(super) const NPM: Grammar = Grammar {
    name: "npm",
    verbs: &["add", "i", "install", "remove", "rm", "un", "uninstall", "up", "update", "upgrade"],
    questions: &["--version", "-v", "--help", "-h"],
    flags: &[
        "-f",
        "-g",
        "-q",
        "-s",
        "--force",
        "--foreground-scripts",
        "--global",
        "--ignore-scripts",
        "--legacy-peer-deps",
        "--no-audit",
        "--no-fund",
        "--no-optional",
        "--no-progress",
        "--no-save",
        "--no-update-notifier",
        "--offline",
        "--prefer-offline",
        "--prefer-online",
        "--quiet",
        "--silent",
        "--strict-peer-deps",
    ],
    options: &[
        ("--include", Value::Among(&["prod", "dev", "optional", "peer"])),
        ("--loglevel", Value::Among(&["silent", "error", "warn", "notice", "http", "info", "verbose"])),
        ("--omit", Value::Among(&["dev", "optional", "peer"])),
    ],
    refused: &[
        ("-C", MOVES_ROOT),
        ("--prefix", MOVES_ROOT),
        ("--registry", OTHER_SOURCE),
        ("--script-shell", RUNS_PROGRAMS),
        ("--shell", RUNS_PROGRAMS),
        ("--node-options", RUNS_PROGRAMS),
        ("--userconfig", RUNS_PROGRAMS),
        ("--globalconfig", RUNS_PROGRAMS),
        ("--git", RUNS_PROGRAMS),
        ("--strict-ssl", UNSIGNED),
        ("--no-strict-ssl", UNSIGNED),
        ("--unsafe-perm", RUNS_PROGRAMS),
    ],
    needed: &["-g", "--global"],
    letters: Letters::Apart,
    operand: node_package,
    operands: "a package by its name, or a .tgz file by its path",
};

pub(super) const GEM: Grammar = Grammar {
    name: "gem",
    verbs: &["install", "uninstall", "update"],
    questions: &["--version", "-v", "--help", "-h"],
    flags: &[
        "-N",
        "-V",
        "-a",
        "-f",
        "-q",
        "-x",
        "--all",
        "--conservative",
        "--executables",
        "--force",
        "--local",
        "--minimal-deps",
        "--no-document",
        "--prerelease",
        "--quiet",
        "--silent",
        "--system",
        "--verbose",
    ],
    options: &[("-v", Value::Word), ("--version", Value::Word)],
    refused: &[
        ("-i", MOVES_ROOT),
        ("--install-dir", MOVES_ROOT),
        ("-n", MOVES_ROOT),
        ("--bindir", MOVES_ROOT),
        ("--build-root", MOVES_ROOT),
        ("-s", OTHER_SOURCE),
        ("--source", OTHER_SOURCE),
        ("--config-file", RUNS_PROGRAMS),
        ("--file", RUNS_PROGRAMS),
        ("-g", RUNS_PROGRAMS),
        ("--", RUNS_PROGRAMS),
    ],
    needed: &[],
    letters: Letters::Apart,
    operand: ruby_gem,
    operands: "a gem by its name, or a .gem file by its path",
};

pub(super) const CARGO: Grammar = Grammar {
    name: "cargo",
    verbs: &["install", "uninstall"],
    questions: &["--version", "-V", "--help", "-h"],
    flags: &[
        "-f",
        "-q",
        "-v",
        "-vv",
        "--all-features",
        "--bins",
        "--debug",
        "--force",
        "--frozen",
        "--locked",
        "--no-default-features",
        "--no-track",
        "--offline",
        "--quiet",
        "--verbose",
    ],
    options: &[
        ("-F", Value::Word),
        ("-j", Value::Number),
        ("--bin", Value::Word),
        ("--features", Value::Word),
        ("--jobs", Value::Number),
        ("--root", Value::Among(&["/usr/local"])),
        ("--vers", Value::Word),
        ("--version", Value::Word),
    ],
    refused: &[
        ("--config", RUNS_PROGRAMS),
        ("-Z", RUNS_PROGRAMS),
        ("--git", OTHER_SOURCE),
        ("--index", OTHER_SOURCE),
        ("--registry", OTHER_SOURCE),
        ("--path", "builds a directory in which anybody may say what root runs"),
        ("--target-dir", MOVES_ROOT),
    ],
    needed: &[],
    letters: Letters::Apart,
    operand: rust_crate,
    operands: "a crate by its name",
};

/// A requirement by name, or a wheel: what else pip takes (directories, archives, addresses) is built, and the build would run
/// as root whatever lies there.
fn python_requirement(operand: &str) -> bool {
    let wheel = is_word(operand, "._+~@/-") && ends_with(operand, &[".whl"]);
    let archive = ends_with(operand, &[".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"]);
    wheel
        || (!archive
            && is_word(operand, "._-[],=<>!~*+")
            && operand.starts_with(|first: char| first.is_ascii_alphanumeric()))
}

fn node_package(operand: &str) -> bool {
    let name = |name: &str| is_word(name, "._~-") && !name.starts_with('.');
    let version = |version: &str| is_word(version, "._+^~<>=*|-");
    let (scope, rest) = match operand.strip_prefix('@').and_then(|rest| rest.split_once('/')) {
        Some((scope, rest)) => (Some(scope), rest),
        None => (None, operand),
    };
    let (package, wanted) = rest.split_once('@').map_or((rest, None), |(package, wanted)| (package, Some(wanted)));
    let by_name = scope.is_none_or(name)
        && name(package)
        && wanted.is_none_or(version)
        && !ends_with(operand, &[".tgz", ".tar.gz", ".tar"]);
    by_name || is_file(operand, &[".tgz", ".tar.gz"])
}

fn ruby_gem(operand: &str) -> bool {
    is_file(operand, &[".gem"])
        || (is_word(operand, "._:-") && !ends_with(operand, &[".gem"]) && !operand.starts_with('.'))
}

fn rust_crate(operand: &str) -> bool {
    is_word(operand, "_@.=^~-") && operand.starts_with(|first: char| first.is_ascii_alphanumeric())
}
