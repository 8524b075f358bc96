//! What the benchmarks measure: the same work done in a sandbox, through the engine's API, by its command, and bare.
//!
//! A figure means something only beside another of the same run, so each is taken by turns with its rivals' and told
//! as a ratio. `compare` hands the work to criterion; `report` prints one table against the figures to reach.

mod arena;
mod bare;
mod command;
mod engine;
mod files;
mod ours;
mod raw;
mod table;

pub use arena::Arena;
pub use bare::Bare;
pub use command::CommandLine;
pub use engine::{Engine, IMAGE};
pub use files::{Tree, scratch};
pub use ours::{Ours, Turn};
pub use raw::Raw;
pub use table::{Row, Samples, Target, Unit, print};

/// A measurement, or why there is none.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes that are read at once, by everyone.
pub const CHUNK: usize = 256 << 10;
