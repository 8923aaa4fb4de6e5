//! Raw bindings to DPDK 22.11 or later, generated from the headers that are installed, and a C shim
//! (`shim.h`) for what these headers define inline. No policy: `nic-dpdk` is the safe side.

#![expect(
    missing_docs,
    non_camel_case_types,
    unsafe_code,
    reason = "generated from C headers"
)]
#![allow(
    clippy::allow_attributes,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    non_snake_case,
    non_upper_case_globals,
    rust_2018_idioms,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused,
    reason = "generated: which of these fire depends on the version of DPDK"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
