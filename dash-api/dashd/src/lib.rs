//! The daemon: gNMI in front, one engine in the middle, a target at the back.
//!
//! ```text
//!  gnmi::Gnmi --.                     .-- neighbors: ARP, ND, what is next to the card
//!  observe     --> control::Control --> plane::Plane { Engine<DataPlane> } --> workers, ports
//!  metrics    --'   (jobs to the one    '-- commit, counters, flows
//!  simulator          thread that owns it)
//! ```
//!
//! * [`args`]: the command line.
//! * [`server`]: listeners, TLS, the services on them, start and stop.
//! * [`control`]: the thread that owns the engine; everything asks it by sending a job, so that no
//!   task of the server ever waits for the data plane.
//! * [`plane`]: what that thread owns: target, engine, neighbours.
//! * [`dataplane`]: the target: workers over ports, or the kernel with a worker behind it.
//! * [`neighbors`]: which address is at which MAC, what to answer and what to ask.
//! * [`gate`]: keeps packets waiting until the configuration is in.
//! * [`gnmi`]: Capabilities, Get, Set.
//! * [`sessions`]: flow dumps that clients ask for by rows.
//! * [`observe`], [`flow_control`], [`settings`], [`simulator`]: our own services (`specs/proto`).
//! * [`programs`]: programs of users: objects, links, and the service for them (`specs/proto/programs.proto`).
//! * `usage`: bytes of tables, resources used and available.
//! * [`metrics`]: the endpoint that Prometheus scrapes.

#![forbid(unsafe_code)]

pub mod args;
pub mod control;
pub mod dataplane;
pub mod flow_control;
pub mod gate;
pub mod gnmi;
pub mod metrics;
pub mod neighbors;
pub mod observe;
pub mod plane;
pub mod programs;
pub mod server;
pub mod sessions;
pub mod settings;
mod shortage;
pub mod simulator;
mod usage;

pub use args::Args;
pub use server::Server;
