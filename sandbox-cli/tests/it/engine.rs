//! What needs a real engine.

mod run;
mod signals;
pub(crate) mod terminal;
mod up;
mod words;
mod work;
