//! Integration tests of the crate, one binary.

mod accepted;
mod cached;
mod clang;
mod conformance;
mod fuzz;
mod machine;
mod messages;
mod objects;
mod own;
mod rejected;
mod sound;
mod support;
