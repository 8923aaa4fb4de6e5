//! Whatever arrives, one verdict, one reason, no panic.

use std::cell::RefCell;

use dash_pipeline::ir::{Pipeline, Stmt};
use dash_pipeline::model::Model;
use dash_pipeline::{check, template, text};
use nic_target::Verdict;
use proptest::prelude::*;

use crate::golden::v1_in;
use crate::setup::*;

/// Drops the counters know of: one of the port's or one TOTAL_DROP each.
fn drops(model: &mut Model) -> u64 {
    let all = counters(model);
    let port = [
        "IF_IN_ERRORS",
        "IF_IN_DISCARDS",
        "VIP_MISS_DROP_PACKETS",
        "ENI_MISS_DROP_PACKETS",
    ]
    .map(str::to_owned);
    let eni = (0..8).map(|eni| format!("{eni}/TOTAL_DROP_PACKETS"));
    port.into_iter()
        .chain(eni)
        .filter_map(|name| all.get(&name))
        .sum()
}

/// Runs a packet and checks that it ended in one way and was counted once if dropped.
fn one_end(model: &mut Model, packet: &[u8]) -> Verdict {
    let before = drops(model);
    let (verdict, _) = run(model, packet, 0);
    let dropped = drops(model) - before;
    match verdict {
        Verdict::Drop => assert_eq!(dropped, 1, "{packet:02x?}"),
        Verdict::Send(_) => assert_eq!(dropped, 0, "{packet:02x?}"),
        // Control packets are not counted, unresolved next hops are.
        Verdict::Pass => assert!(dropped <= 1, "{packet:02x?}"),
        Verdict::Aborted => panic!("aborted on {packet:02x?}"),
    }
    verdict
}

#[test]
fn v1_cut_at_every_byte_is_a_malformed_outer_packet() {
    let mut model = appliance();
    let whole = v1_in();
    for len in 0..whole.len() {
        let (_, moved) = moved(&mut model, |m| {
            assert_eq!(one_end(m, &whole[..len]), Verdict::Drop, "{len} bytes")
        });
        assert_eq!(moved, expected(&[("IF_IN_ERRORS", 1)]), "{len} bytes");
    }
    assert_eq!(one_end(&mut model, &whole), Verdict::Send(OUT_PORT as u16));
}

/// Inner frames of every protocol the parser looks into, with the tunnel they come in.
fn samples() -> Vec<(Pkt, Vec<u8>)> {
    let out = Pkt::outbound;
    let v6 = |next, payload: &[u8]| {
        ethernet(
            out().dmac,
            out().smac,
            0x86dd,
            &ipv6(0, [1; 16], [2; 16], next, payload),
        )
    };
    let tcp = out().tcp(1, 2, 2);
    let inner = [
        out().inner(),
        tcp.inner(),
        out().icmp(8, 7).inner(),
        v6(17, &udp(1, 2)),
        v6(6, &tcp.l4),
        v6(58, &[128, 0, 0, 0, 0, 7, 0, 1]),
    ];
    inner.into_iter().map(|inner| (out(), inner)).collect()
}

#[test]
fn inner_frames_cut_at_every_byte_are_malformed_when_the_tunnel_s_lengths_fit() {
    let mut model = appliance();
    for (outer, inner) in samples() {
        for len in 14..inner.len() {
            let packet = outer.around(&inner[..len]);
            let (_, moved) = moved(&mut model, |m| {
                assert_eq!(one_end(m, &packet), Verdict::Drop, "{len} bytes")
            });
            assert_eq!(
                moved.get("3/OTHER_DROP_PACKETS"),
                Some(&1),
                "{len} bytes of {inner:02x?}: {moved:?}"
            );
        }
        for len in 0..14 {
            let packet = outer.around(&inner[..len]);
            let (_, moved) = moved(&mut model, |m| {
                assert_eq!(one_end(m, &packet), Verdict::Drop, "{len} bytes")
            });
            assert_eq!(
                moved,
                expected(&[("IF_IN_ERRORS", 1)]),
                "{len} bytes of {inner:02x?}"
            );
        }
    }
}

/// A change of a statement list at a place in it.
type Edit = dyn Fn(&mut Vec<Stmt>, usize);

/// Edits the statement list that holds the `n`-th statement, in reading order; false past the last.
fn edit_nth(body: &mut Vec<Stmt>, n: &mut usize, edit: &Edit) -> bool {
    for i in 0..body.len() {
        if *n == 0 {
            edit(body, i);
            return true;
        }
        *n -= 1;
        if let Stmt::Match {
            hit: a, miss: b, ..
        }
        | Stmt::If {
            then: a, els: b, ..
        }
        | Stmt::FlowLookup {
            hit: a, miss: b, ..
        } = &mut body[i]
            && (edit_nth(a, n, edit) || edit_nth(b, n, edit))
        {
            return true;
        }
    }
    false
}

fn edited(pipeline: &Pipeline, n: usize, edit: &Edit) -> Option<Pipeline> {
    let (mut pipeline, mut n) = (pipeline.clone(), n);
    let found = pipeline
        .stages
        .iter_mut()
        .any(|stage| edit_nth(&mut stage.body, &mut n, edit));
    found.then_some(pipeline)
}

/// Every statement removed, doubled, and exchanged with the next: what `check` still accepts must
/// run, for `check` promises the executors that nothing is missing.
#[test]
fn what_check_accepts_never_aborts() {
    let pipeline = text::parse(&template::pipeline_text(&full_shape())).unwrap();
    let edits: [&Edit; 3] = [
        &|body, i| drop(body.remove(i)),
        &|body, i| body.insert(i, body[i].clone()),
        &|body, i| {
            let next = (i + 1).min(body.len() - 1);
            body.swap(i, next);
        },
    ];
    let (mut accepted, mut refused) = (0, 0);
    for edit in edits {
        for changed in (0..).map_while(|n| edited(&pipeline, n, edit)) {
            if check::check(&changed).is_err() {
                refused += 1;
                continue;
            }
            accepted += 1;
            let mut model = model_of(&text::print(&changed), rows(), 4);
            for packet in [Pkt::outbound(), Pkt::inbound(), Pkt::inbound().tcp(1, 2, 2)] {
                let (verdict, _) = run(&mut model, &packet.bytes(), 0);
                assert_ne!(verdict, Verdict::Aborted, "{}", text::print(&changed));
            }
        }
    }
    assert!(
        accepted > 100 && refused > 100,
        "{accepted} accepted, {refused} refused"
    );
}

/// Many cases on one model: what earlier packets left behind is part of the test.
fn many() -> ProptestConfig {
    ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn any_bytes_end_in_one_verdict() {
    let model = RefCell::new(appliance());
    proptest!(many(), |(packet in prop::collection::vec(any::<u8>(), 0..200))| {
        one_end(&mut model.borrow_mut(), &packet);
    });
}

#[test]
fn any_change_of_a_good_packet_ends_in_one_verdict() {
    let model = RefCell::new(appliance());
    let samples: Vec<_> = samples()
        .iter()
        .map(|(outer, inner)| outer.around(inner))
        .collect();
    let change = (any::<prop::sample::Index>(), any::<u8>());
    proptest!(many(), |(
        sample in 0..samples.len(),
        changes in prop::collection::vec(change, 1..6),
        right_sum: bool,
    )| {
        let mut packet = samples[sample].clone();
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if right_sum {
            fix_checksum(&mut packet[14..]);
        }
        one_end(&mut model.borrow_mut(), &packet);
    });
}
