//! The programs we ship (`offload/prog/programs`), built by clang: at a hook on every engine, and attached to the
//! kernel on veth, the same packets come out and the same is in the maps.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers stop at the first surprise, with its line"
)]

#[path = "programs/scenarios.rs"]
mod scenarios;

use std::path::Path;
use std::sync::{Arc, Mutex};

use dash_bench::programs::object;
use dash_bench::world::{self, Rows};
use dash_bpf::helper::XdpAction;
use dash_bpf::{MapKind, Object, Program, assemble, elf};
use dash_engine::Engine as Control;
use dash_prog::{Engine, LoadOptions, Loaded};
use dash_runtime::hooks::{Attachment, HookPacket, HookVerdict, Hooks, Link, PacketRunner, Point};
use dash_runtime::{Core, Engine as Executor};
use dash_wire::hook::{DashMeta, NO_ENI, Place};
use nic_linux::sys::netdev;
use nic_linux::{AfPacketPort, AttachMode, Attached};
use nic_target::{Capacity, Frame, PacketEngine, Port as _, Verdict};

use netns::{in_namespace, ip};
use scenarios::{Elements, Fate, Stage, words};
use traffic::{receive_until, send, warm_up};

#[path = "../../nic-targets/linux/tests/support/netns.rs"]
mod netns;
#[expect(dead_code, reason = "shared with tests that use all of it")]
#[path = "../../nic-targets/linux/tests/support/traffic.rs"]
mod traffic;

/// Remembers packets that come to it, and drops them.
#[derive(Debug)]
struct Sink(Arc<Mutex<Vec<Vec<u8>>>>);

impl PacketRunner for Sink {
    fn run(&mut self, packet: &mut HookPacket<'_>, _: &DashMeta) -> HookVerdict {
        let data = packet.memory[packet.data..packet.end].to_vec();
        self.0.lock().unwrap().push(data);
        HookVerdict {
            action: XdpAction::Drop,
            port: None,
            out_of_fuel: false,
        }
    }
}

/// A core with the demo's pipeline.
fn core() -> Control<Core> {
    let capacity = Capacity {
        flows: 64,
        ..Capacity::default()
    };
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verdicts");
    let core = Core::new(Executor::Interp, &capacity).unwrap();
    let options = dash_engine::Options {
        native: false,
        ..world::options(capacity, Some(cache))
    };
    let mut engine = Control::new(options, Box::new(core)).unwrap();
    world::configure(&mut engine, &world::rows(Rows::All).unwrap()).unwrap();
    engine
}

/// Sums values per CPU, and leaves zeros out.
fn summed(
    kind: MapKind,
    value_size: usize,
    all: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
) -> Elements {
    let per_cpu = matches!(
        kind,
        MapKind::PercpuArray | MapKind::PercpuHash | MapKind::LruPercpuHash
    );
    let sum = |value: Vec<u8>| {
        if !per_cpu {
            return value;
        }
        let stride = value_size.next_multiple_of(8);
        let mut sums = vec![0u64; stride / 8];
        for cpu in value.chunks_exact(stride) {
            for (sum, word) in sums.iter_mut().zip(cpu.chunks_exact(8)) {
                *sum += u64::from_ne_bytes(word.try_into().unwrap());
            }
        }
        words(&sums)
    };
    let all = all.map(|(key, value)| (key, sum(value)));
    all.filter(|(_, value)| value.iter().any(|b| *b != 0))
        .collect()
}

#[test]
fn a_run_that_takes_too_long_is_aborted_and_counted_as_that() {
    let mut engine = core();
    let text = "r1 = 0\nagain:\nr1 += 1\nif r1 < 1000 goto again\nr0 = 2\nexit";
    let looping = Object {
        programs: vec![Program {
            insns: assemble(text).unwrap(),
            ..Program::default()
        }],
        ..Object::default()
    };
    for of in Engine::ALL {
        for (fuel, spent) in [(Some(100), 1), (Some(10_000), 0), (None, 0)] {
            let options = LoadOptions {
                engine: of,
                fuel,
                ..LoadOptions::default()
            };
            let loaded = Loaded::from_object(looping.clone(), &options).unwrap();
            let program = loaded.first().unwrap();
            let link = Arc::new(dash_prog::hook::link(&program, 1).unwrap());
            engine.target_mut().set_hooks(Hooks::new(&[Attachment {
                point: Point::Ingress(0),
                sequence: 0,
                link: Arc::clone(&link),
            }]));
            let mut frame = Frame::new();
            assert!(frame.fill(&world::outbound(0, world::SMALL)));
            let verdict = engine.target_mut().run(&mut frame).unwrap();
            let expected = if spent == 1 {
                Verdict::Drop
            } else {
                Verdict::Send(0)
            };
            assert_eq!(verdict, expected, "{of}, {fuel:?}");
            let stats = link.stats();
            assert_eq!(stats.out_of_fuel, spent, "{of}, {fuel:?}");
            assert_eq!(stats.verdicts[XdpAction::Aborted as usize], spent);
            assert_eq!(stats.packets(), 1);
        }
    }
}

#[test]
fn shipped_programs_do_their_scenarios_at_a_hook() {
    let mut engine = core();
    let stage = Stage {
        ports: [0, 1],
        eni: NO_ENI,
        place: Place::Ingress as u32,
    };
    let passed: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    for scenario in scenarios::all(stage) {
        let name = scenario.name;
        let Some(elf) = object(name).unwrap() else {
            return;
        };
        for of in Engine::ALL {
            if of == Engine::Native && !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
                eprintln!("SKIP: there is no native code for this processor");
                continue;
            }
            let options = LoadOptions {
                engine: of,
                ..LoadOptions::default()
            };
            let loaded =
                Loaded::from_elf(&[&elf], &options).unwrap_or_else(|e| panic!("{name}: {e}"));
            let map = |name: &str| loaded.maps().get(name).unwrap();
            for (to, key, value) in &scenario.setup {
                map(to).update(key, value, 0).unwrap();
            }
            let program = loaded.first().unwrap();
            let link = Arc::new(dash_prog::hook::link(&program, 1).unwrap());
            let sink = Arc::new(Link::new(vec![Box::new(Sink(Arc::clone(&passed)))]));
            let at = |link: &Arc<Link>, sequence| Attachment {
                point: Point::Ingress(0),
                sequence,
                link: Arc::clone(link),
            };
            let hooks = Hooks::new(&[at(&link, 0), at(&sink, 1)]);
            engine.target_mut().set_hooks(hooks);
            let mut said = link.stats().verdicts;
            for (n, (packet, fate)) in scenario.packets.iter().enumerate() {
                let mut frame = Frame::new();
                assert!(frame.fill(packet));
                frame.timestamp_ns = 1 + n as u64;
                let verdict = engine.target_mut().run(&mut frame).unwrap();
                let data = frame.data().to_vec();
                let went_on = passed.lock().unwrap().pop();
                let got = match (verdict, went_on) {
                    (Verdict::Drop, None) => Fate::Dropped,
                    (Verdict::Drop, Some(data)) => Fate::Passed(data),
                    (Verdict::Send(0), None) => Fate::SentBack(data),
                    (Verdict::Send(1), None) => Fate::Redirected(data),
                    other => panic!("{name}: packet {n}: {other:?}"),
                };
                assert_eq!(got, *fate, "{name}, {of}: packet {n}");
                let action = match fate {
                    Fate::Dropped => XdpAction::Drop,
                    Fate::Passed(_) => XdpAction::Pass,
                    Fate::SentBack(_) => XdpAction::Tx,
                    Fate::Redirected(_) => XdpAction::Redirect,
                };
                said[action as usize] += 1;
                assert_eq!(link.stats().verdicts, said, "{name}, {of}: packet {n}");
            }
            for (of_map, expected) in &scenario.maps {
                let def = map(of_map).def().clone();
                let all = map(of_map).dump().into_iter().map(|e| (e.key, e.value));
                let got = summed(def.kind, def.value_size as usize, all);
                assert_eq!(got, *expected, "{name}, {of}: map {of_map}");
            }
            let rings = loaded.maps().iter();
            let ring = rings.clone().find(|map| map.def().kind == MapKind::RingBuf);
            let next = || ring.and_then(|ring| ring.pop().unwrap());
            let records: Vec<Vec<u8>> = std::iter::from_fn(next).collect();
            assert_eq!(records, scenario.records, "{name}, {of}");
        }
    }
}

/// The virtual clock goes on: buckets fill as their rates say.
#[test]
fn ddos_guard_lets_so_many_pass_a_second() {
    let Some(elf) = object("ddos_guard").unwrap() else {
        return;
    };
    let loaded = Loaded::from_elf(&[&elf], &LoadOptions::default()).unwrap();
    let limits: Vec<u8> = [1_000u32, 10, 0, 0, 0, 0]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .collect();
    let map = loaded.maps().get("limits").unwrap();
    map.update(&[0; 4], &limits, 0).unwrap();
    let link = Arc::new(dash_prog::hook::link(&loaded.first().unwrap(), 1).unwrap());
    let mut engine = core();
    engine.target_mut().set_hooks(Hooks::new(&[Attachment {
        point: Point::Ingress(0),
        sequence: 0,
        link: Arc::clone(&link),
    }]));
    let mut passed = |from_ns: u64, packets: u64, gap_ns: u64| {
        let before = link.stats().verdicts[XdpAction::Pass as usize];
        for n in 0..packets {
            let mut frame = Frame::new();
            assert!(frame.fill(&world::outbound(0, world::SMALL)));
            frame.timestamp_ns = from_ns + n * gap_ns;
            engine.target_mut().run(&mut frame).unwrap();
        }
        link.stats().verdicts[XdpAction::Pass as usize] - before
    };
    const SECOND: u64 = 1_000_000_000;
    // Ten at once and a thousand more in the second of 4,000 packets.
    assert_eq!(passed(SECOND, 4_000, SECOND / 4_000), 1_009);
    // Slower than the limit: all.
    assert_eq!(passed(3 * SECOND, 500, SECOND / 500), 500);
    // After an hour the bucket holds what it holds at most.
    assert_eq!(passed(3_600 * SECOND, 100, 0), 10);
}

#[test]
fn shipped_programs_do_their_scenarios_attached_to_the_kernel() {
    if let Some(why) = nic_linux::KernelEngine::unavailable() {
        eprintln!("SKIP: no programs into the kernel: {why}");
        return;
    }
    if object("proto_count").unwrap().is_none() {
        return;
    }
    in_namespace("inside_shipped_programs");
}

#[test]
#[ignore = "run in its own namespace by shipped_programs_do_their_scenarios_attached_to_the_kernel"]
fn inside_shipped_programs() {
    netns::enter();
    // Packets come in at `outer0`; the program is on `port0`, in front of the stack.
    for n in 0..2 {
        ip(&format!("link add port{n} type veth peer name outer{n}"));
        ip(&format!("link set port{n} up"));
        ip(&format!("link set outer{n} up"));
    }
    let open = |name: &str| AfPacketPort::open(name).unwrap();
    let (mut stack, mut outer, mut other) = (open("port0"), open("outer0"), open("outer1"));
    let mut second = open("port1");
    warm_up(&mut outer, &mut stack);
    warm_up(&mut stack, &mut outer);
    warm_up(&mut second, &mut other);
    let index = |name: &str| netdev::device(name).unwrap().index;
    let stage = Stage {
        ports: [index("port0"), index("port1")],
        eni: 0,
        place: 0,
    };
    for scenario in scenarios::all(stage) {
        let name = scenario.name;
        let elf = object(name).unwrap().unwrap();
        let object = elf::link(&[&elf]).unwrap();
        let purpose = nic_linux::loader::Purpose::Live { pass: None };
        let loaded = nic_linux::loader::Loaded::load(&object, |_| None, purpose)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let number = |name: &str| {
            let place = object.maps.iter().position(|map| map.name == name);
            place.unwrap() as u32
        };
        for (to, key, value) in &scenario.setup {
            let map = loaded.map(number(to)).unwrap();
            map.update(key, value).unwrap();
        }
        let attached = Attached::attach(loaded.entry().unwrap(), "port0", AttachMode::Skb).unwrap();
        for (n, (packet, fate)) in scenario.packets.iter().enumerate() {
            send(&mut outer, [packet]);
            let (port, expected): (&mut AfPacketPort, _) = match fate {
                // What is sent behind it comes first, so this one did not.
                Fate::Dropped => continue,
                Fate::Passed(data) => (&mut stack, data),
                Fate::SentBack(data) => (&mut outer, data),
                Fate::Redirected(data) => (&mut other, data),
            };
            let got = receive_until(port, |got, _| !got.is_empty());
            assert_eq!(
                got.as_slice(),
                std::slice::from_ref(expected),
                "{name}: packet {n} in the kernel"
            );
        }
        drop(attached);
        for (of, expected) in &scenario.maps {
            let def = &object.maps[number(of) as usize];
            let map = loaded.map(number(of)).unwrap();
            let (mut all, mut key) = (Vec::new(), None::<Vec<u8>>);
            let mut next = Vec::new();
            while map.next_key(key.as_deref(), &mut next).unwrap() {
                let mut value = Vec::new();
                assert!(map.lookup(&next, &mut value).unwrap());
                all.push((next.clone(), value));
                key = Some(next.clone());
            }
            let got = summed(def.kind, def.value_size as usize, all.into_iter());
            assert_eq!(got, *expected, "{name}: map {of} in the kernel");
        }
    }
    assert_eq!(stack.name(), "port0");
}
