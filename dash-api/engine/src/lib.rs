//! One transaction in, one generation out; state back.
//!
//! ```text
//!  Txn --commit--> Store --Changeset--> Planner --Plan--> rows ------------------.
//!                                          |                                      v
//!                                          '--shape--> IR -> eBPF -> Verified -> Image
//!                                                     (only when the shape changed)
//!                                                                                 |
//!        counters, flows, rows  <--- state ---  Target  <--- Update { image, delta }
//! ```
//!
//! * [`Engine`] owns the configuration and drives one target: [`Engine::commit`] is the only way
//!   in, and it happens whole or not at all: when anything fails, from validation to the target,
//!   store and planner are as before and the old generation keeps forwarding.
//! * [`compile`]: shapes to images, each made once; what was compiled and verified is counted.
//! * [`error`]: what can go wrong.
//! * [`state`]: counters and flows under their SAI names, and result rows.
//! * [`flows`]: flows as users filter, list, delete and resimulate them.
//! * [`sessions`]: flow dumps that rows ask for.
//! * [`mod@replay`]: packets with their times through an engine, for captures and tests.
//!
//! Not here: sockets, threads, clocks, and every concrete target.

#![deny(unsafe_code)]

pub mod compile;
pub mod engine;
pub mod error;
pub mod flows;
pub mod replay;
pub mod sessions;
pub mod state;

pub use compile::CompileStats;
pub use dash_verify::Judge;
pub use engine::{Commit, Engine, Options, Timings};
pub use error::{CompileError, EngineError};
pub use flows::{Filter, FlowSelection, FoundFlows};
pub use replay::{Summary, replay};
pub use sessions::{FlowDump, SessionError};
