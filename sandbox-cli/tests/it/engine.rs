//! What needs a real engine.

mod egress;
mod elsewhere;
mod matrix;
mod run;
mod signals;
pub(crate) mod terminal;
mod up;
mod words;
mod work;
