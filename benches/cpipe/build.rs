//! Compiles the pipeline for the processor that builds it: it is a measuring stick, not a product.

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    cc::Build::new()
        .file("csrc/pipeline.c")
        .include("csrc")
        .opt_level(3)
        .flag_if_supported("-march=native")
        // Nothing here gains from 512-bit registers, and callgrind does not know them.
        .flag_if_supported("-mno-avx512f")
        .flag("-std=gnu11")
        .debug(false)
        .extra_warnings(true)
        .compile("dashwire_cpipe");
}
