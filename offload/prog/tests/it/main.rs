//! Tests of the crate from outside.

mod clang;
mod engines;
mod events;
mod fuel;
mod fuzz;
mod kernel;
mod shared;
mod support;
mod twins;
