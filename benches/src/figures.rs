//! What is measured, group by group. The contenders of a group are set up once and take turns at each figure.

mod egress;
mod embedded;
mod engine;
mod workspace;

pub use egress::egress;
pub use embedded::embedded;
pub use engine::{WATCHED, engine, watched};
pub use workspace::workspace;

use crate::{Result, Row, Run};

/// Measures the figures of a group that are asked for.
pub type Group = fn(&Run) -> Result<Vec<Row>>;

/// The groups, by their names.
pub const GROUPS: [(&str, Group); 4] =
    [("engine", engine), ("embedded", embedded), ("workspace", workspace), ("egress", egress)];
