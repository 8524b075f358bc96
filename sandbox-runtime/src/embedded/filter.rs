//! The system call filter in the kernel's own form.
//!
//! The profile is the one that engines are given ([`seccomp::profile`]). The kernel takes programs of one answer each
//! here, so there are two: one for calls that must seem not to exist, and one for all the rest. Where several filters
//! speak about a call, the strictest counts (seccomp(2)).

use std::collections::BTreeMap;

use sandbox_core::{Error, ErrorKind, Result};
use seccompiler::{BpfMap, TargetArch, compile_from_json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::seccomp;

/// Compiles the profile for this machine: programs of eight bytes an instruction, to install in this order.
pub(super) fn programs() -> Result<Vec<Vec<u8>>> {
    let profile: Profile = serde_json::from_str(seccomp::profile()).map_err(failed)?;
    let target = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let mut allowed = Vec::new();
    let mut refused: BTreeMap<u32, Vec<Value>> = BTreeMap::new();
    for rule in &profile.syscalls {
        for name in rule.names.iter().filter(|name| is_known(name, target)) {
            let arguments: Vec<Value> = rule.args.iter().map(Condition::json).collect();
            let entry = if arguments.is_empty() {
                json!({"syscall": name})
            } else {
                json!({"syscall": name, "args": arguments})
            };
            match (rule.action.as_str(), rule.errno) {
                ("SCMP_ACT_ALLOW", _) => allowed.push(entry),
                ("SCMP_ACT_ERRNO", Some(errno)) => {
                    // The main program must let it by, so that the other's answer is the one that counts.
                    allowed.push(json!({"syscall": name}));
                    refused.entry(errno).or_default().push(entry);
                }
                (action, _) => return Err(failed(format!("action {action} is not known"))),
            }
        }
    }
    let mut programs = Vec::new();
    for (errno, entries) in refused {
        programs.push(compile(
            &json!({"mismatch_action": "allow", "match_action": {"errno": errno}, "filter": entries}),
            target,
        )?);
    }
    let default = profile.default_errno;
    programs.push(compile(
        &json!({"mismatch_action": {"errno": default}, "match_action": "allow", "filter": allowed}),
        target,
    )?);
    Ok(programs)
}

/// Engines pass over names that they do not know, and so does this.
fn is_known(name: &str, target: TargetArch) -> bool {
    let one = json!({"mismatch_action": "allow", "match_action": "trap", "filter": [{"syscall": name}]});
    compile(&one, target).is_ok()
}

fn compile(filter: &Value, target: TargetArch) -> Result<Vec<u8>> {
    let text = json!({ "filter": filter }).to_string();
    let mut programs: BpfMap = compile_from_json(text.as_bytes(), target).map_err(failed)?;
    let program = programs.remove("filter").unwrap_or_default();
    let bytes = program.iter().flat_map(|instruction| {
        let (code, value) = (instruction.code.to_ne_bytes(), instruction.k.to_ne_bytes());
        [&code[..], &[instruction.jt, instruction.jf], &value[..]].concat()
    });
    Ok(bytes.collect())
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Engine, format!("cannot compile the system call filter: {error}"))
}

#[derive(Debug, Deserialize)]
struct Profile {
    #[serde(rename = "defaultErrnoRet")]
    default_errno: u32,
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    names: Vec<String>,
    action: String,
    #[serde(rename = "errnoRet")]
    errno: Option<u32>,
    #[serde(default)]
    args: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    index: u8,
    #[serde(rename = "value")]
    mask: u64,
    #[serde(rename = "valueTwo")]
    value: u64,
    op: Comparison,
}

/// The one comparison that the profile makes.
#[derive(Debug, Deserialize)]
enum Comparison {
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

impl Condition {
    fn json(&self) -> Value {
        let Self { index, mask, value, op: Comparison::MaskedEqual } = self;
        json!({"index": index, "type": "qword", "op": {"masked_eq": mask}, "val": value})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_two_programs_that_the_kernel_has_room_for() {
        let programs = programs().unwrap();
        assert_eq!(programs.len(), 2);
        for program in &programs {
            // BPF_MAXINSNS of <https://man7.org/linux/man-pages/man2/seccomp.2.html>.
            assert!(!program.is_empty() && program.len() % 8 == 0 && program.len() / 8 <= 4096, "{}", program.len());
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_passed_over() {
        let target = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        assert!(is_known("openat", target) && !is_known("no_such_call", target));
    }
}
