//! The reference model against the DASH reference: golden packets, drop reasons, connections.

#[path = "model_suite/drops.rs"]
mod drops;
#[path = "model_suite/flows.rs"]
mod flows;
#[path = "model_suite/golden.rs"]
mod golden;
#[path = "model_suite/robust.rs"]
mod robust;
#[path = "model_suite/setup.rs"]
mod setup;
#[path = "model_suite/trace.rs"]
mod trace;
