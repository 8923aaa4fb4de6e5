//! gNMI and SONiC-DASH messages.
#![forbid(unsafe_code)]

mod generated;

pub use generated::{dash, gnmi, gnmi_ext};

/// Encoded `google.protobuf.FileDescriptorSet` of every file in `specs/proto` and its imports.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
