//! The perf lab behind `dashctl bench`: what is measured, and the report of it.
//!
//! - [`against`]: others doing the same work in the same run.
//! - [`configs`]: the configurations of DASH's scale tests, and packets for them.
//! - [`render`]: a run as a terminal table, JSON, HTML with plots, SVG.
//! - [`result`]: what a measurement is, as JSON holds it.

#![forbid(unsafe_code)]

pub mod against;
pub mod configs;
pub mod render;
pub mod result;
