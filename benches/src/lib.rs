//! What the benchmarks measure: the same work done in a sandbox, through the engine's API, by its command, and bare.
//!
//! A figure means something only beside another of the same run, so each is taken by turns with its rivals' and told
//! as a ratio. `compare` hands the work to criterion; `report` prints one table against the figures to reach.

mod arena;
mod bare;
mod command;
pub mod egress;
mod engine;
pub mod figures;
mod files;
mod forge;
mod ours;
mod raw;
mod run;
mod samples;
mod table;

pub use arena::Arena;
pub use bare::Bare;
pub use command::CommandLine;
pub use engine::{Engine, IMAGE};
pub use files::{Repository, Tree, scratch};
pub use forge::Forge;
pub use ours::{Ours, Turn};
pub use raw::Raw;
pub use run::{Effort, Run};
pub use samples::Samples;
pub use table::{OURS, Row, Target, Unit, print};

/// Why there is no measurement.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A measurement, or why there is none.
pub type Result<T> = std::result::Result<T, Failure>;

/// Bytes that are read at once, by everyone.
pub const CHUNK: usize = 256 << 10;
