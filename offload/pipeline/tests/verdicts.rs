//! Every program of every shape of the pipeline is accepted by our own verifier too.

use std::collections::HashSet;

use dash_pipeline::plan::Shape;
use dash_pipeline::{lower, template, text};
use dash_verify::{Limits, examine};
use nic_target::Capacity;

#[test]
fn our_own_verifier_accepts_every_program_of_the_pipeline() {
    let mut seen = HashSet::new();
    let mut walked = 0;
    for bits in 0..8u32 {
        for (acl_out, acl_in) in [(0, 0), (1, 0b10000), (0b10110, 0), (0b11111, 0b11111)] {
            let shape = Shape {
                trusted_vnis: bits & 1 != 0,
                inbound_pa_validation: bits & 2 != 0,
                underlay_routes: bits & 4 != 0,
                acl_out,
                acl_in,
                ..Shape::default()
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
