//! The perf lab behind `dashctl bench`: what is measured, and the report of it.
//!
//! - [`result`]: what a measurement is, as JSON holds it.

#![forbid(unsafe_code)]

pub mod result;
