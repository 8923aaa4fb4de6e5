//! What goes wrong at the start, and what is said about it.

use nic_dpdk::{Config, Eal, Error};

use crate::common::{alone, alone_under, bare, eal, inside, receive, single, strings, try_eal};

#[test]
fn a_wrong_argument_is_named_and_a_second_start_is_refused() {
    alone("faults::inside_wrong_argument");
}

#[test]
#[ignore = "run by a_wrong_argument_is_named_and_a_second_start_is_refused"]
fn inside_wrong_argument() {
    inside();
    let mut args = bare();
    args.push("--bogus=1".to_owned());
    let message = Eal::init(&args).unwrap_err().to_string();
    assert!(
        message.contains("unrecognized option '--bogus=1'"),
        "{message}"
    );
    assert!(matches!(Eal::init(&bare()), Err(Error::Again)));
}

#[test]
fn options_that_exclude_each_other_are_explained() {
    alone("faults::inside_excluding");
}

#[test]
#[ignore = "run by options_that_exclude_each_other_are_explained"]
fn inside_excluding() {
    inside();
    let message = Eal::init(&strings("--no-huge --in-memory --no-pci")).map(drop);
    // Later versions of DPDK allow it.
    if let Err(error) = message {
        let text = error.to_string();
        assert!(text.contains("--no-huge --no-shconf"), "{text}");
    }
}

fn huge_pages() -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("HugePages_Total:"));
    line.is_none_or(|count| count.trim() != "0")
}

#[test]
fn missing_huge_pages_are_answered_with_the_way_out() {
    if huge_pages() {
        eprintln!("SKIP: this machine has huge pages");
        return;
    }
    alone("faults::inside_no_huge_pages");
}

#[test]
#[ignore = "run by missing_huge_pages_are_answered_with_the_way_out"]
fn inside_no_huge_pages() {
    inside();
    let mut args = bare();
    args.retain(|arg| arg != "--no-huge");
    let message = Eal::init(&args).unwrap_err().to_string();
    assert!(message.contains("ugepage"), "{message}");
    assert!(message.contains("--no-huge"), "{message}");
}

#[test]
fn devices_that_cannot_be_made_are_named() {
    alone("faults::inside_no_interface");
    alone("faults::inside_no_driver");
    alone("faults::inside_no_pci");
}

#[test]
#[ignore = "run by devices_that_cannot_be_made_are_named"]
fn inside_no_interface() {
    let error = try_eal(&["net_null0", "net_af_packet0,iface=no-such-if"]).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("net_af_packet0: "), "{message}");
    assert!(matches!(error, Error::NoDevice { .. }), "{message}");
}

#[test]
#[ignore = "run by devices_that_cannot_be_made_are_named"]
fn inside_no_driver() {
    let message = try_eal(&["net_nosuch0"]).unwrap_err().to_string();
    assert!(message.contains("net_nosuch0"), "{message}");
}

#[test]
#[ignore = "run by devices_that_cannot_be_made_are_named"]
fn inside_no_pci() {
    inside();
    let mut args = bare();
    args.retain(|arg| arg != "--no-pci");
    args.extend(strings("-a 0000:ff:1e.7"));
    let message = Eal::init(&args).unwrap_err().to_string();
    assert!(message.contains("0000:ff:1e.7"), "{message}");
}

#[test]
fn an_eal_without_devices_says_how_to_name_some() {
    alone("faults::inside_no_devices");
}

#[test]
#[ignore = "run by an_eal_without_devices_says_how_to_name_some"]
fn inside_no_devices() {
    let message = nic_dpdk::open(&eal(&[]), &Config::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("--vdev"), "{message}");
    assert!(message.contains("dpdk-devbind.py"), "{message}");
}

#[test]
fn too_little_memory_says_how_much_was_asked() {
    alone("faults::inside_no_memory");
}

#[test]
#[ignore = "run by too_little_memory_says_how_much_was_asked"]
fn inside_no_memory() {
    let eal = eal(&["net_null0"]);
    let config = |mbufs, mtu| Config {
        mbufs: Some(mbufs),
        mtu: Some(mtu),
        ..Config::default()
    };
    let message = nic_dpdk::open(&eal, &config(100_000, 9000))
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("no memory for 100000 packet buffers of 9344 bytes (892 MB)"),
        "{message}"
    );
    assert!(message.contains("-m MB"), "{message}");
    // Nothing was opened, so less may be asked for.
    let mut opened = single(&eal, &config(1000, 1500));
    assert_eq!(receive(&mut opened[0].1, 32).len(), 32);
}

#[test]
fn without_root_memory_devices_work_and_huge_pages_are_explained() {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let probe = std::process::Command::new(nobody[0])
        .args(&nobody[1..])
        .arg(std::env::current_exe().unwrap())
        .arg("--list")
        .output();
    if !root || !probe.is_ok_and(|p| p.status.success()) {
        eprintln!("SKIP: this needs root and setpriv, and an executable that nobody may run");
        return;
    }
    alone_under(&nobody, "faults::inside_nobody");
    if !huge_pages() {
        alone_under(&nobody, "faults::inside_nobody_huge");
    }
}

#[test]
#[ignore = "run by without_root_memory_devices_work_and_huge_pages_are_explained"]
fn inside_nobody() {
    let eal = eal(&["net_null0"]);
    let mut opened = single(&eal, &Config::default());
    assert_eq!(receive(&mut opened[0].1, 32).len(), 32);
}

#[test]
#[ignore = "run by without_root_memory_devices_work_and_huge_pages_are_explained"]
fn inside_nobody_huge() {
    inside();
    let mut args = bare();
    args.retain(|arg| arg != "--no-huge");
    let message = Eal::init(&args).unwrap_err().to_string();
    assert!(message.contains("not root"), "{message}");
    assert!(message.contains("--no-huge"), "{message}");
}
