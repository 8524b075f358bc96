//! The system call filter in the kernel's own form.
//!
//! The profile is the one that engines are given ([`seccomp::profile`]). The kernel takes programs of one answer each
//! here, so there are two: one for calls that must seem not to exist, and one for all the rest. Where several filters
//! speak about a call, the strictest counts (seccomp(2)).

use std::collections::{BTreeMap, BTreeSet};

use sandbox_core::{Error, ErrorKind, Result};
use seccompiler::{BpfMap, TargetArch, compile_from_json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::seccomp;

/// Compiles the profile for this machine: programs of eight bytes an instruction, to install in this order.
pub(super) fn programs() -> Result<Vec<Vec<u8>>> {
    let profile: Profile = serde_json::from_str(seccomp::profile()).map_err(failed)?;
    let target = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let (allowed, refused) = sort_out(&profile, target)?;
    let mut programs = Vec::new();
    for (errno, entries) in refused {
        programs.push(compile(
            &json!({"mismatch_action": "allow", "match_action": {"errno": errno}, "filter": entries}),
            target,
        )?);
    }
    let with_arguments: BTreeSet<String> =
        allowed.iter().filter(|entry| entry.get("args").is_some()).map(name_of).collect();
    let (conditional, plain): (Vec<Value>, Vec<Value>) =
        allowed.into_iter().partition(|entry| with_arguments.contains(&name_of(entry)));
    let of = |entries: Vec<Value>| compile(&main(profile.default_errno, &entries), target);
    programs.push(join(&of(plain)?, &of(conditional)?)?);
    Ok(programs)
}

/// The main program: what it does not name does not seem to be there.
fn main(default: u32, entries: &[Value]) -> Value {
    json!({"mismatch_action": {"errno": default}, "match_action": "allow", "filter": entries})
}

fn name_of(entry: &Value) -> String {
    entry["syscall"].as_str().unwrap_or_default().to_owned()
}

/// What the main program lets by, and what the others refuse, by their answer.
type Sorted = (Vec<Value>, BTreeMap<u32, Vec<Value>>);

fn sort_out(profile: &Profile, target: TargetArch) -> Result<Sorted> {
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
    Ok((allowed, refused))
}

/// Engines pass over names that they do not know, and so does this.
fn is_known(name: &str, target: TargetArch) -> bool {
    let one = json!({"mismatch_action": "allow", "match_action": "trap", "filter": [{"syscall": name}]});
    compile(&one, target).is_ok()
}

/// Joins two main programs: the first one's calls are compared by the ranges that their numbers make, and all others left
/// to the second. The compiler compares one number after the other: the kernel, which translates a program for each
/// container and tries it on every number, would take longer for that than for the rest of a launch's last step.
fn join(plain: &[u8], conditional: &[u8]) -> Result<Vec<u8>> {
    let unlike = || failed("the compiler's programs are not of the form that is known");
    let (head, chains) = split(plain).ok_or_else(unlike)?;
    let (other_head, rest) = split(conditional).ok_or_else(unlike)?;
    if head != other_head {
        return Err(unlike());
    }
    let mut numbers = BTreeSet::new();
    // Each call takes five instructions, and the last one is the answer to all others.
    let (chains, last) = chains.as_chunks::<{ 5 * INSTRUCTION }>();
    for chain in chains {
        let (instructions, _) = chain.as_chunks::<INSTRUCTION>();
        match instructions.iter().map(|bytes| read(*bytes)).collect::<Vec<_>>()[..] {
            [
                (JUMP_EQUAL, [0, 1], number),
                (JUMP, [0, 0], 1),
                (JUMP, [0, 0], 2),
                (RETURN, [0, 0], ALLOW),
                (RETURN, [0, 0], _),
            ] => {
                numbers.insert(number);
            }
            _ => return Err(unlike()),
        }
    }
    if last.len() != INSTRUCTION {
        return Err(unlike());
    }
    let mut program = head.to_vec();
    for (first, last) in ranges(&numbers) {
        if first == last {
            program.extend(write(JUMP_EQUAL, [0, 1], first));
        } else {
            program.extend(write(JUMP_NOT_LESS, [0, 2], first));
            program.extend(write(JUMP_GREATER, [1, 0], last));
        }
        program.extend(write(RETURN, [0, 0], ALLOW));
    }
    program.extend(rest);
    Ok(program)
}

/// The part of a program up to the instruction that loads the call's number, and the part behind it.
fn split(program: &[u8]) -> Option<(&[u8], &[u8])> {
    let (instructions, _) = program.as_chunks::<INSTRUCTION>();
    let at = instructions.iter().position(|bytes| read(*bytes) == (LOAD, [0, 0], NUMBER))?;
    program.split_at_checked((at + 1) * INSTRUCTION)
}

/// First and last of each run of numbers.
fn ranges(numbers: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    ranges
}

/// An instruction: what it does, how far it jumps if its comparison holds and if not, and its number
/// (`struct sock_filter`, <https://docs.kernel.org/networking/filter.html>).
fn read(bytes: [u8; INSTRUCTION]) -> (u16, [u8; 2], u32) {
    let number = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    (u16::from_ne_bytes([bytes[0], bytes[1]]), [bytes[2], bytes[3]], number)
}

fn write(code: u16, jumps: [u8; 2], number: u32) -> [u8; INSTRUCTION] {
    let mut bytes = [0; INSTRUCTION];
    bytes[..2].copy_from_slice(&code.to_ne_bytes());
    bytes[2..4].copy_from_slice(&jumps);
    bytes[4..].copy_from_slice(&number.to_ne_bytes());
    bytes
}

/// Bytes of an instruction.
const INSTRUCTION: usize = 8;

/// What instructions do: load a word of the call's data, jump in any case, if a number is equal, greater, or not less, and
/// answer (`linux/bpf_common.h`).
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Where the call's number lies in its data (`struct seccomp_data`), and `SECCOMP_RET_ALLOW` (seccomp(2)).
const NUMBER: u32 = 0;
const ALLOW: u32 = 0x7fff_0000;

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

    /// What a program answers to a call: its number, its architecture and the low half of its first argument.
    fn answer(program: &[u8], data: [u32; 5]) -> u32 {
        let (instructions, _) = program.as_chunks::<INSTRUCTION>();
        let (mut at, mut held) = (0, 0);
        loop {
            let (code, jumps, number) = read(instructions[at]);
            let jump = |holds: bool| usize::from(jumps[usize::from(!holds)]);
            at += 1;
            match code {
                LOAD => held = data.get(number as usize / 4).copied().unwrap_or_default(),
                JUMP => at += number as usize,
                JUMP_EQUAL => at += jump(held == number),
                JUMP_GREATER => at += jump(held > number),
                JUMP_NOT_LESS => at += jump(held >= number),
                0x54 => held &= number,
                RETURN => return number,
                _ => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn the_shorter_program_answers_as_the_compilers_does() {
        let profile: Profile = serde_json::from_str(seccomp::profile()).unwrap();
        let target = TargetArch::try_from(std::env::consts::ARCH).unwrap();
        let (allowed, _) = sort_out(&profile, target).unwrap();
        let whole = compile(&main(profile.default_errno, &allowed), target).unwrap();
        let short = programs().unwrap().pop().unwrap();
        assert!(short.len() * 2 < whole.len(), "{} of {}", short.len(), whole.len());
        let (_, _, own) = read(whole.as_chunks::<INSTRUCTION>().0[1]);
        let mut answers = BTreeSet::new();
        // The first are this machine's calls, the others those that have the bit of another calling convention.
        for number in (0..2_000).chain(0x4000_0000..0x4000_0400).chain([u32::MAX]) {
            for architecture in [own, 0x4000_0003] {
                for argument in [0, 1, 8, 0x2_0000, 0x2_0008, 0x1000_0000, 0x7e02_0000, u32::MAX] {
                    let data = [number, architecture, 0, 0, argument];
                    let expected = answer(&whole, data);
                    assert_eq!(answer(&short, data), expected, "{data:x?}");
                    answers.insert(expected);
                }
            }
        }
        assert!(answers.len() >= 3, "allowed, refused, and of another architecture: {answers:x?}");
    }
}
