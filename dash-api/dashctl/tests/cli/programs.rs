//! `dashctl prog load|attach|...`, `link` and `map --daemon`, against a daemon that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use dash_bpf::elf::write;
use dash_bpf::{MapDef, MapKind, Object, Program, assemble};
use nic_sim::{CaptureReader, CaptureWriter, Packet};
use serde_json::{Value, json};

use crate::{dashctl, scenario, stderr, stdout, text};

const ENI: &str = "F4939FEFC47E";

/// A daemon with the demo's configuration over a simulated NIC, and a folder.
struct Daemon {
    runtime: tokio::runtime::Runtime,
    server: Option<dashd::Server>,
    address: String,
    dir: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let config = scenario("demo").join("config.json");
        let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/verdicts");
        let args = dashd::Args::try_parse_from([
            "dashd",
            "--listen",
            "127.0.0.1:0",
            "--no-tls",
            "--target",
            "sim:ports=2",
            "--metrics",
            "127.0.0.1:0",
            "--config",
            text(&config),
        ])
        .expect("arguments");
        let args = dashd::Args {
            cache: private(cache).then(|| cache.into()),
            ..args
        };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let server = runtime.block_on(dashd::Server::start(args));
        let server = server.expect("a daemon");
        Self {
            address: server.gnmi()[0].to_string(),
            server: Some(server),
            runtime,
            dir: tempfile::tempdir().expect("folder"),
        }
    }

    /// Runs a command against it.
    fn run(&self, args: &[&str]) -> std::process::Output {
        dashctl(&[args, &["--daemon", &self.address]].concat())
    }

    fn done(&self, args: &[&str]) -> String {
        stdout(&self.run(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        let said = self.done(&[args, &["-j"]].concat());
        serde_json::from_str(&said).expect("JSON")
    }

    /// Why a command is refused.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        stderr(&output)
    }

    fn object(&self, object: &Object, name: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{name}.o"));
        fs::write(&path, write(object).expect("an ELF form")).expect("written");
        path
    }

    /// Sends so many packets of the VM, and says how many leave.
    fn inject(&self, packets: usize) -> usize {
        let path = |name: &str| self.dir.path().join(name);
        let (input, output) = (path("in.pcap"), path("out.pcap"));
        let packet = Packet::eth([2, 0, 0, 0, 0, 1], [2, 9, 9, 9, 9, 1])
            .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
            .udp(5137, 4789)
            .vxlan(4321)
            .eth([2; 6], [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e])
            .ipv4([10, 1, 1, 10], [10, 1, 1, 1])
            .udp(1000, 2000)
            .payload(b"hello")
            .build();
        let mut capture = CaptureWriter::create(&input).expect("created");
        for n in 0..packets {
            capture.write(n as u64, &packet).expect("written");
        }
        capture.finish().expect("written");
        let (input, output) = (text(&input), text(&output));
        let args = ["inject", "--in", input, "--out", output];
        let done = dashctl(&[&args[..], &["--to", &self.address]].concat());
        assert!(done.status.success(), "{}", stderr(&done));
        CaptureReader::open(Path::new(output))
            .expect("a capture")
            .count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

/// Makes a folder for verdicts, which must be this user's alone.
fn private(dir: &str) -> bool {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.is_ok()
}

fn program(name: &str, text: &str) -> Program {
    Program {
        name: name.to_owned(),
        insns: assemble(text).expect("text"),
        ..Program::default()
    }
}

/// Counts packets, tells a ring buffer of each, and lets pass or drops; and a program that is not safe.
fn counter() -> Object {
    let count = |verdict: &str| {
        format!(
            "*(u32 *)(r10 - 4) = 0
            r1 = map[0] ll
            r2 = r10
            r2 += -4
            call 1
            if r0 == 0 goto out
            r1 = 1
            lock *(u64 *)(r0 + 0) += r1
            out:
            *(u64 *)(r10 - 16) = 0x2a
            r1 = map[1] ll
            r2 = r10
            r2 += -16
            r3 = 8
            r4 = 0
            call 130
            r0 = {verdict}
            exit"
        )
    };
    let def = |name: &str, kind, key_size, value_size, max_entries| MapDef {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries,
        ..MapDef::default()
    };
    Object {
        maps: vec![
            def("count", MapKind::Array, 4, 8, 1),
            def("events", MapKind::RingBuf, 0, 0, 4096),
            def("next", MapKind::ProgArray, 4, 4, 2),
        ],
        programs: vec![
            program("passes", &count("2")),
            program("drops", &format!("r1 = map[2] ll\n{}", count("1"))),
        ],
        tail_calls: Vec::new(),
    }
}

#[test]
fn programs_are_loaded_attached_watched_and_detached_from_the_command_line() {
    let daemon = Daemon::start();
    let object = daemon.object(&counter(), "counter");
    assert_eq!(daemon.inject(3), 3, "it forwards");

    let said = daemon.done(&["prog", "load", text(&object), "--metrics", "count"]);
    assert!(
        said.starts_with("object counter (native)\n  program 0 passes (xdp): "),
        "{said}"
    );
    let map = "  map counter/count: array, key 4 B, value 8 B, 1 of 1 entries, on /metrics\n";
    assert!(said.contains(map), "{said}");
    let again = [
        "prog",
        "load",
        text(&object),
        "--name",
        "again",
        "--engine",
        "interp",
    ];
    assert_eq!(daemon.json(&again)["engine"], "interp");
    let list = daemon.json(&["prog", "list"]);
    assert_eq!(list[1]["name"], "counter");
    assert_eq!(list[1]["programs"][1]["name"], "drops");
    daemon.done(&["prog", "unload", "again"]);

    let at = |at: &str, program: &str, more: &[&str]| {
        daemon.done(&[&["prog", "attach", program, "--at", at][..], more].concat())
    };
    assert_eq!(at("ingress:0", "counter/passes", &[]), "link 1\n");
    let eni = format!("eni-outbound:{ENI}");
    assert_eq!(at(&eni, "counter/passes", &["--sequence", "7"]), "link 2\n");
    let waits = at("eni-inbound:nobody", "counter/passes", &[]);
    assert_eq!(waits, "link 3 waits for its ENI, which is not there\n");
    assert_eq!(
        at("egress:0", "counter/passes", &["-j"]),
        "{\"link\":4,\"attached\":true}\n"
    );
    assert_eq!(daemon.inject(5), 5);
    let links = daemon.done(&["link", "show"]);
    let lines: Vec<&str> = links.lines().collect();
    assert_eq!(
        lines[1],
        format!(
            "2: counter/passes at {eni}, sequence 7: 5 passed, 0 dropped, 0 sent back, 0 redirected, 0 aborted"
        )
    );
    assert!(lines[2].contains("waits for its ENI"), "{links}");
    assert_eq!(daemon.json(&["link", "show"])[3]["passed"], 5);

    // Maps, while packets go on.
    let read = |words: &[&str]| daemon.done(&[&["map"], words].concat());
    assert_eq!(
        read(&["lookup", "counter/count", "key", "u32:0"]),
        "key: 00 00 00 00  value: 0f 00 00 00 00 00 00 00\n"
    );
    read(&[
        "update",
        "counter/count",
        "key",
        "u32:0",
        "value",
        "u64:1000",
    ]);
    daemon.inject(1);
    let element = json!({
        "key": ["0x00", "0x00", "0x00", "0x00"],
        "value": ["0xeb", "0x03", "0x00", "0x00", "0x00", "0x00", "0x00", "0x00"],
    });
    assert_eq!(
        daemon.json(&["map", "dump", "counter/count"]),
        json!([element])
    );
    assert!(read(&["dump", "counter/count"]).ends_with("Found 1 element\n"));
    let events = read(&["events", "counter/events", "--count", "2"]);
    assert_eq!(events, "2a00000000000000\n".repeat(2));
    read(&[
        "update",
        "counter/next",
        "key",
        "u32:1",
        "value",
        "program",
        "drops",
    ]);
    assert_eq!(
        read(&["lookup", "counter/next", "key", "u32:1"]),
        "key: 01 00 00 00  value: 01 00 00 00\n"
    );
    read(&["delete", "counter/next", "key", "u32:1"]);
    read(&["pin", "counter/count", "kept"]);
    read(&[
        "create",
        "mine",
        "--type",
        "queue",
        "--value",
        "4",
        "--entries",
        "3",
    ]);
    read(&["update", "mine", "value", "u32:7"]);
    assert_eq!(read(&["pop", "mine"]), "value: 07 00 00 00\n");
    assert!(
        daemon
            .refused(&["map", "pop", "mine"])
            .contains("no such element")
    );
    let show = read(&["show"]);
    assert!(
        show.contains("\nkept: array  flags 0x0  key 4B  value 8B"),
        "{show}"
    );

    // In place of another, and away.
    daemon.done(&["prog", "attach", "counter/drops", "--replace", "2"]);
    assert_eq!(daemon.inject(2), 0);
    assert_eq!(daemon.json(&["link", "show"])[1]["dropped"], 2);
    let profile = daemon.json(&["prog", "profile", "2", "--milliseconds", "20"]);
    assert_eq!(profile["runs"], 0, "nothing came meanwhile");
    assert!(profile["instructions"].as_u64() > Some(10), "{profile}");
    daemon.done(&["prog", "detach", "2"]);
    for link in ["1", "3", "4"] {
        daemon.done(&["link", "detach", link]);
    }
    assert_eq!(daemon.done(&["link", "show"]), "");
    daemon.done(&["prog", "unload", "counter"]);
    assert!(read(&["dump", "kept"]).contains("value: "), "it is pinned");
    read(&["unpin", "kept"]);
    assert_eq!(daemon.inject(2), 2);
}

#[test]
fn what_a_daemon_refuses_is_said_with_its_reason() {
    let daemon = Daemon::start();
    let good = daemon.object(&counter(), "counter");
    daemon.done(&["prog", "load", text(&good)]);
    let bad = Object {
        programs: vec![
            program("fine", "r0 = 2\nexit"),
            program("reads", "r1 = *(u32 *)(r1 + 0)\nr0 = *(u8 *)(r1 + 0)\nexit"),
        ],
        ..Object::default()
    };
    let bad = daemon.object(&bad, "bad");
    let broken = daemon.dir.path().join("broken.o");
    fs::write(&broken, b"not an object").expect("written");
    let program = "counter/passes";
    for (args, words) in [
        (
            &["prog", "load", text(&bad)][..],
            "program 1 (reads), instruction 1: ",
        ),
        (&["prog", "load", text(&broken)], "broken is refused"),
        (&["prog", "load", "/nowhere.o"], "cannot read /nowhere.o"),
        (&["prog", "load", text(&good)], "already"),
        (
            &["prog", "attach", program, "--at", "ingress:2"],
            "ports are 0 to 1",
        ),
        (
            &["prog", "attach", "counter", "--at", "ingress:0"],
            "passes, drops",
        ),
        (&["prog", "attach", program, "--replace", "5"], "no link 5"),
        (&["prog", "detach", "5"], "no link 5"),
        (&["prog", "profile", "5"], "no link 5"),
        (&["prog", "unload", "nothing"], "no object nothing"),
        (&["map", "lookup", "counter/count", "key", "1"], "EINVAL"),
        (
            &["map", "lookup", "counter/nothing", "key", "1"],
            "no map nothing",
        ),
        (
            &["map", "update", "counter/count", "key", "word"],
            "\"word\" is not a byte",
        ),
        (&["map", "events", "counter/count"], "not a ring buffer"),
        (&["map", "dump", "counter/events"], "ring buffer"),
    ] {
        let said = daemon.refused(args);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    // What the command line itself knows.
    for args in [
        &["prog", "attach", program, "--at", "nowhere"][..],
        &["prog", "attach", program, "--at", "egress:x"],
        &["prog", "attach", program],
        &[
            "prog",
            "attach",
            program,
            "--at",
            "ingress:0",
            "--replace",
            "1",
        ],
        &["prog", "profile", "1", "--milliseconds", "0"],
        &["prog", "load", text(&good), "--engine", "quick"],
        &["map", "show", "--pins", "x"],
    ] {
        assert_eq!(daemon.run(args).status.code(), Some(2), "{args:?}");
    }
    let nowhere = dashctl(&["map", "show"]);
    assert_eq!(nowhere.status.code(), Some(2));
    let said = stderr(&nowhere);
    assert!(said.contains("--pins <DIR>|--daemon <ADDR:PORT>"), "{said}");
    assert_eq!(daemon.inject(1), 1, "it forwards all the same");
}

/// What the README shows, with the programs that we ship.
#[test]
fn a_shipped_program_guards_an_eni() {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../offload/prog");
    let daemon = Daemon::start();
    let object = daemon.dir.path().join("ddos_guard.o");
    let clang = Command::new("clang")
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g"])
        .args(["-I", "/usr/include/x86_64-linux-gnu"])
        .args(["-I", "/usr/include/aarch64-linux-gnu", "-I"])
        .arg(include.join("include"))
        .arg("-c")
        .arg(include.join("programs/ddos_guard.c"))
        .args(["-o", text(&object)])
        .status();
    if !clang.is_ok_and(|status| status.success()) {
        eprintln!("SKIP: no clang for bpf, with headers of Linux");
        return;
    }
    daemon.done(&["prog", "load", text(&object), "--metrics", "dropped"]);
    let limits = "map update ddos_guard/limits key u32:0 value u32:0 u32:5 u32:0 u32:0 u32:0 u32:0";
    daemon.done(&limits.split(' ').collect::<Vec<_>>());
    let eni = format!("eni-outbound:{ENI}");
    daemon.done(&["prog", "attach", "ddos_guard", "--at", &eni]);
    assert_eq!(daemon.inject(8), 5, "of one source at once");
    assert_eq!(daemon.json(&["link", "show"])[0]["dropped"], 3);
}
