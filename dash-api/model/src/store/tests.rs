//! Tests of the store: its rules one by one, and the whole against a dumb twin.

mod fixtures;
mod laws;
mod rules;
mod twin;
