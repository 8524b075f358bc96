//! What a sandbox may use: the limits that a policy grants and those that a request asks for.

use crate::{ByteSize, CpuCount, OpenFiles, ProcessCount, Span};

/// Lists how much a sandbox may use of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// Processor time, in CPUs.
    pub cpus: CpuCount,
    /// Memory, with no swap beside it.
    pub memory: ByteSize,
    /// What the sandbox may write to its own file system.
    pub disk: ByteSize,
    /// Processes and threads at once.
    pub processes: ProcessCount,
    /// Open files of each process.
    pub open_files: OpenFiles,
    /// Time from the start until the sandbox is ended.
    pub lifetime: Span,
}

/// Lists the limits that a request asks for; `None` takes what the policy grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LimitsRequest {
    /// Processor time, in CPUs.
    pub cpus: Option<CpuCount>,
    /// Memory, with no swap beside it.
    pub memory: Option<ByteSize>,
    /// What the sandbox may write to its own file system.
    pub disk: Option<ByteSize>,
    /// Processes and threads at once.
    pub processes: Option<ProcessCount>,
    /// Open files of each process.
    pub open_files: Option<OpenFiles>,
    /// Time from the start until the sandbox is ended.
    pub lifetime: Option<Span>,
}
