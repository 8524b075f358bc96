//! What the fuzz targets check. What is included here stands in the gateway under the same names.

#[path = "../../sandbox-runtime/src/egress/buffer.rs"]
mod buffer;
#[path = "checks.rs"]
pub mod checks;
#[path = "../../sandbox-runtime/src/egress/head.rs"]
mod head;
#[path = "../../sandbox-runtime/src/egress/hello.rs"]
mod hello;
#[path = "../../sandbox-runtime/src/egress/target.rs"]
mod target;
