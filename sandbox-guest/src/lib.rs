//! The words that a sandbox and its host exchange.
//!
//! The binary of this crate is process 1 of every sandbox. This library is what it shares with its host:
//! the [`wire`] types, the [`frame`]s that carry them and the descriptors beside them, the [`tree`] stream in which whole
//! directories travel, the [`relay`] that carries both where no descriptor can pass, the [`launch`] by which the program makes a container for itself, and how a [`user`] that an image names is
//! found. Either side treats what
//! the other sends as hostile: frames are bounded before they are read, and nothing is allocated on the word of the peer.

pub mod frame;
pub mod launch;
pub mod relay;
pub mod sudo;
pub mod tree;
pub mod user;
pub mod wire;
