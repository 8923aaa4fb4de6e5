//! Integration tests of the crate, one binary.

mod accepted;
mod cached;
mod objects;
mod rejected;
mod sound;
mod support;
