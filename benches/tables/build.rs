//! Compiles the loops over DPDK's tables, where DPDK is asked for.

fn main() {
    #[cfg(feature = "dpdk")]
    dpdk();
}

#[cfg(feature = "dpdk")]
fn dpdk() {
    println!("cargo:rerun-if-changed=csrc/lpm.c");
    let dpdk = pkg_config::Config::new()
        .atleast_version("22.11")
        .probe("libdpdk")
        .expect("the feature dpdk needs DPDK's development files");
    cc::Build::new()
        .file("csrc/lpm.c")
        .includes(dpdk.include_paths)
        .flag("-includerte_config.h")
        .flag("-march=native")
        .opt_level(3)
        .compile("dash_tablebench_lpm");
}
