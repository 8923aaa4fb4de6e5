//! Every shape's pipeline is well formed and has a decodable eBPF form.

use dash_pipeline::plan::Shape;
use dash_pipeline::{check, lower, template, text};
use nic_target::Capacity;

fn shapes() -> impl Iterator<Item = Shape> {
    (0..8u32).flat_map(|bits| {
        [0, 1, 0b10110, 0b11111]
            .into_iter()
            .flat_map(move |acl_out| {
                [0, 0b10000, 0b11111].into_iter().map(move |acl_in| Shape {
                    trusted_vnis: bits & 1 != 0,
                    inbound_pa_validation: bits & 2 != 0,
                    underlay_routes: bits & 4 != 0,
                    acl_out,
                    acl_in,
                })
            })
    })
}

#[test]
fn every_shape_checks_prints_and_parses_back() {
    for shape in shapes() {
        let source = template::pipeline_text(&shape);
        let pipeline = text::parse(&source).unwrap_or_else(|e| panic!("{e}\n{source}"));
        check::check(&pipeline).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
        assert_eq!(text::parse(&text::print(&pipeline)).unwrap(), pipeline);
    }
}

#[test]
fn every_shape_lowers_to_programs_that_decode_and_fit_a_kernel_name() {
    for shape in shapes() {
        let pipeline = text::parse(&template::pipeline_text(&shape)).unwrap();
        let object = lower::lower(&pipeline, &Capacity::default()).unwrap();
        assert_eq!(object.programs.len(), pipeline.stages.len());
        for program in &object.programs {
            dash_bpf::decode::decode(&program.insns).unwrap();
            assert!(program.name.len() <= 15, "{}", program.name);
        }
    }
}

#[test]
fn a_shape_compiles_to_what_it_uses() {
    let stages = |shape: &Shape| -> Vec<String> {
        let p = text::parse(&template::pipeline_text(shape)).unwrap();
        p.stages.into_iter().map(|s| s.name).collect()
    };
    assert_eq!(
        stages(&Shape::default()),
        [
            "rx", "inner", "flow", "route", "inbound", "deliver", "create", "apply"
        ]
    );
    let full = Shape {
        trusted_vnis: true,
        acl_out: 1,
        acl_in: 1,
        ..Shape::default()
    };
    assert_eq!(
        stages(&full),
        [
            "rx", "inner", "flow", "trusted", "acl_out", "route", "inbound", "acl_in", "deliver",
            "create", "apply"
        ]
    );
}
