//! Workers over queues that a test feeds.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dash_bench::world::{self, Rows};
use dash_engine::Engine;
use dash_pipeline::plan::Settings;
use dash_proto::load_config;
use dash_runtime::{Options, Runtime, RuntimeHandle};
use dash_wire::stats::EniStat;
use dash_wire::tables::FlowEntry;
use nic_target::{Capacity, CounterSnapshot, Frame, FramePool, Port, Rx, Target as _, Tx};

/// There is native code for this processor; says so when there is none.
pub(crate) fn native_code() -> bool {
    let there = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));
    if !there {
        eprintln!("SKIP: there is no native code for this processor");
    }
    there
}

#[derive(Debug, Default)]
pub(crate) struct Wires {
    pub(crate) input: VecDeque<Vec<u8>>,
    /// Packets that left, by whichever queue.
    pub(crate) output: Vec<Vec<u8>>,
}

/// One queue of a port: its wires in, and wires out that all queues share.
#[derive(Debug)]
pub(crate) struct Queue {
    input: Arc<Mutex<Wires>>,
    output: Arc<Mutex<Wires>>,
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
        Ok(Rx::Received(received))
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

pub(crate) struct Rig {
    pub(crate) engine: Engine<RuntimeHandle<Queue>>,
    pub(crate) inputs: Vec<Arc<Mutex<Wires>>>,
    pub(crate) output: Arc<Mutex<Wires>>,
    fed: u64,
}

/// What a run leaves, in an order that does not depend on who did what when.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) output: Vec<Vec<u8>>,
    pub(crate) counters: CounterSnapshot,
    pub(crate) flows: Vec<FlowEntry>,
}

/// Waits for what another thread does; the limit only ends a test that has failed.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Rig {
    /// So many workers, with the rows of the demo.
    pub(crate) fn start(workers: usize) -> Self {
        Self::with(workers, Settings::default(), "[]")
    }

    /// The same with settings, and rows that come after those of the demo.
    pub(crate) fn with(workers: usize, settings: Settings, more: &str) -> Self {
        let output: Arc<Mutex<Wires>> = Arc::default();
        let inputs: Vec<Arc<Mutex<Wires>>> = (0..workers).map(|_| Arc::default()).collect();
        let queue = |input: &Arc<Mutex<Wires>>| {
            vec![Queue {
                input: Arc::clone(input),
                output: Arc::clone(&output),
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
            settings: Settings {
                workers: workers as u16,
                ..settings
            },
            ..world::options(runtime.capacity().clone(), Some(cache))
        };
        let mut engine = Engine::new(options, Box::new(runtime)).unwrap();
        world::configure(&mut engine, &world::rows(Rows::All).unwrap()).unwrap();
        world::configure(&mut engine, &load_config(more).unwrap()).unwrap();
        Self {
            engine,
            inputs,
            output,
            fed: 0,
        }
    }

    /// Feeds packets, the `n`th to queue `queue(n)`, and waits until all were run. No more than half
    /// a ring at a time: nothing is to be dropped here.
    pub(crate) fn feed(&mut self, packets: &[Vec<u8>], queue: impl Fn(usize) -> usize) {
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

    /// A counter of all ENIs together.
    pub(crate) fn eni(&mut self, stat: EniStat) -> u64 {
        let counters = self.engine.target_mut().counters().unwrap();
        counters.eni.values().map(|eni| eni[stat as usize]).sum()
    }

    pub(crate) fn outcome(&mut self) -> Outcome {
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
