//! Which limits a request is granted.

use std::fmt::Display;

use crate::{ByteSize, CpuCount, Limits, LimitsRequest, OpenFiles, ProcessCount, Span, Violation};

/// Grants what is asked for, or the policy's limit where nothing is, and notes what is too much or
/// too little.
///
/// Both sides are taken apart in full, so a new limit does not compile until it is weighed.
pub(crate) fn grant(most: &Limits, asked: &LimitsRequest, violations: &mut Vec<Violation>) -> Limits {
    let Limits { cpus, memory, disk, processes, open_files, lifetime } = *most;
    let asked = *asked;
    let LimitsRequest {
        cpus: asked_cpus,
        memory: asked_memory,
        disk: asked_disk,
        processes: asked_processes,
        open_files: asked_open_files,
        lifetime: asked_lifetime,
    } = asked;
    Limits {
        cpus: one("limits.cpus", LEAST_CPUS, cpus, asked_cpus, violations),
        memory: one("limits.memory", LEAST_MEMORY, memory, asked_memory, violations),
        disk: one("limits.disk", LEAST_DISK, disk, asked_disk, violations),
        processes: one("limits.processes", LEAST_PROCESSES, processes, asked_processes, violations),
        open_files: one("limits.open-files", LEAST_OPEN_FILES, open_files, asked_open_files, violations),
        lifetime: one("limits.lifetime", LEAST_LIFETIME, lifetime, asked_lifetime, violations),
    }
}

fn one<T: Copy + Ord + Display>(
    field: &str,
    least: T,
    most: T,
    asked: Option<T>,
    violations: &mut Vec<Violation>,
) -> T {
    let granted = asked.unwrap_or(most);
    let allowed = if granted > most {
        format!("at most {most}")
    } else if granted < least {
        format!("at least {least}")
    } else {
        return granted;
    };
    violations.push(Violation::Denied { field: field.to_owned(), requested: granted.to_string(), allowed });
    granted
}

/// A hundredth of a CPU: the kernel takes no CFS quota below 1 ms in the usual period of 100 ms
/// (<https://docs.kernel.org/scheduler/sched-bwc.html>).
const LEAST_CPUS: CpuCount = CpuCount::hundredth();
const LEAST_MEMORY: ByteSize = ByteSize::mib(16);
const LEAST_DISK: ByteSize = ByteSize::mib(1);
const LEAST_PROCESSES: ProcessCount = ProcessCount::above(7);
const LEAST_OPEN_FILES: OpenFiles = OpenFiles::above(63);
const LEAST_LIFETIME: Span = Span::seconds(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    fn refused(asked: LimitsRequest) -> Vec<String> {
        let mut violations = Vec::new();
        grant(Policy::standard().limits(), &asked, &mut violations);
        violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn grants_the_most_where_nothing_is_asked() {
        let mut violations = Vec::new();
        let most = *Policy::standard().limits();
        assert_eq!(grant(&most, &LimitsRequest::default(), &mut violations), most);
        assert!(violations.is_empty());
    }

    #[test]
    fn names_each_limit_that_is_too_high() {
        let lines = refused(LimitsRequest {
            cpus: Some("2.001".parse().unwrap()),
            memory: Some(ByteSize::gib(8)),
            disk: Some(ByteSize::gib(33)),
            processes: Some(ProcessCount::above(512)),
            open_files: Some(OpenFiles::above(1_024)),
            lifetime: Some(Span::hours(9)),
        });
        assert_eq!(
            lines,
            [
                "limits.cpus: asked for 2.001, allowed is at most 2",
                "limits.memory: asked for 8GiB, allowed is at most 4GiB",
                "limits.disk: asked for 33GiB, allowed is at most 32GiB",
                "limits.processes: asked for 513, allowed is at most 512",
                "limits.open-files: asked for 1025, allowed is at most 1024",
                "limits.lifetime: asked for 9h, allowed is at most 8h",
            ]
        );
    }

    #[test]
    fn names_each_limit_that_is_too_low() {
        let lines = refused(LimitsRequest {
            cpus: Some("0.009".parse().unwrap()),
            memory: Some(ByteSize::kib(1)),
            disk: Some(ByteSize::kib(1_023)),
            processes: Some(ProcessCount::above(6)),
            open_files: Some(OpenFiles::above(62)),
            lifetime: Some(Span::seconds(0)),
        });
        assert_eq!(
            lines,
            [
                "limits.cpus: asked for 0.009, allowed is at least 0.01",
                "limits.memory: asked for 1KiB, allowed is at least 16MiB",
                "limits.disk: asked for 1023KiB, allowed is at least 1MiB",
                "limits.processes: asked for 7, allowed is at least 8",
                "limits.open-files: asked for 63, allowed is at least 64",
                "limits.lifetime: asked for 0s, allowed is at least 1s",
            ]
        );
    }
}
