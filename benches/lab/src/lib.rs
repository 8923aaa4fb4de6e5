//! The perf lab behind `dashctl bench`: what is measured, and the report of it.
//!
//! ```text
//!  measure::* --Job--> port::LabPort --frames--> the real worker loop --frames--> LabPort --Outcome--> result::Group
//!             --Txn--> dash_engine::Engine ------'
//! ```
//!
//! - [`measure`]: the sub-commands, one module each.
//! - [`lab`]: a data plane under test. [`port`]: the port that makes its traffic. [`traffic`]: packets by
//!   formula. [`pace`]: load offered from a core of its own, for latency and loss.
//! - [`world`]: the demo configuration and its packets.
//! - [`options`], [`machine`]: what was asked for, and where it ran.
//! - [`against`]: others doing the same work in the same run.
//! - [`external`]: traffic of others: through a target's ports, or from a capture.
//! - [`configs`]: the configurations of DASH's scale tests, and packets for them.
//! - [`render`]: a run as a terminal table, JSON, HTML with plots, SVG.
//! - [`result`]: what a measurement is, as JSON holds it.
//!
//! Figures are CPU time of the worker's thread a packet, because machines are shared; what is compared
//! runs in turns (A B A B) in one run; every figure keeps all its samples.

#![forbid(unsafe_code)]

pub mod against;
pub mod configs;
pub mod external;
pub mod lab;
pub mod machine;
pub mod measure;
pub mod options;
pub mod pace;
pub mod port;
pub mod render;
pub mod result;
pub mod traffic;
pub mod world;

pub use options::Options;
