//! The binary: what it prints, how it ends.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use dashd::Server;

use crate::support::{args, cache};

fn dashd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashd"));
    command
        .args([
            "--target",
            "sim:",
            "--engine",
            "interp",
            "--cache",
            &cache(),
        ])
        .args(args);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fails(args: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = dashd(args).output().unwrap();
    assert_eq!(text(&stdout), "", "nothing serves");
    (status.code(), text(&stderr))
}

#[test]
fn addresses_are_printed_once_they_serve_and_sigterm_is_a_clean_end() {
    let mut child = dashd(&["--no-tls", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"])
        .args(["--metrics", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for start in ["gnmi 127.0.0.1:", "gnmi [::1]:", "metrics 127.0.0.1:"] {
        let line = lines.next().unwrap().unwrap();
        let port: u16 = line.strip_prefix(start).expect(&line).parse().unwrap();
        assert_ne!(port, 0);
        let address = line.split_once(' ').unwrap().1;
        std::net::TcpStream::connect(address).unwrap();
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lines.next().is_none(), "and nothing else is printed");
}

#[test]
fn its_memory_is_in_large_pages_where_the_system_listens() {
    let modes = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if !modes.is_ok_and(|modes| modes.contains("[madvise]")) {
        eprintln!("SKIP: large pages of memory: the system gives them always, or never");
        return;
    }
    for (wanted, said) in [(None, "1"), (Some("0"), "")] {
        let mut command = dashd(&["--no-tls", "--listen", "127.0.0.1:0"]);
        command.env_remove("GLIBC_TUNABLES");
        command.env_remove("DASHWIRE_LARGE_PAGES");
        command.envs(wanted.map(|wanted| ("DASHWIRE_LARGE_PAGES", wanted)));
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let about = |file: &str| std::fs::read(format!("/proc/{}/{file}", child.id())).unwrap();
        let environment = text(&about("environ"));
        let (name, command) = (text(&about("comm")), text(&about("cmdline")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.starts_with("gnmi "), "{line}");
        let mut variables = environment.split('\0');
        let tunable =
            variables.find_map(|v| v.strip_prefix("GLIBC_TUNABLES=glibc.malloc.hugetlb="));
        assert_eq!(tunable.unwrap_or_default(), said);
        assert_eq!(name, "dashd\n");
        let arguments: Vec<&str> = command.split_terminator('\0').collect();
        assert_eq!(arguments.first(), Some(&env!("CARGO_BIN_EXE_dashd")));
        assert_eq!(arguments.last(), Some(&"127.0.0.1:0"));
    }
}

#[test]
fn clear_text_is_for_loopback_only() {
    let (code, error) = fails(&["--no-tls", "--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("--no-tls is for loopback addresses only"),
        "{error}"
    );
    let (code, error) = fails(&["--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(2), "neither --no-tls nor a certificate");
    assert!(error.contains("--tls-cert"), "{error}");
}

#[test]
fn every_error_of_a_configuration_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.json");
    let rows =
        "[{\"DASH_VNET_TABLE:A\": {\"vni\": \"0\"}},\n {\"DASH_VNET_TABLE:B\": {\"vnu\": 1}}]";
    std::fs::write(&path, rows).unwrap();
    let path = path.to_str().unwrap();
    let (code, error) = fails(&["--no-tls", "--listen", "127.0.0.1:0", "--config", path]);
    assert_eq!(code, Some(1));
    for part in ["line 1: DASH_VNET_TABLE:A", "line 2: DASH_VNET_TABLE:B"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_daemon_starts_with_every_judge_and_with_no_other() {
    let start = |judge: &str| {
        let args = args(&["--verifier", judge, "--engine", "interp"]);
        assert_eq!(args.verifier.to_string(), judge);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { Server::start(args).await.unwrap().stop().await });
    };
    ["own", "prevail", "both"].into_iter().for_each(start);
    let (code, error) = fails(&["--no-tls", "--listen", "127.0.0.1:0", "--verifier", "me"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("there are own, prevail and both"), "{error}");
}

#[test]
fn a_route_to_a_port_that_is_not_there_is_refused() {
    let (code, error) = fails(&[
        "--no-tls",
        "--listen",
        "127.0.0.1:0",
        "--route",
        "10.0.0.0/8=1",
    ]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("--route 10.0.0.0/8: sim: has no port 1"),
        "{error}"
    );
}

#[test]
fn workers_that_cannot_be_are_refused_before_the_target_opens() {
    let refused = |args: &[&str], why: &str| {
        let (code, error) = fails(&[&["--no-tls", "--listen", "127.0.0.1:0"], args].concat());
        assert_eq!(code, Some(1));
        assert!(error.contains(why), "{error}");
    };
    refused(
        &["--workers", "2"],
        "interp runs on one worker only, not on 2",
    );
    refused(
        &["--workers", "1", "--cores", "0-1"],
        "2 core(s) are named for 1 worker(s)",
    );
    refused(
        &["--cores", "1023"],
        "core 1023 is not this process's to run on; its cores are ",
    );
    let (code, error) = fails(&["--no-tls", "--listen", "127.0.0.1:0", "--cores", "3-1"]);
    assert_eq!(code, Some(2), "usage");
    assert!(
        error.contains("3-1: a range starts with its lowest core"),
        "{error}"
    );
}

#[test]
fn the_kernel_has_one_worker_and_compiled_code() {
    let refused = |args: &[&str], why: &str| {
        let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_dashd"))
            .args(["--no-tls", "--listen", "127.0.0.1:0", "--cache", &cache()])
            .args(["--target", "kernel:no-such-if"])
            .args(args)
            .output()
            .unwrap();
        let error = text(&stderr);
        assert_eq!(status.code(), Some(1), "{error}");
        assert!(error.contains(why), "{error}");
    };
    refused(
        &["--engine", "interp"],
        "--target kernel:no-such-if needs --engine native",
    );
    refused(
        &["--workers", "2"],
        "has one worker for what the kernel does not do itself, not 2",
    );
    refused(&[], "no-such-if does not exist; there are:");
}
