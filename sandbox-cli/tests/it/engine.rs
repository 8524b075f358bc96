//! What needs a real engine.

mod egress;
mod elsewhere;
mod run;
mod signals;
pub(crate) mod terminal;
mod up;
mod words;
mod work;
