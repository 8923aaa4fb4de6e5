//! Every program of every shape of the pipeline is accepted by our own verifier too.

use std::collections::HashSet;

use dash_pipeline::plan::{FlowNeeds, Shape};
use dash_pipeline::{lower, template, text};
use dash_verify::{Limits, examine};
use nic_target::Capacity;

/// Every set of transforms that objects can ask for, with the flows that go with them and with all kinds
/// of flows.
fn transforms() -> impl Iterator<Item = Shape> {
    (0..256u32).flat_map(|bits| {
        let on = |bit: u32| bits >> bit & 1 != 0;
        let (service_tunnel, private_link, tunnel) = (on(0), on(1), on(2));
        let shape = move |flows| Shape {
            service_tunnel,
            private_link,
            private_link_nsg: private_link && on(2),
            tunnel,
            port_map: on(3) && private_link,
            drop_unmapped_ports: on(3) && private_link && on(4),
            route_more: on(4) || service_tunnel,
            mapping_more: on(5) || private_link || tunnel,
            floating: on(6),
            redirect: on(7),
            meter: bits % 3 == 0,
            flows,
            ..Shape::default()
        };
        let needed = FlowNeeds {
            translate: service_tunnel || private_link,
            nvgre: service_tunnel || private_link || tunnel || on(7),
            u1: tunnel && private_link,
            redirects: on(7),
            meter: bits % 3 == 0,
            epoch: false,
            learn: false,
        };
        let all = FlowNeeds {
            translate: true,
            nvgre: true,
            u1: true,
            redirects: true,
            meter: true,
            epoch: true,
            learn: true,
        };
        [needed, all].map(shape)
    })
}

#[test]
fn our_own_verifier_accepts_every_program_of_the_pipeline() {
    let mut seen = HashSet::new();
    let mut walked = 0;
    for bits in 0..8u32 {
        let groups = [(0, 0), (1, 0b10000), (0b10110, 0), (0b11111, 0b11111)];
        // ACLs and transforms are in stages of their own: not every pair of them is another program.
        let acls = groups.map(|acls| (acls, Shape::default()));
        let transforms = transforms().map(|transform| ((0, 0), transform));
        for ((acl_out, acl_in), transform) in acls.into_iter().chain(transforms) {
            let shape = Shape {
                trusted_vnis: bits & 1 != 0,
                hooks: bits & 1 != 0,
                inbound_pa_validation: bits & 2 != 0,
                pa_prefixes: bits & 6 == 6,
                underlay_routes: bits & 4 != 0,
                acl_out,
                acl_in,
                bandwidth: bits & 3 == 3,
                packet_rate: bits & 6 == 6,
                port_mtu: (bits & 5 == 4).then_some(1500),
                admission: bits & 5 == 5,
                ..transform
            };
            let pipeline = text::parse(&template::pipeline_text(&shape)).expect("parses");
            let object = lower::lower(&pipeline, &Capacity::default()).expect("lowers");
            for program in &object.programs {
                if seen.insert(program.insns.clone()) {
                    let cost = examine(program, &object.maps, &Limits::default(), None);
                    let cost = cost.unwrap_or_else(|e| {
                        panic!("{} at {:?} of {shape:?}: {e}", program.name, e.pc())
                    });
                    walked += cost.instructions;
                }
            }
        }
    }
    assert!(seen.len() > 8 && walked > 1000, "{} programs", seen.len());
}
