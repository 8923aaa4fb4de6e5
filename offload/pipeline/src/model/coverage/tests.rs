use nic_target::{Capacity, Frame, Image, PacketEngine as _, Target as _, Update};

use super::*;
use crate::model::Model;

const IR: &str = "\
stage a {
    parse underlay;
    if outer_dip == 0 {
        drop vip-miss;
    }
    match globals[0] as g {
        if g.encap_ttl == 0 {
            goto c;
        }
    } else {
        drop vip-miss;
    }
    goto b;
}

stage b {
    pass;
}

stage c {
    pass;
}
";

fn frame(dip: [u8; 4]) -> Frame {
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 20];
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 9]);
    bytes.extend(dip);
    let sum = bytes[14..]
        .chunks(2)
        .fold(0u32, |s, w| s + u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Frame::new();
    assert!(frame.fill(&bytes));
    frame
}

fn model() -> Model {
    let mut model = Model::new(&Capacity::default());
    model.record_coverage("test");
    let image = Image {
        shape: [0; 32],
        ir: IR.into(),
        object: Default::default(),
        native: None,
    };
    model
        .apply(&Update {
            generation: 1,
            image: Some(image.into()),
            delta: Default::default(),
        })
        .expect("a pipeline");
    model
}

fn places(coverage: &Coverage) -> Vec<String> {
    let findings = coverage.missed().into_iter();
    findings
        .filter(|f| !f.at.is_empty())
        .map(|f| f.to_string())
        .collect()
}

#[test]
fn what_no_packet_reached_is_named_once_where_it_begins() {
    let mut model = model();
    let mut packet = frame([10, 0, 0, 1]);
    let verdict = model.run(&mut packet).expect("a pipeline");
    assert_eq!(verdict, nic_target::Verdict::Pass);
    assert_eq!(
        places(&model.take_coverage()),
        [
            "test line 3: no packet reached stage a / if outer_dip == 0 / then",
            "test line 7: no packet reached stage a / match globals[0] as g / hit / if g.encap_ttl == 0 / else",
            "test line 13: no packet reached stage a / goto b",
            "test line 17: no packet reached stage b",
        ]
    );
}

#[test]
fn runs_add_up_and_what_was_reached_is_not_named() {
    let mut model = model();
    model.run(&mut frame([10, 0, 0, 1])).expect("a pipeline");
    let mut coverage = model.take_coverage();
    model.run(&mut frame([0; 4])).expect("a pipeline");
    let second = model.take_coverage();
    assert_eq!(second.drops, [DropReason::VipMiss].into());
    coverage.absorb(second);
    assert!(
        !places(&coverage).iter().any(|p| p.contains("outer_dip")),
        "{coverage:?}"
    );
    let whole = coverage.missed();
    let said = |what: &str| whole.iter().any(|f| f.what == what);
    assert!(said("no packet was dropped for eni-miss"), "{whole:?}");
    assert!(!said("no packet was dropped for vip-miss"), "{whole:?}");
    assert!(said("no packet was applied the action nat46"), "{whole:?}");
}

#[test]
fn a_pipeline_that_ran_nowhere_is_missed_as_a_whole() {
    let mut coverage = Coverage::default();
    coverage.expect("the most", IR).expect("a pipeline");
    let missed = places(&coverage);
    assert_eq!(missed.len(), 3, "{missed:?}");
    assert_eq!(missed[0], "the most line 2: no packet reached stage a");
    let impossible: Vec<_> = coverage.impossible().collect();
    assert!(
        impossible
            .iter()
            .all(|(what, _)| what.starts_with("drop reason")),
        "where nothing came to is not told why: {impossible:?}"
    );
}

#[test]
fn statements_that_read_the_same_are_told_apart() {
    let twice =
        "stage a { parse underlay; if outer_dip == 0 { pass; } if outer_dip == 0 { pass; } pass; }";
    let mut coverage = Coverage::default();
    coverage.expect("p", twice).expect("a pipeline");
    let second = coverage
        .places
        .keys()
        .filter(|p| p.to_string().contains("if outer_dip == 0 (the 2.)"));
    // The statement, its two ways, and the `pass` in it.
    assert_eq!(second.count(), 4);
}
