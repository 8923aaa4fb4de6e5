//! Two processes over shared memory: net_memif.

use std::path::Path;
use std::process::Stdio;

use nic_dpdk::Config;
use nic_target::{Device as _, Link};

use crate::common::{eal, finish, frame, number, receive, send, single, spawn, xstat};

const SOCKET: &str = "NIC_DPDK_MEMIF";
const COUNT: u32 = 500;

#[test]
fn two_processes_exchange_frames_over_memif() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("memif.sock");
    let start = |test| {
        let mut command = spawn(&[], test);
        command
            .env(SOCKET, &socket)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let server = start("memif::inside_server");
    // A client that comes too early cannot start.
    wait_for_listener(&socket);
    let client = start("memif::inside_client");
    finish("memif::inside_client", client);
    finish("memif::inside_server", server);
}

/// Waits until a socket takes connections, as the kernel's list tells; connecting would disturb it.
fn wait_for_listener(socket: &Path) {
    const ACCEPTS_CONNECTIONS: &str = "00010000";
    let listens = || {
        let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
        sockets.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.nth(3) == Some(ACCEPTS_CONNECTIONS)
                && words.next_back().map(Path::new) == Some(socket)
        })
    };
    for _ in 0..30_000 {
        if listens() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("nobody listens at {}", socket.display());
}

fn vdev(role: &str) -> String {
    let socket = std::env::var(SOCKET).unwrap();
    format!("net_memif0,role={role},id=0,socket={socket},socket-abstract=no")
}

/// Gives every frame back, in the mbuf it came in, until the peer has gone.
#[test]
#[ignore = "run by two_processes_exchange_frames_over_memif"]
fn inside_server() {
    let eal = eal(&[&vdev("server")]);
    let mut opened = single(&eal, &Config::default());
    let (device, port) = &mut opened[0];
    let mut last = 0;
    for _ in 0..60_000 {
        let burst = receive(port, 32);
        let Some(n) = burst.last().and_then(number) else {
            if last == COUNT - 1 && device.link() == Link::Down {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
            continue;
        };
        last = n;
        send(port, burst);
    }
    panic!("the client has not finished: last frame {last}");
}

/// Sends numbered frames one by one until each is back.
#[test]
#[ignore = "run by two_processes_exchange_frames_over_memif"]
fn inside_client() {
    let eal = eal(&[&vdev("client")]);
    let mut opened = single(&eal, &Config::default());
    let (device, port) = &mut opened[0];
    for _ in 0..30_000 {
        if matches!(device.link(), Link::Up(_)) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    for n in 0..COUNT {
        let want = frame(n, 60 + (n as usize * 17) % 1400);
        let data = want.data().to_vec();
        let mut tx = send(port, vec![want]);
        let mut back = false;
        for round in 0..30_000 {
            if tx.sent == 0 {
                // The ring is not connected yet.
                tx = send(port, vec![frame(n, data.len())]);
            }
            let burst = receive(port, 32);
            back = burst.iter().any(|f| f.data() == data);
            if back {
                break;
            }
            if round > 10 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        assert!(back, "frame {n} does not come back");
    }
    assert!(xstat(device, "rx_good_packets") >= COUNT.into());
}
