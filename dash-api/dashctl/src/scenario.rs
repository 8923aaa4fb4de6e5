//! Scenarios: a configuration, packets, and all that must come of them, on every engine.
//!
//! A scenario is a folder with `scenario.json` and, unless the configuration is inline,
//! `config.json` in the form of [`dash_proto::config`]:
//!
//! ```json
//! {
//!   "title": "Route miss",
//!   "reference": "E5",
//!   "config": "config.json",
//!   "steps": [
//!     {"note": "no route", "at_ms": 0, "in": [..layers..], "out": null, "drop": "route-miss"},
//!     {"advance_ms": 31000, "flows": 0},
//!     {"underlay": {"routes": ["0.0.0.0/0=0,192.0.2.1"], "neighbors": ["192.0.2.1=02:00:00:00:09:01@0"]}},
//!     {"config": [{"DASH_ROUTE_TABLE:g:10.3.0.0/16": {"routing_type": "direct"}, "OP": "SET"}]}
//!   ],
//!   "traffic": {"eni-1": {"outbound": {"rx": [1, 100], "tx": [0, 0]}}},
//!   "counters": {"eni": {"eni-1": {"TOTAL_DROP_PACKETS": 1}}},
//!   "flows": 0
//! }
//! ```
//!
//! What a scenario does not list must be 0: at the end every counter is compared, and after a step
//! that drops, that exactly the counters of its reason moved, by one. All fields: [`mod@format`];
//! layers of packets: [`mod@packet`].

pub mod format;
pub mod packet;
pub mod run;

pub use format::{Scenario, ScenarioFile};
pub use run::{Mismatch, Outcome, Report, cover, run};
