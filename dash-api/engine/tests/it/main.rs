//! What the engine promises, against a target that only remembers.

mod commit;
mod fake;
mod replay;
mod state;
