//! Programs of users: what a packet does there is done once, on whichever worker, and values per CPU are the
//! worker's.

use std::sync::Arc;

use dash_bench::programs::object;
use dash_bench::world;
use dash_prog::{LoadOptions, Loaded};
use dash_runtime::hooks::{Attachment, Hooks, Point};

use crate::rig::{Rig, native_code, wait};

#[test]
fn a_program_sees_every_packet_once_whichever_worker_runs_it() {
    if !native_code() {
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
