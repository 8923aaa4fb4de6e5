//! DASH objects to pipeline IR and rows; IR to eBPF; the IR evaluator, which is the reference model.
//!
//! ```text
//! Store + Changeset --plan--> shape, rows      shape --template--> ir::Pipeline
//! ir::Pipeline --lower--> bpf::Object          ir::Pipeline --model--> packets, without any of the above
//! ```

#![forbid(unsafe_code)]

pub mod check;
pub mod entropy;
pub mod fields;
pub mod ir;
pub mod lower;
pub mod model;
pub mod plan;
pub mod template;
pub mod text;
