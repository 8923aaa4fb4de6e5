//! Opens a target from a string ([`spec`], [`mod@open`]), and speaks ARP and IPv6 neighbour discovery
//! for the addresses a port owns ([`neighbor`]).

#![forbid(unsafe_code)]

pub mod neighbor;
pub mod open;
pub mod spec;

pub use open::{AnyPort, OpenError, Opened, open};
pub use spec::{DpdkSpec, SpecError, TargetSpec};
