//! What the programs we ship cost a packet: machine instructions, by single steps, exact under any load. The packet
//! is one of a flow that the program knows; engine native, index masking on.

#![forbid(unsafe_code)]

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use dash_bench::programs::{ALL, object};
use dash_bench::{step, world};
use dash_bpf::helper::XdpAction;
use dash_bpf::{Object, Program, assemble};
use dash_prog::{Ingress, LoadOptions, Loaded, Packet, hook};
use dash_runtime::hooks::{Attachment, Hooks, Point};
use dash_runtime::{Core, Engine as Executor};
use nic_sim::Packet as Layers;
use nic_target::{Capacity, Frame, PacketEngine};

/// Runs before the one that is counted: caches of maps are warm, flows and sources known.
const WARM: u64 = 50;

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CARD: [u8; 6] = [2, 0, 0, 0, 0, 2];
const VIP: [u8; 4] = [10, 0, 0, 80];

fn main() -> Result<()> {
    around()?;
    println!(
        "\n{:<16} {:>6} {:>9} {:>9}  verdict",
        "program", "eBPF", "compiled", "all"
    );
    for name in ALL {
        let Some(elf) = object(name)? else {
            return Ok(());
        };
        let loaded = Loaded::from_elf(&[&elf], &LoadOptions::default())?;
        for (map, key, value) in setup(name) {
            let map = loaded.maps().get(map).context("a map")?;
            map.update(&key, &value, 0)?;
        }
        let (compiled, all, action) = count(&loaded)?;
        let slots = loaded.first().context("a program")?.instructions();
        println!("{name:<16} {slots:>6} {compiled:>9} {all:>9}  {action:?}");
    }
    Ok(())
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_ne_bytes()).collect()
}

/// What control would put into maps.
fn setup(name: &str) -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let zero = || numbers(&[0]);
    match name {
        // More than comes, so that nothing is dropped.
        "ddos_guard" => {
            let limits = numbers(&[1_000_000, 1_000, 1_000_000, 1_000, 1_000_000, 1_000]);
            vec![("limits", zero(), limits)]
        }
        "load_balancer" => {
            let service = [&VIP[..], &80u16.to_be_bytes(), &[6, 0]].concat();
            let mut backend = vec![192, 168, 7, 10];
            backend.extend([2, 0, 0, 0, 1, 1, 0, 0]);
            let action = XdpAction::Tx as u32;
            vec![
                ("services", service, numbers(&[0, 1, action])),
                ("backends", zero(), backend),
            ]
        }
        "port_redirect" => vec![("ports", zero(), numbers(&[1]))],
        // The packet that is counted is not one of those.
        "mirror" => vec![("one_in", zero(), numbers(&[1_000]))],
        _ => vec![],
    }
}

/// Compiled code, all with helpers and the run around it, and the verdict, of one TCP packet.
fn count(loaded: &Loaded) -> Result<(usize, u64, XdpAction)> {
    let program = loaded.first().context("a program")?;
    let mut runner = program.runner(0).context("a worker")?;
    let ranges = step::compiled_code()?;
    let data = Layers::eth(CARD, HOST)
        .ipv4([10, 0, 0, 9], VIP)
        .tcp(1000, 80)
        .payload([7; 6])
        .build();
    let mut memory = vec![0; 256 + data.len() + 256];
    for n in 0..=WARM {
        memory[256..256 + data.len()].copy_from_slice(&data);
        let mut packet = Packet::new(&mut memory, 256..256 + data.len()).context("inside")?;
        let ingress = Ingress {
            now_ns: 1_000_000 * (n + 1),
            ..Ingress::default()
        };
        if n < WARM {
            runner.run(&mut packet, &ingress);
            continue;
        }
        let (outcome, trace) = step::trace(&ranges, || runner.run(&mut packet, &ingress))?;
        return Ok((trace.inside.len(), trace.total, outcome.action));
    }
    unreachable!("the last round returns")
}

/// What a hook takes, whatever its program does: an established packet through the pipeline without a program, with
/// one and two that do nothing.
fn around() -> Result<()> {
    let nothing = Object {
        programs: vec![Program {
            name: "nothing".to_owned(),
            insns: assemble("r0 = 2\nexit").map_err(|e| anyhow::anyhow!("{e}"))?,
            ..Program::default()
        }],
        ..Object::default()
    };
    let loaded = Loaded::from_object(nothing, &LoadOptions::default())?;
    let program = loaded.first().context("a program")?;
    let capacity = Capacity {
        flows: 64,
        ..Capacity::default()
    };
    let core = Core::new(Executor::Native, &capacity)?;
    let options = dash_engine::Options {
        native: true,
        ..world::options(capacity, Some(world::cache()?))
    };
    let mut engine = dash_engine::Engine::new(options, Box::new(core))?;
    world::configure(&mut engine, &world::rows(world::Rows::All)?)?;
    let (key, _) = engine.store().enis().next().context("an ENI")?;
    let eni = engine.eni_index(key).context("the ENI's index")?;
    println!("an established packet, one by one, all instructions");
    let mut base = None;
    for (text, point, links) in [
        ("no program", Point::Ingress(0), 0),
        (
            "a program that does nothing at ingress",
            Point::Ingress(0),
            1,
        ),
        ("two of them", Point::Ingress(0), 2),
        ("one at egress", Point::Egress(0), 1),
        ("one at the ENI, outbound", Point::EniOutbound(eni), 1),
    ] {
        let mut all = Vec::new();
        for sequence in 0..links {
            all.push(Attachment {
                point,
                sequence,
                link: Arc::new(hook::link(&program, 1)?),
            });
        }
        engine.set_hooks(matches!(point, Point::EniOutbound(_)))?;
        engine.target_mut().set_hooks(Hooks::new(&all));
        let ranges = step::compiled_code()?;
        let mut total = 0;
        for n in 0..=WARM {
            let mut frame = Frame::new();
            ensure!(frame.fill(&world::outbound(0, world::SMALL)), "a frame");
            frame.timestamp_ns = 1_000 * (n + 1);
            let run = || engine.target_mut().run(&mut frame);
            let (verdict, trace) = step::trace(&ranges, run)?;
            ensure!(verdict? == nic_target::Verdict::Send(0), "it is not sent");
            total = trace.total;
        }
        let base = *base.get_or_insert(total);
        println!("  {text:<40} {total:>6} (+{})", total - base);
    }
    Ok(())
}
