//! Compiled code against the interpreter, and against what the calling convention says.

mod conformance;
mod loader;
mod random;
