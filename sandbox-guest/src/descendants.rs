//! Finds the processes below this one (proc(5)).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::time::Instant;

use rustix::process::{Pid, getpid};

/// How much of `/proc/PID/stat` is read, in bytes: far more than its first five fields can have.
const MAX_STAT: u64 = 512;

/// A process as it was seen: its number may have gone to another since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its process id.
    pub(crate) pid: Pid,
    /// Its parent and its process group.
    pub(crate) stat: Stat,
}

/// What is of interest in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The parent's process id.
    pub(crate) parent: i32,
    /// The process group's id.
    pub(crate) group: i32,
}

impl Process {
    /// Whether the number still stands for a process of this family: under the same parent, or handed to us.
    pub(crate) fn is_still_ours(&self) -> bool {
        read_stat(self.pid).is_some_and(|stat| stat.parent == self.stat.parent || stat.parent == own())
    }
}

/// This process's id.
pub(crate) fn own() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// Finds all processes below this one; an error when that takes too long, as where very many share a small part of a
/// processor.
pub(crate) fn descendants(until: Instant) -> io::Result<Vec<Process>> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // A process may end between its name and its status.
        let Ok(entry) = entry else { continue };
        if let Some(process) = entry.file_name().to_str().and_then(process) {
            children.entry(process.stat.parent).or_default().push(process);
        }
    }
    let mut found = children.remove(&own()).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children.remove(&process.pid.as_raw_nonzero().get()).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    Ok(found)
}

/// Finds the children of this process, which has one thread; much faster than [`descendants`], where the kernel has it
/// (`CONFIG_PROC_CHILDREN`).
pub(crate) fn children() -> io::Result<Vec<Process>> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{}/children", own()))?;
    Ok(text.split_whitespace().filter_map(process).collect())
}

fn process(number: &str) -> Option<Process> {
    let pid = number.parse().ok().filter(|&pid: &i32| pid > 0).and_then(Pid::from_raw)?;
    Some(Process { pid, stat: read_stat(pid)? })
}

fn read_stat(pid: Pid) -> Option<Stat> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    file.take(MAX_STAT).read_to_end(&mut text).ok()?;
    parse_stat(&text)
}

/// Reads `/proc/PID/stat`. The name in it is the process's own choice, brackets and all.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = text[end + 1..].split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    let mut number = |at| str::from_utf8(fields.nth(at)?).ok()?.parse().ok();
    Some(Stat { parent: number(1)?, group: number(0)? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_a_parent() {
        assert_eq!(parse_stat(b"7 (sh) S 3 7 7 0"), Some(Stat { parent: 3, group: 7 }));
        assert_eq!(parse_stat(b"7 (a) S 1 (b\n) R 99 8"), Some(Stat { parent: 99, group: 8 }));
        assert_eq!(parse_stat(b"7 (a"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_look_that_takes_too_long_is_an_error() {
        assert_eq!(descendants(Instant::now()).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(descendants(Instant::now() + Duration::from_mins(1)).is_ok());
    }

    proptest! {
        #[test]
        fn the_parent_is_found_behind_any_name(name in proptest::collection::vec(any::<u8>(), 0..64), parent: i32, group: i32) {
            let text = [b"12 (", &name[..], format!(") S {parent} {group} 1").as_bytes()].concat();
            prop_assert_eq!(parse_stat(&text), Some(Stat { parent, group }));
        }

        #[test]
        fn no_text_makes_it_fail(text in proptest::collection::vec(any::<u8>(), 0..128)) {
            parse_stat(&text);
        }
    }
}
