//! EAL starts once a process, so each test runs this executable again for one of the ignored
//! tests beside it.

use std::process::{Child, Command, Output, Stdio};

use nic_dpdk::{Config, DpdkDevice, DpdkPort, Eal, Error};
use nic_target::{Device as _, Frame, FramePool, Port as _, Rx, Tx};

const INSIDE: &str = "NIC_DPDK_INSIDE";

/// Runs an ignored test in a process of its own, under `wrapper` (a command and its arguments, which
/// becomes the test by exec).
pub(crate) fn alone_under(wrapper: &[&str], test: &str) {
    let mut command = spawn(wrapper, test);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    finish(test, child);
}

/// Waits for a test in a process of its own, and removes the folder that EAL leaves.
pub(crate) fn finish(test: &str, child: Child) {
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    for root in ["/var/run/dpdk", "/tmp/dpdk"] {
        // It makes one of them, or none.
        let _ = std::fs::remove_dir_all(format!("{root}/{}", prefix(pid)));
    }
    check(test, &output);
}

fn prefix(pid: u32) -> String {
    format!("dashwire-test-{pid}")
}

/// Runs an ignored test in a process of its own.
pub(crate) fn alone(test: &str) {
    alone_under(&[], test);
}

/// The command that runs an ignored test in a process of its own.
pub(crate) fn spawn(wrapper: &[&str], test: &str) -> Command {
    let me = std::env::current_exe().unwrap();
    let mut command = match wrapper {
        [] => Command::new(me),
        [program, args @ ..] => {
            let mut command = Command::new(program);
            command.args(args).arg(me);
            command
        }
    };
    command
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(INSIDE, "1");
    command
}

fn check(test: &str, output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test}, {}:\n{text}",
        output.status
    );
    // The caller passes only if it says why, too.
    for line in text.lines().filter(|line| line.starts_with("SKIP")) {
        eprintln!("{line}");
    }
}

/// Asserts that an ignored test was not started by hand in a process that others share.
pub(crate) fn inside() {
    assert!(
        std::env::var_os(INSIDE).is_some(),
        "to be run by another test, in a process of its own"
    );
}

/// EAL's arguments for no hardware, no files, 64 MB.
pub(crate) fn bare() -> Vec<String> {
    let prefix = format!("--file-prefix={}", prefix(std::process::id()));
    let mut args = strings("--no-huge --no-shconf --no-telemetry --no-pci -m 64");
    args.push(prefix);
    args
}

pub(crate) fn strings(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Starts EAL with virtual devices.
pub(crate) fn eal(vdevs: &[&str]) -> Eal {
    try_eal(vdevs).unwrap()
}

pub(crate) fn try_eal(vdevs: &[&str]) -> Result<Eal, Error> {
    inside();
    let mut args = bare();
    for vdev in vdevs {
        args.push(format!("--vdev={vdev}"));
    }
    Eal::init(&args)
}

/// Opens all devices with one queue pair each.
pub(crate) fn single(eal: &Eal, config: &Config) -> Vec<(DpdkDevice, DpdkPort)> {
    let opened = nic_dpdk::open(eal, config).unwrap();
    let one = opened
        .into_iter()
        .map(|(device, mut ports)| (device, ports.remove(0)));
    one.collect()
}

/// A frame in memory of our own: 60 bytes or more, told apart by `n`.
pub(crate) fn frame(n: u32, len: usize) -> Frame {
    let mut data = vec![0xa5; len.max(60)];
    // To everybody, from a local address, of an experimental type.
    data[..6].fill(0xff);
    data[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    data[14..18].copy_from_slice(&n.to_be_bytes());
    let mut frame = Frame::new();
    assert!(frame.fill(&data));
    frame
}

/// The number of a frame that `frame` made.
pub(crate) fn number(frame: &Frame) -> Option<u32> {
    let data = frame.data();
    (data.get(12..14)? == [0x88, 0xb5]).then_some(())?;
    Some(u32::from_be_bytes(data.get(14..18)?.try_into().ok()?))
}

/// Sends frames and checks that each of our own comes back to the pool.
pub(crate) fn send(port: &mut DpdkPort, frames: Vec<Frame>) -> Tx {
    let (mut pool, mut frames) = (FramePool::new(0), frames);
    let (count, own) = (frames.len(), frames.iter().filter(|f| !f.is_lent()).count());
    let tx = port.tx(&mut pool, &mut frames).unwrap();
    assert!(frames.is_empty());
    assert_eq!((pool.available(), tx.sent + tx.dropped), (own, count));
    tx
}

/// One receive.
pub(crate) fn receive(port: &mut DpdkPort, max: usize) -> Vec<Frame> {
    let (mut pool, mut burst) = (FramePool::new(0), Vec::new());
    match port.rx(3, &mut pool, &mut burst, max).unwrap() {
        Rx::Received(n) => assert_eq!(n, burst.len()),
        Rx::End => panic!("the port ended"),
    }
    for frame in &burst {
        assert_eq!((frame.port, frame.is_lent()), (3, true));
        assert_ne!(frame.timestamp_ns, 0);
    }
    burst
}

/// Receives until `wanted` frames of ours are there; generous, for loaded machines.
pub(crate) fn receive_n(port: &mut DpdkPort, wanted: usize) -> Vec<Frame> {
    let mut got = Vec::new();
    for _ in 0..30_000 {
        got.extend(
            receive(port, 32)
                .into_iter()
                .filter(|f| number(f).is_some()),
        );
        if got.len() >= wanted {
            return got;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{} of {wanted} frames received", got.len());
}

/// A statistic by its name; panics with all names when there is none.
pub(crate) fn xstat(device: &mut DpdkDevice, name: &str) -> u64 {
    let all = device.xstats().unwrap();
    let found = all.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    found.unwrap_or_else(|| panic!("no {name} among {all:?}"))
}
