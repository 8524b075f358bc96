//! What was typed, parsed into types and not yet understood: nothing here looks at the machine.

mod clone;
mod egress;
mod github;
mod values;
mod work;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use sandbox_policy::{
    AgentUser, Branch, ByteSize, Control, CpuCount, ImageRef, Isolation, OpenFiles, ProcessCount, RepoId, Span,
};
use serde::{Deserialize, Serialize};

pub(crate) use clone::CloneArgs;
pub(crate) use egress::{BeyondArgs, EgressArgs};
pub(crate) use github::{
    ActivityArgs, AuditArgs, ProtectArgs, RepoArgs, RepoVerb, RevokeArgs, SetupArgs, TokenArgs, TokenVerb,
};
pub(crate) use values::{CredentialArgument, CredentialSource, Place, Variable, WorkspaceDirectory};
pub(crate) use work::WorkArgs;

/// Containers for AI agents: everything may be done inside, and nothing comes out that the policy does not allow.
#[derive(Debug, Parser)]
#[command(name = "sandbox", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
pub(crate) struct Global {
    /// Print JSON, errors included (on standard error)
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// Print no progress and no warnings
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
    #[arg(
        long,
        global = true,
        value_name = "NAME|ADDRESS",
        help = "embedded, docker, podman, or an address: unix:///PATH, tcp://HOST:PORT, ssh://USER@HOST [default: embedded]",
        help_heading = "Global options"
    )]
    pub(crate) engine: Option<String>,
    /// Speak to this registry on loopback without TLS, where no engine is used; may be repeated
    #[arg(long, global = true, value_name = "127.0.0.1:PORT", help_heading = "Global options")]
    pub(crate) plain_http: Vec<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run one program in a new sandbox, and take the sandbox down
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Start a sandbox that stays, and print its id
    #[command(after_help = UP_HELP)]
    Up(SandboxArgs),
    /// Run a program in a sandbox that is up
    #[command(after_help = EXEC_HELP)]
    Exec(ExecArgs),
    /// Open a shell in a sandbox that is up
    #[command(after_help = SHELL_HELP)]
    Shell(ShellArgs),
    /// Copy files into a sandbox or out of it
    #[command(after_help = CP_HELP)]
    Cp(CpArgs),
    /// List sandboxes
    #[command(visible_alias = "list", after_help = LS_HELP)]
    Ls,
    /// List where a sandbox went, and where it was not let
    #[command(after_help = egress::EGRESS_HELP)]
    Egress(EgressArgs),
    /// Show what was asked of a sandbox and what is in force, control by control
    #[command(after_help = INSPECT_HELP)]
    Inspect(InspectArgs),
    /// Take sandboxes down
    #[command(after_help = DOWN_HELP)]
    Down(DownArgs),
    /// Take the commits of a sandbox over into a repository of this machine
    #[command(after_help = work::PULL_HELP)]
    Pull(WorkArgs),
    /// Show what the commits of a sandbox change
    #[command(after_help = work::DIFF_HELP)]
    Diff(WorkArgs),
    /// Write the commits of a sandbox as mails that `git am` reads
    #[command(after_help = work::PATCH_HELP)]
    Patch(WorkArgs),
    /// Fetch and make images, for use without an engine
    #[command(subcommand)]
    Image(ImageVerb),
    /// Make, check, exchange and revoke GitHub tokens, one for each repository
    #[command(subcommand, after_help = github::TOKEN_HELP)]
    Token(TokenVerb),
    /// Look after a repository at GitHub
    #[command(subcommand)]
    Repo(RepoVerb),
    /// Remove what killed sandboxes have left behind
    #[command(after_help = CLEANUP_HELP)]
    Cleanup,
    /// Show which engines there are, which controls each can enforce, and known flaws of their versions
    #[command(after_help = DOCTOR_HELP)]
    Doctor,
    /// Show, check and explain policies
    #[command(subcommand, after_help = POLICY_HELP)]
    Policy(PolicyVerb),
    /// Hold a sandbox for `up`
    #[command(hide = true)]
    Supervise,
}

/// A sandbox that is asked for.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct SandboxArgs {
    #[arg(
        short,
        long,
        help = "The image, by name or by id [default: $SANDBOX_IMAGE, else `host` where no engine is used]"
    )]
    pub(crate) image: Option<String>,
    /// Mount this directory at /workspace; `:ro` makes it read-only
    #[arg(short, long, value_name = "DIR[:ro]", value_parser = values::workspace())]
    pub(crate) workspace: Option<WorkspaceDirectory>,
    /// Copy what this directory holds to /workspace, without what git ignores; with commits, if it is a repository
    #[arg(long, value_name = "DIR", conflicts_with = "workspace")]
    pub(crate) copy: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) clone: CloneArgs,
    /// A policy: open, standard, maximum, deny-all, or a file [default: your policy.toml, else standard]
    #[arg(short, long, value_name = "FILE|PRESET")]
    pub(crate) policy: Option<String>,
    /// Go without a control where it cannot be enforced; may be repeated
    #[arg(long, value_name = "CONTROL")]
    pub(crate) waive: Vec<Control>,
    /// Processors, such as 2 or 0.5
    #[arg(long)]
    pub(crate) cpus: Option<CpuCount>,
    /// Memory, such as 512MiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// What may be written to the sandbox's own file system, such as 8GiB
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<ByteSize>,
    /// Processes and threads at once
    #[arg(long, value_name = "COUNT")]
    pub(crate) processes: Option<ProcessCount>,
    /// Open files of each process
    #[arg(long, value_name = "COUNT")]
    pub(crate) open_files: Option<OpenFiles>,
    /// Time after which the sandbox is taken down, such as 30m or 8h
    #[arg(long, value_name = "TIME")]
    pub(crate) lifetime: Option<Span>,
    /// Reach nothing, whatever the policy allows
    #[arg(long)]
    pub(crate) no_network: bool,
    #[command(flatten)]
    pub(crate) beyond: BeyondArgs,
    /// Let programs inside ask for root there, as far as the policy says
    #[arg(long)]
    pub(crate) sudo: bool,
    /// Use a credential that the policy binds; nothing inside holds its secret, which lies in a variable or a file of yours
    /// or is what a command writes (`env:VARIABLE`, `file:PATH`, `command:PROGRAM ARGUMENTS`); may be repeated
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(crate) credential: Vec<CredentialArgument>,
    /// Make the root file system read-only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// What stands between the sandbox and the kernel: standard, or gvisor where the engine, or without one the PATH, has
    /// its runtime runsc [default: what the policy requires]
    #[arg(long, value_name = "WORD")]
    pub(crate) isolation: Option<Isolation>,
    /// Set an environment variable inside; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    pub(crate) environment: Vec<Variable>,
    /// The repository that the sandbox is for
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) repo: Option<RepoId>,
    /// Give the sandbox no token for its repository
    #[arg(long)]
    pub(crate) no_token: bool,
    /// The branch that the sandbox is for
    #[arg(long)]
    pub(crate) branch: Option<Branch>,
    /// Whom programs run as [default: the workspace's owner, else the image's user, else 1000:1000]
    #[arg(long, value_name = "UID:GID", value_parser = values::user)]
    pub(crate) user: Option<AgentUser>,
    /// Append every event to this file as a line of JSON, before its effect
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
}

/// Whether a program gets a terminal.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct TerminalArgs {
    /// Give the program a terminal [default: if standard input and output are terminals]
    #[arg(short, long, overrides_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give the program no terminal
    #[arg(long, overrides_with = "tty")]
    pub(crate) no_tty: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    /// End the program after this time, such as 90s or 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Span>,
    /// At the end, print on standard error what was in force, control by control
    #[arg(long)]
    pub(crate) report: bool,
    /// At the end, print on standard error the least policy for where the program went, and where it would have gone
    #[arg(long)]
    pub(crate) learn: bool,
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The sandbox's id, or at least four digits of its beginning
    pub(crate) id: String,
    /// Set an environment variable; may be repeated
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    pub(crate) environment: Vec<Variable>,
    /// The working directory inside [default: the workspace]
    #[arg(short = 'w', long = "workdir", value_name = "DIR")]
    pub(crate) directory: Option<OsString>,
    /// End the program after this time, such as 90s or 10m
    #[arg(long, value_name = "TIME")]
    pub(crate) timeout: Option<Span>,
    #[command(flatten)]
    pub(crate) terminal: TerminalArgs,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `shell`.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// The sandbox's id, or at least four digits of its beginning
    pub(crate) id: String,
    /// Another program than the agent's shell, and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `cp`.
#[derive(Debug, Args)]
pub(crate) struct CpArgs {
    /// What is copied: PATH or ID:PATH, or `-` for a file's bytes on standard input
    #[arg(value_parser = values::place())]
    pub(crate) source: Place,
    /// Where to: PATH or ID:PATH, or `-` for a file's bytes on standard output
    #[arg(value_parser = values::place())]
    pub(crate) target: Place,
}

/// `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The sandbox's id, or at least four digits of its beginning
    pub(crate) id: String,
}

/// `down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// The sandboxes' ids, or at least four digits of the beginning of each
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub(crate) ids: Vec<String>,
    /// All sandboxes of this run root
    #[arg(long)]
    pub(crate) all: bool,
}

/// `image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    /// Fetch an image from its registry
    #[command(after_help = PULL_HELP)]
    Pull(PullArgs),
    /// Make an image of an archive or an OCI layout
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
}

/// `image pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// The image, such as debian:12
    pub(crate) image: ImageRef,
}

/// `image import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// An archive, or the directory of an OCI layout
    pub(crate) file: PathBuf,
    /// The image's name [default: the file's, up to its first dot]
    pub(crate) name: Option<ImageRef>,
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Print a policy as TOML, with every key
    Show(PolicyArgs),
    /// Say whether a policy is well-formed, and whether this machine could grant a sandbox under it
    Check(Box<PolicyCheckArgs>),
    /// Print what each part of a policy means
    Explain(PolicyArgs),
}

/// `policy show` and `policy explain`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// A preset (open, standard, maximum, deny-all) or a file [default: what `run` would use]
    #[arg(value_name = "PRESET|FILE")]
    pub(crate) policy: Option<String>,
}

/// `policy check`.
#[derive(Debug, Args)]
pub(crate) struct PolicyCheckArgs {
    /// A preset (open, standard, maximum, deny-all) or a file [default: what `run` would use]
    #[arg(value_name = "PRESET|FILE", conflicts_with = "policy")]
    pub(crate) subject: Option<String>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

const AFTER_HELP: &str = "\
Examples:
  sandbox doctor                                      is this machine ready?
  sandbox run -w . -- make test                       one program, then nothing is left
  id=$(sandbox up -w .)                               a sandbox that stays
  sandbox exec $id -- make test
  sandbox down $id

No engine is needed: `embedded` makes sandboxes with the kernel alone, and its image `host` is this
machine's own /usr. Another engine is used if --engine, SANDBOX_ENGINE, DOCKER_HOST, DOCKER_CONTEXT or
CONTAINER_HOST names one. `docker` and `podman` find theirs as those commands do. Images and containers
of `embedded` lie in SANDBOX_STATE: /var/lib/sandbox for root, else ~/.local/share/sandbox. Sandboxes
keep their sockets below SANDBOX_RUN_ROOT.";

const RUN_HELP: &str = "\
Standard input, output and error are the program's own. The first Ctrl-C goes to the program; if it
has not ended ten seconds later, or on the second Ctrl-C, it is killed. The sandbox is always taken down.

Exit codes:
  the program's own   it ended by itself
  128+N               it was ended by signal N, or `sandbox` was (130 after Ctrl-C)
  124                 its --timeout, or the sandbox's lifetime, was over
  125                 the sandbox failed: refused by the policy, no engine, bad arguments, …
  126                 the program exists and cannot be run
  127                 the program does not exist

Examples:
  sandbox run -- echo hello
  sandbox run --image rust:1 --workspace . --timeout 10m --report -- cargo test
  sandbox run --clone octo-org/widget --branch agent/42-fix -- make test
  sandbox run --policy open --learn -- npm install
  sandbox run --policy agent.toml --credential model=env:ANTHROPIC_API_KEY -- agent
  sandbox run --image debian:12 --workspace .:ro --policy maximum -- ls /workspace
  echo 'print(6 * 7)' | sandbox run --image python:3 -- python3 -";

const UP_HELP: &str = "\
A process of its own holds the sandbox until `sandbox down`, the end of its lifetime, or the end of
that process; whichever comes first, the sandbox is gone with it.

Examples:
  sandbox up --image debian:12 --workspace .
  sandbox up --image debian:12 --memory 2GiB --lifetime 1h --audit events.jsonl";

const EXEC_HELP: &str = "\
Exit codes are those of `sandbox run`.

Examples:
  sandbox exec 3f9c -- make test
  sandbox exec 3f9c -e CI=1 -w /tmp --timeout 90s -- ./script
  tar c src | sandbox exec 3f9c -- tar x";

const SHELL_HELP: &str = "\
The shell is the agent's own ($SHELL inside), or /bin/sh.

Examples:
  sandbox shell 3f9c
  sandbox shell 3f9c python3";

const CP_HELP: &str = "\
One side is inside a sandbox, as ID:PATH; a relative PATH inside starts at the workspace. Directories are
copied with all that is in them. Links that lead out of a tree, devices and sockets are left out, with a warning.

Examples:
  sandbox cp report.txt 3f9c:/tmp/             into a directory
  sandbox cp 3f9c:/workspace/target ./target   a whole tree
  sandbox cp 3f9c:/etc/os-release -            a file to standard output";

const LS_HELP: &str = "\
Examples:
  sandbox ls
  sandbox ls --json";

const INSPECT_HELP: &str = "\
Examples:
  sandbox inspect 3f9c
  sandbox inspect 3f9c --json";

const DOWN_HELP: &str = "\
Returns when all of a sandbox is gone.

Examples:
  sandbox down 3f9c
  sandbox down --all";

const PULL_HELP: &str = "\
`run` and `up` do the same for an image that is not here, unless the policy forbids it. Nothing that a registry
says is believed: content is checked against its digest. Registries that want an account are not supported.

Examples:
  sandbox image pull debian:12
  sandbox image pull --plain-http 127.0.0.1:5000 127.0.0.1:5000/tools:latest";

const IMPORT_HELP: &str = "\
An archive is one of a root file system, of an OCI layout, or what `docker save` writes; it may be
compressed with gzip or zstd.

Examples:
  docker save debian:12 | gzip >debian.tar.gz; sandbox image import debian.tar.gz debian:12
  docker export $container >tools.tar; sandbox image import tools.tar; sandbox run --image tools -- make";

const CLEANUP_HELP: &str = "\
A sandbox is removed only if the process that held it is provably gone; what is kept is listed, with the
reason.

Examples:
  sandbox cleanup";

const DOCTOR_HELP: &str = "\
Exit code 1 means that a sandbox under the policy `standard` would be refused here without waivers.

Examples:
  sandbox doctor
  sandbox doctor --json";

const POLICY_HELP: &str = "\
Examples:
  sandbox policy show maximum > policy.toml
  sandbox policy check policy.toml --memory 8GiB
  sandbox policy explain";
