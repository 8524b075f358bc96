//! What needs a real engine.

mod run;
mod signals;
mod terminal;
mod up;
mod words;
