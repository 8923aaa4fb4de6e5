//! Every byte layout two parts of dashwire must agree on: the calling convention of compiled
//! programs ([`abi`]), table keys and rows ([`tables`]), counters ([`stats`]) and drop reasons
//! ([`drop`]).

#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod drop;
pub mod hook;
pub mod stats;
pub mod tables;
