//! What `dashctl` is made of, for tests and tools that do the same in process.
//!
//! * [`engines`]: packet engines by name.
//! * [`config`]: configuration files into an engine.
//! * [`underlay`]: `--route` and `--neighbor`.
//! * [`scenario`]: scenarios of `specs/scenarios` on every engine.
//! * [`life`]: options about connections.
//! * [`mapfile`]: maps of users' programs as JSON, and as words on the command line.
//! * [`pages`]: large pages for what the allocator gives.
//! * [`progress`]: bars for what takes long, on a terminal only.

#![forbid(unsafe_code)]

pub mod config;
pub mod engines;
pub mod life;
pub mod mapfile;
pub mod pages;
pub mod progress;
pub mod scenario;
pub mod underlay;
