//! Finds DPDK through pkg-config, compiles the shim, and generates the bindings.

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const OLDEST: &str = "22.11";

/// Libraries that hold what is called; the drivers are plugins that EAL loads. `rte_log` is a library
/// of its own since 23.11.
const LIBRARIES: [&str; 6] = [
    "rte_ethdev",
    "rte_mbuf",
    "rte_mempool",
    "rte_ring",
    "rte_eal",
    "rte_log",
];

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=src/shim.c");
    println!("cargo:rerun-if-changed=src/shim.h");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}\n");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let dpdk = pkg_config::Config::new()
        .atleast_version(OLDEST)
        .cargo_metadata(false)
        .probe("libdpdk")
        .map_err(|e| {
            format!(
                "DPDK {OLDEST} or later was not found: install libdpdk-dev, or build without the feature dpdk\n{e}"
            )
        })?;
    // The flags that are neither -I nor -D matter too: `-include rte_config.h`, `-march`.
    let cflags = cflags()?;

    let mut shim = cc::Build::new();
    shim.file("src/shim.c").opt_level(3).warnings(false);
    cflags.iter().for_each(|flag| {
        shim.flag(flag);
    });
    shim.try_compile("dashwire_dpdk_shim")?;
    for path in &dpdk.link_paths {
        println!("cargo:rustc-link-search=native={}", path.display());
    }
    for library in LIBRARIES {
        if dpdk.libs.iter().any(|l| l == library) {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
    }

    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    bindgen::Builder::default()
        .header("src/shim.h")
        .clang_args(&cflags)
        .allowlist_function("dash_.*")
        .allowlist_var("DASH_.*|RTE_ETH_EVENT_INTR_RMV|RTE_ETH_EVENT_DESTROY")
        .allowlist_function(
            "rte_eal_cleanup|rte_thread_register|rte_thread_unregister|rte_strerror",
        )
        .allowlist_function(
            "rte_eth_dev_(info_get|configure|start|stop|close|socket_id|set_mtu|get_mtu)",
        )
        .allowlist_function("rte_eth_dev_(get_name_by_port|get_port_by_name|adjust_nb_rx_tx_desc)")
        .allowlist_function("rte_eth_dev_callback_(un)?register|rte_eth_find_next_owned_by")
        .allowlist_function(
            "rte_eth_(rx|tx)_queue_setup|rte_eth_promiscuous_enable|rte_eth_macaddr_get",
        )
        .allowlist_function("rte_eth_xstats_(get|get_names|reset)|rte_eth_stats_reset")
        .allowlist_function("rte_pktmbuf_pool_create|rte_mempool_(free|in_use_count|avail_count)")
        // Reached only through pointers: their layouts are the shim's business.
        .opaque_type("rte_mbuf|rte_mempool|rte_device")
        .prepend_enum_name(false)
        .layout_tests(true)
        .generate_comments(false)
        .generate()
        .map_err(|e| format!("bindgen: {e} (libclang-dev must be installed)"))?
        .write_to_file(out.join("bindings.rs"))?;
    Ok(())
}

fn cflags() -> Result<Vec<String>, Box<dyn Error>> {
    let program = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = Command::new(program)
        .args(["--cflags", "libdpdk"])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
