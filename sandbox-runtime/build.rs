//! Builds the guest for this crate's target, as a static program, so that it can be embedded.
//!
//! The inner cargo has a target folder of its own, below `OUT_DIR`: it never waits for a lock that the outer one
//! holds. It fetches nothing, since the guest's dependencies are this crate's too.
#![expect(clippy::disallowed_methods, reason = "this is how cargo speaks to a build script")]

use std::env;
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    if let Err(message) = build() {
        // Cargo takes one line for each error.
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<(), String> {
    let manifest_directory = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace =
        manifest_directory.parent().ok_or("this crate is not in its workspace, so the guest is not found")?;
    let guest = workspace.join("sandbox-guest");
    for watched in
        [guest.join("src"), guest.join("Cargo.toml"), workspace.join("Cargo.toml"), workspace.join("Cargo.lock")]
    {
        println!("cargo::rerun-if-changed={}", watched.display());
    }

    let target = variable("TARGET")?;
    let target = target.to_str().ok_or("TARGET is not UTF-8")?;
    if !target.contains("-linux-") {
        return Err(format!(
            "sandboxes run Linux programs, and the target is {target}: build for a *-linux-gnu target"
        ));
    }

    let out = PathBuf::from(variable("OUT_DIR")?);
    let target_directory = out.join("guest-target");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .args(["build", "--frozen", "--package", "sandbox-guest", "--bin", "sandbox-guest", "--profile", "guest"])
        .args(["--target", target, "--manifest-path"])
        .arg(guest.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_directory);
    for (name, _) in env::vars_os().filter(|(name, _)| !may_pass(name)) {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace));

    let output = cargo.output().map_err(|error| format!("cannot run cargo to build the guest: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "the guest could not be built for {target} ({}); what cargo says follows. A static program needs that \
             target's standard library, its static C library (Debian: libc6-dev) and its linker\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let program = target_directory.join(target).join("guest/sandbox-guest");
    let of = |error| format!("cannot copy the guest from {}: {error}", program.display());
    let content = std::fs::read(&program).map_err(of)?;
    // It tells one build's guest from another's, and proves nothing.
    let mut hash = DefaultHasher::new();
    content.hash(&mut hash);
    std::fs::write(out.join("guest.build"), format!("{:016x}", hash.finish())).map_err(of)?;
    std::fs::write(out.join("guest"), content).map_err(of)
}

/// Links all of it in, and names no folder of the machine that it was built on.
fn flags(workspace: &Path) -> OsString {
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    for (from, to) in [(Some(workspace.to_owned()), "/sandbox"), (cargo_home, "/cargo")] {
        let Some(from) = from else { continue };
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    flags
}

/// Tells which variables reach the inner cargo: all but those with which the outer one describes this crate and this
/// build, and those that put another program in the compiler's place.
fn may_pass(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let is_of_machine = ["CARGO_HOME", "CARGO_MAKEFLAGS"].contains(&&*name)
        || ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || (name.starts_with("CARGO_TARGET_") && name.ends_with("_LINKER"));
    let is_of_build = name.starts_with("CARGO")
        || name.starts_with("__CARGO")
        || ["CLIPPY_ARGS", "OUT_DIR", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "TARGET"].contains(&&*name);
    is_of_machine || !is_of_build
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo does not set {name}"))
}
