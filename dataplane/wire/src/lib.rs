//! Every byte layout two parts of dashwire must agree on.

#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
