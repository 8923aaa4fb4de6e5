//! The worker loop over ports that are queues.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dash_bpf::Size;
use dash_bpf::builder::{R0, R1, R2};
use dash_bpf::helper::{self, xdp_md};
use dash_runtime::{Engine, Options, Runtime, RuntimeHandle};
use dash_wire::stats::{EniStat, PortStat};
use nic_target::{CounterSnapshot, Frame, FramePool, Port, Rx, Target, Tx};

use crate::support::*;

pub(crate) type Packet = (u64, Vec<u8>);

#[derive(Debug, Default)]
struct Wires {
    /// Waiting to be received.
    input: VecDeque<Packet>,
    /// Sent.
    output: Vec<Packet>,
    /// No more input will come.
    closed: bool,
}

/// A port whose wires the test holds.
#[derive(Debug)]
pub(crate) struct TestPort {
    wires: Arc<Mutex<Wires>>,
    virtual_time: bool,
    /// Frames a send takes before it drops.
    room: usize,
}

impl Port for TestPort {
    fn name(&self) -> &str {
        "test"
    }
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        let mut wires = self.wires.lock().unwrap();
        let mut received = 0;
        while received < max && !wires.input.is_empty() {
            let Some(mut frame) = pool.take() else { break };
            let (timestamp, data) = wires.input.pop_front().unwrap();
            assert!(frame.fill(&data));
            (frame.port, frame.timestamp_ns) = (index, timestamp);
            burst.push(frame);
            received += 1;
        }
        let ended = received == 0 && wires.closed && wires.input.is_empty();
        Ok(if ended {
            Rx::End
        } else {
            Rx::Received(received)
        })
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut tx = Tx::default();
        let mut wires = self.wires.lock().unwrap();
        for frame in frames.drain(..) {
            if wires.output.len() < self.room {
                wires
                    .output
                    .push((frame.timestamp_ns, frame.data().to_vec()));
                tx.sent += 1;
                tx.octets += frame.len() as u64;
            } else {
                tx.dropped += 1;
            }
            pool.give(frame);
        }
        Ok(tx)
    }
    fn idle(&mut self) {
        std::thread::yield_now();
    }
    fn virtual_time(&self) -> bool {
        self.virtual_time
    }
}

pub(crate) struct Bench {
    pub(crate) runtime: RuntimeHandle<TestPort>,
    wires: Vec<Arc<Mutex<Wires>>>,
}

pub(crate) fn bench(ports: usize, virtual_time: bool, room: usize) -> Bench {
    let wires: Vec<Arc<Mutex<Wires>>> = (0..ports).map(|_| Arc::default()).collect();
    let port = |wires: &Arc<Mutex<Wires>>| TestPort {
        wires: Arc::clone(wires),
        virtual_time,
        room,
    };
    let ports = wires.iter().map(port).collect();
    Bench {
        runtime: Runtime::spawn(vec![ports], &Options::new(Engine::Interp, capacity())).unwrap(),
        wires,
    }
}

/// Waits for what another thread does; the limit only ends a test that has failed.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Bench {
    pub(crate) fn feed(&self, port: usize, packets: impl IntoIterator<Item = Packet>) {
        self.wires[port].lock().unwrap().input.extend(packets);
    }
    pub(crate) fn close(&self) {
        self.wires
            .iter()
            .for_each(|w| w.lock().unwrap().closed = true);
    }
    pub(crate) fn sent(&self, port: usize) -> Vec<Packet> {
        self.wires[port].lock().unwrap().output.clone()
    }
}

pub(crate) fn packet(dst: [u8; 4], flow: u16, timestamp: u64) -> Packet {
    (timestamp, frame(dst, flow, timestamp).data().to_vec())
}

pub(crate) fn port(counters: &CounterSnapshot, stat: PortStat) -> u64 {
    counters.port[stat as usize]
}

#[test]
fn a_capture_runs_to_its_end_on_its_own_clock() {
    let mut bench = bench(2, true, usize::MAX);
    bench
        .runtime
        .apply(&update(1, Some(small_pipeline()), rows()))
        .unwrap();
    let second = 1_000_000_000;
    // Both ports bring frames that belong between each other's; flow 1 of second 0 is gone at 1.
    bench.feed(
        0,
        (0..100).map(|n| packet([10, 0, 0, 1], 1, n * 2 * second)),
    );
    bench.feed(
        1,
        (0..100).map(|n| packet([10, 0, 0, 1], 2, (n * 2 + 1) * second)),
    );
    bench.close();
    wait("the end", || bench.runtime.finished());

    let sent = bench.sent(1);
    let times: Vec<u64> = sent.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, (0..200).map(|n| n * second).collect::<Vec<_>>());
    assert!(bench.sent(0).is_empty());
    let counters = bench.runtime.counters().unwrap();
    assert_eq!(counters.eni[&ENI][EniStat::RxPackets as usize], 200);
    assert_eq!(counters.eni[&ENI][EniStat::FlowAged as usize], 199);
    assert_eq!(port(&counters, PortStat::IfInUcastPkts), 200);
    assert_eq!(port(&counters, PortStat::IfInOctets), 200 * 64);
    assert_eq!(port(&counters, PortStat::IfOutUcastPkts), 200);
    assert_eq!(port(&counters, PortStat::IfOutOctets), 200 * 72);
    let flows = bench.runtime.flows().unwrap();
    assert_eq!(bench.runtime.flow_count().unwrap(), flows.len());
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].created_ns, 199 * second);
    let ports = bench.runtime.stop().unwrap();
    assert_eq!(ports.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_live_clock_expires_flows_without_traffic() {
    let mut bench = bench(2, false, usize::MAX);
    bench
        .runtime
        .apply(&update(1, Some(small_pipeline()), rows()))
        .unwrap();
    bench.feed(0, [packet([10, 0, 0, 1], 1, 0)]);
    wait("the packet", || bench.sent(1).len() == 1);
    wait("its flow's end", || {
        bench.runtime.flows().unwrap().is_empty()
    });
    let counters = bench.runtime.counters().unwrap();
    assert_eq!(counters.eni[&ENI][EniStat::FlowAged as usize], 1);
}

#[test]
fn frames_without_code_or_port_and_those_a_port_drops_are_counted() {
    let mut bench = bench(2, true, 5);
    bench.feed(0, (0..3).map(|n| packet([10, 0, 0, 1], 1, n)));
    wait("three drops", || {
        port(&bench.runtime.counters().unwrap(), PortStat::IfInDiscards) == 3
    });

    bench
        .runtime
        .apply(&update(1, Some(small_pipeline()), rows()))
        .unwrap();
    bench.feed(0, (0..8).map(|n| packet([10, 0, 0, 1], 1, n)));
    wait("eight frames", || {
        let counters = bench.runtime.counters().unwrap();
        port(&counters, PortStat::IfOutUcastPkts) + port(&counters, PortStat::IfOutDiscards) == 8
    });
    let counters = bench.runtime.counters().unwrap();
    assert_eq!(port(&counters, PortStat::IfOutUcastPkts), 5);
    assert_eq!(bench.sent(1).len(), 5);

    // A redirect to port 9, which is not there.
    let nowhere = single(|b| {
        b.mov(R1, 9);
        b.mov(R2, 0);
        b.call(helper::REDIRECT);
    });
    bench
        .runtime
        .apply(&update(2, Some(nowhere), vec![]))
        .unwrap();
    bench.feed(0, [packet([10, 0, 0, 1], 1, 9)]);
    wait("the last frame", || {
        port(&bench.runtime.counters().unwrap(), PortStat::IfOutDiscards) == 3 + 1
    });
}

#[test]
fn passed_packets_reach_control_and_its_packets_the_wire() {
    let mut bench = bench(2, true, usize::MAX);
    let pass = single(|b| b.mov(R0, 2));
    bench.runtime.apply(&update(1, Some(pass), vec![])).unwrap();
    // More than the pool has frames: they must come back from control.
    for round in 0..20u64 {
        bench.feed(1, (0..100).map(|n| (round * 100 + n, vec![n as u8; 60])));
        for n in 0..100 {
            let mut punt = None;
            wait("a punt", || {
                punt = bench.runtime.punted();
                punt.is_some()
            });
            let punt = punt.unwrap();
            assert_eq!(
                (punt.port, punt.timestamp_ns, &punt.data[..]),
                (1, round * 100 + n, &[n as u8; 60][..])
            );
        }
    }
    for n in 0..100u8 {
        wait("room", || bench.runtime.inject(0, &[n; 42]));
    }
    wait("the injected", || bench.sent(0).len() == 100);
    assert!(
        bench
            .sent(0)
            .iter()
            .zip(0..)
            .all(|((_, data), n): (&Packet, u8)| *data == [n; 42])
    );
    assert!(
        !bench.runtime.inject(0, &[0; 20_000]),
        "longer than any frame"
    );
    assert_eq!(bench.runtime.events().punts_dropped, 0);
}

#[test]
fn a_full_punt_ring_drops_and_counts_and_traffic_goes_on() {
    let mut bench = bench(2, true, usize::MAX);
    // Sends what begins with 1, passes the rest.
    let sort = single(|b| {
        let send = b.label();
        b.load(Size::W, R2, R1, xdp_md::DATA);
        b.load(Size::B, R2, R2, 0);
        b.mov(R0, 3);
        b.jump_if(dash_bpf::op::Cond::Eq, R2, 1, send);
        b.mov(R0, 2);
        b.bind(send);
    });
    bench.runtime.apply(&update(1, Some(sort), vec![])).unwrap();
    bench.feed(0, (0..5000).map(|n| (n, vec![0; 60])));
    bench.feed(0, [(5000, vec![1; 60])]);
    wait("the frame behind them", || bench.sent(0).len() == 1);
    let mut punted = 0;
    while bench.runtime.punted().is_some() {
        punted += 1;
    }
    assert!(punted > 0);
    assert_eq!(punted + bench.runtime.events().punts_dropped, 5000);
}

#[test]
fn updates_under_traffic_lose_nothing() {
    let mut bench = bench(2, true, usize::MAX);
    bench
        .runtime
        .apply(&update(1, Some(small_pipeline()), rows()))
        .unwrap();
    for n in 0..200u32 {
        bench.feed(0, (0..10).map(|_| packet([10, 1, 2, 3], 1, 0)));
        let ops = vec![route(24, [10, 1, 2, 0], n), route(8, [10, 0, 0, 0], n)];
        bench
            .runtime
            .apply(&update(u64::from(n) + 2, None, ops))
            .unwrap();
    }
    bench.close();
    wait("the end", || bench.runtime.finished());
    let vni = |data: &[u8]| u32::from_be_bytes(data[..4].try_into().unwrap());
    let vnis: Vec<u32> = bench.sent(1).iter().map(|(_, data)| vni(data)).collect();
    assert_eq!(vnis.len(), 2000);
    // The first rows say 0xbb; after that every packet has the row of one update, never an older one.
    let seen: Vec<u32> = vnis.into_iter().skip_while(|&v| v == 0xbb).collect();
    assert!(seen.is_sorted(), "{seen:?}");
}

fn port_of(wires: &Arc<Mutex<Wires>>, virtual_time: bool) -> TestPort {
    TestPort {
        wires: Arc::clone(wires),
        virtual_time,
        room: usize::MAX,
    }
}

#[test]
fn what_cannot_be_started_is_refused_with_why() {
    let spawn = |ports: &[usize], virtual_time, options: &Options| {
        let wires = Arc::default();
        let port = |_| port_of(&wires, virtual_time);
        let ports = ports.iter().map(|&n| (0..n).map(port).collect());
        Runtime::spawn(ports.collect(), options).map(|runtime| runtime.workers())
    };
    let native = Options::new(Engine::Native, capacity());
    let refused = |ports: &[usize], virtual_time, options: &Options| {
        spawn(ports, virtual_time, options).unwrap_err().to_string()
    };
    assert_eq!(spawn(&[2, 2], false, &native).unwrap(), 2);
    assert_eq!(
        refused(&[], false, &native),
        "no workers: ports come by worker, and there are none"
    );
    assert_eq!(
        refused(&[2, 2, 1], false, &native),
        "worker 2 has 1 port(s), and worker 0 has 2"
    );
    assert_eq!(
        refused(&[1, 1], true, &native),
        "port test has a clock of its own, and only one worker can keep its order, not 2"
    );
    let interp = Options::new(Engine::Interp, capacity());
    assert_eq!(
        refused(&[1, 1], false, &interp),
        "interp runs on one worker only, not on 2: its packets are not handed over"
    );

    let allowed = dash_runtime::runtime::affinity::allowed().unwrap();
    let pinned = |cores: &str| Options {
        cores: Some(cores.parse().unwrap()),
        ..native.clone()
    };
    assert_eq!(
        refused(&[1], false, &pinned("0-1")),
        "2 core(s) are named for 1 worker(s)"
    );
    assert_eq!(
        refused(&[1], false, &pinned("1023")),
        format!("core 1023 is not this process's to run on; its cores are {allowed}")
    );
    let core = allowed.as_slice()[0].to_string();
    assert_eq!(spawn(&[1], false, &pinned(&core)).unwrap(), 1);
}

/// A port that does what no port should.
#[derive(Debug)]
struct Bad {
    start_fails: bool,
    /// Receives block while this is set.
    blocks: Arc<std::sync::atomic::AtomicBool>,
    fails: bool,
}

impl Port for Bad {
    fn name(&self) -> &str {
        "bad"
    }
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn rx(&mut self, _: u16, _: &mut FramePool, _: &mut Vec<Frame>, _: usize) -> io::Result<Rx> {
        while self.blocks.load(std::sync::atomic::Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.fails {
            return Err(io::Error::other("the wire burns"));
        }
        Ok(Rx::Received(0))
    }
    fn tx(&mut self, _: &mut FramePool, _: &mut Vec<Frame>) -> io::Result<Tx> {
        Err(io::Error::other("the wire burns"))
    }
    fn start(&mut self) -> io::Result<()> {
        if self.start_fails {
            return Err(io::Error::other("no memory on this node"));
        }
        Ok(())
    }
}

fn bad(change: impl FnOnce(&mut Bad)) -> Bad {
    let mut port = Bad {
        start_fails: false,
        blocks: Arc::default(),
        fails: false,
    };
    change(&mut port);
    port
}

#[test]
fn a_port_that_does_not_start_is_named_and_the_other_workers_end() {
    let ports = vec![vec![bad(|_| {})], vec![bad(|port| port.start_fails = true)]];
    let refused = Runtime::spawn(ports, &Options::new(Engine::Native, capacity()));
    assert_eq!(
        refused.err().unwrap().to_string(),
        "worker 1: starting port bad: no memory on this node"
    );
}

#[test]
fn a_port_that_fails_forever_is_counted_and_control_goes_on() {
    let ports = vec![vec![bad(|port| port.fails = true)]];
    let mut runtime = Runtime::spawn(ports, &Options::new(Engine::Interp, capacity())).unwrap();
    runtime
        .apply(&update(1, Some(small_pipeline()), rows()))
        .unwrap();
    wait("failed receives", || runtime.events().port_errors > 10);
    // And sends: what a port did not take is a discard.
    let before = runtime.events().port_errors;
    assert!(runtime.inject(0, &[1; 60]));
    wait("the discard", || {
        port(&runtime.counters().unwrap(), PortStat::IfOutDiscards) == 1
    });
    assert!(runtime.events().port_errors > before);
    assert!(!runtime.finished());
}

#[test]
fn a_worker_that_stands_still_is_told_once_and_does_not_hold_control() {
    use dash_runtime::runtime::Change;
    use nic_target::TargetError;
    use std::sync::atomic::{AtomicBool, Ordering};
    let blocks = Arc::new(AtomicBool::new(false));
    let port = bad(|port| port.blocks = Arc::clone(&blocks));
    let options = Options {
        // Questions are given up after four times as long.
        watchdog: Duration::from_millis(250),
        ..Options::new(Engine::Interp, capacity())
    };
    let mut runtime = Runtime::spawn(vec![vec![port]], &options).unwrap();
    runtime
        .apply(&update(1, Some(small_pipeline()), rows()))
        .unwrap();
    blocks.store(true, Ordering::Release);
    let mut told = Vec::new();
    wait("the silence", || {
        told.extend(runtime.watch());
        runtime.stuck() == [0]
    });
    let silent = |change: &Change| matches!(change, Change::Silent { worker: 0, .. });
    assert!(told.last().is_some_and(silent), "{told:?}");
    assert_eq!(runtime.watch(), [], "once");

    let refused = runtime.counters().unwrap_err();
    assert!(matches!(refused, TargetError::Stuck { worker: 0, .. }));
    // Deleting an ENI holds, and the next update waits until its flows are gone.
    let gone = vec![nic_target::TableOp::Delete {
        table: nic_target::Table::Eni,
        key: ENI.to_ne_bytes().into(),
    }];
    runtime.apply(&update(2, None, gone)).unwrap();
    let refused = runtime.apply(&update(3, None, rows())).unwrap_err();
    assert!(matches!(refused, TargetError::Stuck { worker: 0, .. }));

    blocks.store(false, Ordering::Release);
    let mut told = Vec::new();
    wait("the worker", || {
        told.extend(runtime.watch());
        runtime.stuck().is_empty()
    });
    assert_eq!(told.first(), Some(&Change::Back { worker: 0 }));
    // Answers to what was given up are not taken for answers to this.
    runtime.apply(&update(3, None, rows())).unwrap();
    assert!(runtime.flows().unwrap().is_empty());
    assert_eq!(runtime.worker_stats().len(), 1);
    assert_eq!(runtime.stop().unwrap().len(), 1);
}
