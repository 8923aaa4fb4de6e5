//! Compiled code against the interpreter, and against what the calling convention says.

mod context;
mod helpers;
mod loader;
mod lookups;
mod maps;
mod random;
mod stack;
mod tail_calls;
mod tidy;
mod verified;
mod world;
