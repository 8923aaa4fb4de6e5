//! Several workers do what one does, whichever queue a packet comes in by.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dash_bench::programs::object;
use dash_bench::world::{self, Rows};
use dash_engine::Engine;
use dash_prog::{LoadOptions, Loaded};
use dash_runtime::hooks::{Attachment, Hooks, Point};
use dash_runtime::{Options, Runtime, RuntimeHandle};
use dash_wire::stats::PortStat;
use dash_wire::tables::FlowEntry;
use nic_target::{Capacity, CounterSnapshot, Frame, FramePool, Port, Rx, Target as _, Tx};

#[derive(Debug, Default)]
struct Wires {
    input: VecDeque<Vec<u8>>,
    /// Packets that left, by whichever queue.
    output: Vec<Vec<u8>>,
}

/// One queue of a port: its wires in, and wires out that all queues share.
#[derive(Debug)]
struct Queue {
    input: Arc<Mutex<Wires>>,
    output: Arc<Mutex<Wires>>,
    closed: bool,
}

impl Port for Queue {
    fn name(&self) -> &str {
        "queue"
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
        let mut wires = self.input.lock().unwrap();
        let mut received = 0;
        while received < max && !wires.input.is_empty() {
            let Some(mut frame) = pool.take() else { break };
            assert!(frame.fill(&wires.input.pop_front().unwrap()));
            frame.port = index;
            burst.push(frame);
            received += 1;
        }
        Ok(if self.closed {
            Rx::End
        } else {
            Rx::Received(received)
        })
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut wires = self.output.lock().unwrap();
        let mut tx = Tx::default();
        for frame in frames.drain(..) {
            tx.sent += 1;
            tx.octets += frame.len() as u64;
            wires.output.push(frame.data().to_vec());
            pool.give(frame);
        }
        Ok(tx)
    }
}

struct Rig {
    engine: Engine<RuntimeHandle<Queue>>,
    inputs: Vec<Arc<Mutex<Wires>>>,
    output: Arc<Mutex<Wires>>,
    fed: u64,
}

/// What a run leaves, in an order that does not depend on who did what when.
#[derive(Debug, PartialEq)]
struct Outcome {
    output: Vec<Vec<u8>>,
    counters: CounterSnapshot,
    flows: Vec<FlowEntry>,
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Rig {
    fn start(workers: usize) -> Self {
        let output: Arc<Mutex<Wires>> = Arc::default();
        let inputs: Vec<Arc<Mutex<Wires>>> = (0..workers).map(|_| Arc::default()).collect();
        let queue = |input: &Arc<Mutex<Wires>>| {
            vec![Queue {
                input: Arc::clone(input),
                output: Arc::clone(&output),
                closed: false,
            }]
        };
        let capacity = Capacity {
            flows: 4_096,
            ..Capacity::default()
        };
        let options = Options::new(dash_runtime::Engine::Native, capacity);
        let ports = inputs.iter().map(queue).collect();
        let runtime = Runtime::spawn(ports, &options).unwrap();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdicts");
        let options = dash_engine::Options {
            native: true,
            ..world::options(runtime.capacity().clone(), Some(cache))
        };
        let mut engine = Engine::new(options, Box::new(runtime)).unwrap();
        world::configure(&mut engine, &world::rows(Rows::All).unwrap()).unwrap();
        Self {
            engine,
            inputs,
            output,
            fed: 0,
        }
    }

    /// Feeds packets, the `n`th to queue `queue(n)`, and waits until all were run. No more than half
    /// a ring at a time: nothing is to be dropped here.
    fn feed(&mut self, packets: &[Vec<u8>], queue: impl Fn(usize) -> usize) {
        for (chunk, packets) in packets.chunks(256).enumerate() {
            for (n, packet) in packets.iter().enumerate() {
                let queue = queue(chunk * 256 + n) % self.inputs.len();
                let mut wires = self.inputs[queue].lock().unwrap();
                wires.input.push_back(packet.clone());
            }
            self.fed += packets.len() as u64;
            let (fed, engine) = (self.fed, &mut self.engine);
            wait("all packets are run", || {
                let stats = engine.target().worker_stats();
                let sum = |n: fn(&dash_runtime::runtime::WorkerStats) -> u64| {
                    stats.iter().map(n).sum::<u64>()
                };
                // A question is answered between two rounds: what was received is dealt with.
                sum(|w| w.packets) == fed && {
                    engine.target_mut().counters().unwrap();
                    let stats = engine.target().worker_stats();
                    let handed: u64 = stats.iter().map(|w| w.handed).sum();
                    handed == stats.iter().map(|w| w.taken).sum::<u64>()
                }
            });
        }
    }

    fn outcome(&mut self) -> Outcome {
        let mut output = self.output.lock().unwrap().output.clone();
        output.sort();
        let target = self.engine.target_mut();
        let counters = target.counters().unwrap();
        let mut flows = target.flows().unwrap();
        for flow in &mut flows {
            // Times of the clock.
            (flow.created_ns, flow.last_seen_ns) = (0, 0);
        }
        flows.sort_by_key(|flow| {
            flow.sides
                .map(|side| zerocopy::IntoBytes::as_bytes(&side.key).to_vec())
        });
        Outcome {
            output,
            counters,
            flows,
        }
    }
}

/// First packets of connections, answers, more of both, and what is dropped. In each wave a
/// connection has one packet, so that its order is that of the waves.
fn waves() -> Vec<Vec<Vec<u8>>> {
    let out = |n| world::outbound(n, world::SMALL);
    let back = |n| world::reply(n, 100);
    let mut first: Vec<_> = (0..600).map(out).collect();
    first.extend((2_000..2_100).map(|n| world::inbound(n, world::SMALL)));
    vec![
        first,
        (0..600).map(back).collect(),
        world::mix().split_off(4),
        (0..300).map(out).chain((300..600).map(back)).collect(),
    ]
}

#[test]
fn several_workers_do_what_one_does_whichever_queue_packets_come_in_by() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    let run = |workers: usize| {
        let mut rig = Rig::start(workers);
        for (n, wave) in waves().iter().enumerate() {
            // The second direction comes in by another queue than the first.
            rig.feed(wave, |at| at + n);
        }
        let stats = rig.engine.target().worker_stats();
        (rig.outcome(), stats, rig.engine.target().events())
    };
    let (one, stats, events) = run(1);
    assert_eq!(stats[0].handed + stats[0].taken, 0);
    assert_eq!(one.flows.len(), 700 + 3, "with those of the mix");
    let met = one.flows.iter().filter(|flow| flow.packets[1] > 0).count();
    assert_eq!(met, 600, "answers found their flows");
    assert_eq!(events.aborted + events.not_run, 0);
    for workers in [2, 3] {
        let (several, stats, events) = run(workers);
        assert!(
            stats.iter().all(|w| w.handed > 100 && w.taken > 100),
            "{stats:?}"
        );
        assert_eq!(events.handoff_drops + events.aborted + events.not_run, 0);
        assert_eq!(several, one, "{workers} workers");
    }
}

#[test]
fn a_full_ring_drops_and_counts_every_packet() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    let mut rig = Rig::start(2);
    // The second worker stands still in its receive while all packets come in by the first.
    let packets: Vec<_> = (0..4_000)
        .map(|n| world::outbound(n, world::SMALL))
        .collect();
    let blocked = Arc::clone(&rig.inputs[1]);
    let hold = blocked.lock().unwrap();
    rig.inputs[0].lock().unwrap().input.extend(packets);
    let target = rig.engine.target();
    wait("drops", || target.worker_stats()[0].packets == 4_000);
    wait("the first worker is done with them", || {
        let stats = target.worker_stats();
        let rounds = stats[0].idle_rounds;
        wait("another round", || {
            target.worker_stats()[0].idle_rounds > rounds
        });
        stats[0].handoff_drops > 0
    });
    let before = target.worker_stats()[0];
    drop(hold);
    wait("the rest is taken", || {
        target.worker_stats()[1].taken == target.worker_stats()[0].handed
    });
    let after = target.worker_stats()[0];
    assert_eq!(before.handoff_drops, after.handoff_drops);
    assert_eq!(target.events().handoff_drops, after.handoff_drops);
    let dropped = after.handoff_drops;
    let counters = rig.engine.target_mut().counters().unwrap();
    let port = |stat: PortStat| counters.port[stat as usize];
    assert_eq!(port(PortStat::IfInDiscards), dropped);
    assert_eq!(port(PortStat::IfInUcastPkts), 4_000);
    // Flows are as many as fit, and what was not dropped on the way was run.
    let ran = rig.output.lock().unwrap().output.len() as u64;
    let full: u64 = counters
        .eni
        .values()
        .map(|eni| eni[dash_wire::stats::EniStat::TotalDropPackets as usize])
        .sum();
    assert_eq!(ran + full + dropped, 4_000);
}

#[test]
fn deleting_an_eni_forgets_its_flows_on_every_worker() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    let mut rig = Rig::start(3);
    rig.feed(&waves()[0], |at| at);
    assert!(!rig.outcome().flows.is_empty());
    let enis: Vec<_> = rig
        .engine
        .store()
        .enis()
        .map(|(key, _)| key.clone())
        .collect();
    assert!(!enis.is_empty());
    let gone = nic_target::Update {
        generation: rig.engine.generation() + 1,
        image: None,
        delta: Arc::new(nic_target::TableDelta {
            ops: (0..enis.len() as u32)
                .map(|eni| nic_target::TableOp::Delete {
                    table: nic_target::Table::Eni,
                    key: eni.to_ne_bytes().into(),
                })
                .collect(),
        }),
    };
    // Packets are on their way meanwhile, handed over under either generation.
    for (n, packet) in waves()[1].iter().enumerate() {
        let mut wires = rig.inputs[n % 3].lock().unwrap();
        wires.input.push_back(packet.clone());
    }
    rig.engine.target_mut().apply(&gone).unwrap();
    assert_eq!(rig.engine.target_mut().flows().unwrap(), []);
    assert_eq!(rig.engine.target_mut().flows().unwrap(), []);
}

/// Programs of users: what a packet does there is done once, on whichever worker, and values per CPU are the
/// worker's.
#[test]
fn a_program_sees_every_packet_once_whichever_worker_runs_it() {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        eprintln!("SKIP: there is no native code for this processor");
        return;
    }
    const WORKERS: usize = 3;
    let Some(elf) = object("proto_count").unwrap() else {
        return;
    };
    let mut rig = Rig::start(WORKERS);
    let (key, _) = rig.engine.store().enis().next().unwrap();
    let eni = rig.engine.eni_index(key).unwrap();
    rig.engine.set_hooks(true).unwrap();
    let points = [Point::Ingress(0), Point::EniOutbound(eni), Point::Egress(0)];
    let mut all = Vec::new();
    let mut counted = Vec::new();
    for point in points {
        // An object each, so that they count apart.
        let options = LoadOptions {
            cpus: WORKERS as u32,
            ..LoadOptions::default()
        };
        let loaded = Loaded::from_elf(&[&elf], &options).unwrap();
        let link = dash_prog::hook::link(&loaded.first().unwrap(), WORKERS as u32).unwrap();
        counted.push(loaded.maps().get("protocols").unwrap().clone());
        all.push(Attachment {
            point,
            sequence: 0,
            link: Arc::new(link),
        });
    }
    rig.engine.target_mut().set_hooks(Hooks::new(&all)).unwrap();
    let packets: Vec<_> = (0..600).map(|n| world::outbound(n, world::SMALL)).collect();
    rig.feed(&packets, |n| n);
    wait("all have left", || {
        rig.output.lock().unwrap().output.len() == packets.len()
    });
    for (at, map) in all.iter().zip(&counted) {
        assert_eq!(
            at.link.stats().verdicts,
            [0, 0, 600, 0, 0],
            "{:?}",
            at.point
        );
        // Everything is UDP, outside and inside.
        let values = map.lookup(&17u32.to_ne_bytes()).unwrap().unwrap();
        let packets = values
            .chunks(16)
            .map(|value| value[..8].try_into().unwrap());
        let packets: Vec<u64> = packets.map(u64::from_ne_bytes).collect();
        assert_eq!(packets.iter().sum::<u64>(), 600, "{:?}", at.point);
        match at.point {
            // On the flow's worker.
            Point::Egress(_) => assert!(packets.iter().all(|n| *n > 100), "{packets:?}"),
            // On the one that received it.
            _ => assert_eq!(packets, [200; WORKERS], "{:?}", at.point),
        }
    }
}
