//! What the build script made of `specs/proto`.

#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::module_inception,
    reason = "written by prost and tonic; the documentation is in the .proto files"
)]

include!(concat!(env!("OUT_DIR"), "/protos.rs"));
