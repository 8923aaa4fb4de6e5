//! Compiles `specs/proto` without `protoc`: messages, the gNMI client and server, and the
//! descriptor set that reflection and the JSON forms are driven by.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../specs/proto");
    // Folders of files, and of `dashwire.proto` itself.
    let includes = [root.join("gnmi"), root.join("dash"), root.clone()];
    println!("cargo:rerun-if-changed={}", root.display());

    let mut files = Vec::new();
    for folder in &includes {
        files.extend(protos(folder)?);
    }
    let descriptors = protox::compile(&files, &includes)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Values are cut out of the received buffer instead of being copied.
        .bytes(".gnmi.TypedValue")
        // One order, so that what is decoded encodes back byte for byte.
        .btree_map(".")
        .include_file("protos.rs")
        .compile_fds(descriptors)?;
    Ok(())
}

/// The `.proto` files of a folder, sorted so that builds are reproducible.
fn protos(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "proto") {
            println!("cargo:rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
