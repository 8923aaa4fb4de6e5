//! Connections (DASH reference 4.4, 4.5; examples E31, E32).

use dash_pipeline::model::Model;
use dash_wire::tables::flow_state::{CLOSING, ESTABLISHED, HALF_OPEN};
use nic_target::{PacketEngine, Verdict};

use crate::setup::*;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const SENT: Verdict = Verdict::Send(OUT_PORT as u16);

fn vm(model: &mut Model, flags: u8, now_ms: u64) -> Verdict {
    run(
        model,
        &Pkt::outbound().tcp(40000, 443, flags).bytes(),
        now_ms,
    )
    .0
}

fn peer(model: &mut Model, flags: u8, now_ms: u64) -> Verdict {
    run(
        model,
        &Pkt::inbound().tcp(443, 40000, flags).bytes(),
        now_ms,
    )
    .0
}

/// State and timeout of each connection.
fn states(model: &mut Model) -> Vec<(u8, u32)> {
    flows(model)
        .iter()
        .map(|f| (f.state, f.timeout_ms))
        .collect()
}

/// FLOW_CREATED, FLOW_DELETED, FLOW_AGED.
fn life(model: &mut Model) -> [u64; 3] {
    let all = counters(model);
    ["FLOW_CREATED", "FLOW_DELETED", "FLOW_AGED"]
        .map(|n| all.get(&format!("{ENI}/{n}")).copied().unwrap_or_default())
}

fn established() -> Model {
    let mut model = appliance();
    assert_eq!(vm(&mut model, SYN, 0), SENT);
    assert_eq!(peer(&mut model, SYN | ACK, 1), SENT);
    assert_eq!(vm(&mut model, ACK, 2), SENT);
    assert_eq!(states(&mut model), [(ESTABLISHED, 30_000)]);
    model
}

#[test]
fn a_tcp_connection_opens_with_the_answer_and_closes_after_both_fins() {
    let mut model = appliance();
    vm(&mut model, SYN, 0);
    assert_eq!(states(&mut model), [(HALF_OPEN, 5_000)]);
    vm(&mut model, ACK, 1);
    assert_eq!(
        states(&mut model),
        [(HALF_OPEN, 5_000)],
        "only the other side opens it"
    );
    peer(&mut model, SYN | ACK, 2);
    assert_eq!(states(&mut model), [(ESTABLISHED, 30_000)]);
    vm(&mut model, FIN | ACK, 10);
    vm(&mut model, FIN | ACK, 11);
    assert_eq!(
        states(&mut model),
        [(ESTABLISHED, 30_000)],
        "one side has closed, twice"
    );
    assert_eq!(peer(&mut model, FIN | ACK, 20), SENT);
    assert_eq!(states(&mut model), [(CLOSING, 2_000)]);
    assert_eq!(vm(&mut model, ACK, 1_000), SENT, "late segments pass");
    model.advance(2_999 * 1_000_000);
    assert_eq!(life(&mut model), [1, 0, 0]);
    model.advance(3_000 * 1_000_000);
    assert_eq!((flows(&mut model).len(), life(&mut model)), (0, [1, 1, 0]));
}

#[test]
fn a_rst_passes_with_the_stored_actions_and_ends_the_connection_at_once() {
    let mut model = established();
    let (verdict, out) = run(&mut model, &Pkt::inbound().tcp(443, 40000, RST).bytes(), 3);
    assert_eq!((verdict, &out[30..34]), (SENT, &VM_HOST[..]));
    assert_eq!((flows(&mut model).len(), life(&mut model)), (0, [1, 1, 0]));
}

#[test]
fn a_rst_out_of_nowhere_opens_nothing() {
    let mut model = appliance();
    assert_eq!(vm(&mut model, RST, 0), SENT);
    assert_eq!((flows(&mut model).len(), life(&mut model)), (0, [0, 0, 0]));
}

#[test]
fn a_syn_on_a_live_connection_replaces_it() {
    let mut model = established();
    assert_eq!(vm(&mut model, SYN, 100), SENT);
    assert_eq!(
        (states(&mut model), life(&mut model)),
        (vec![(HALF_OPEN, 5_000)], [2, 1, 0])
    );
    let flow = flows(&mut model)[0];
    assert_eq!((flow.packets, flow.created_ns), ([1, 0], 100_000_000));
}

#[test]
fn a_syn_on_a_live_connection_meets_the_policy_of_today() {
    let mut model = established();
    change(
        &mut model,
        vec![route4(
            [10, 1, 0, 0],
            16,
            dash_wire::tables::route_action::DROP,
        )],
    );
    assert_eq!(vm(&mut model, ACK, 50), SENT, "decided already");
    assert_eq!(vm(&mut model, SYN, 100), Verdict::Drop);
    assert_eq!((flows(&mut model).len(), life(&mut model)), (0, [1, 1, 0]));
}

#[test]
fn a_retransmitted_syn_of_a_half_open_connection_is_a_hit() {
    let mut model = appliance();
    vm(&mut model, SYN, 0);
    vm(&mut model, SYN, 3_000);
    assert_eq!(
        (states(&mut model), life(&mut model)),
        (vec![(HALF_OPEN, 5_000)], [1, 0, 0])
    );
    assert_eq!(flows(&mut model)[0].packets, [2, 0]);
    // A SYN of the other side is a new connection, which then belongs to that side.
    peer(&mut model, SYN, 3_001);
    assert_eq!(life(&mut model), [2, 1, 0]);
    assert_eq!(flows(&mut model)[0].direction, 2);
}

#[test]
fn half_open_connections_age_after_5_s_and_others_after_30() {
    let mut model = appliance();
    vm(&mut model, SYN, 0);
    run(&mut model, &Pkt::outbound().bytes(), 0);
    model.advance(4_999_999_999);
    assert_eq!(flows(&mut model).len(), 2);
    model.advance(5_000_000_000);
    assert_eq!(
        (states(&mut model), life(&mut model)),
        (vec![(ESTABLISHED, 30_000)], [2, 0, 1])
    );
    // Either side keeps it alive, and a packet that comes when it is due is too late.
    run(&mut model, &Pkt::inbound().bytes(), 29_999);
    run(&mut model, &Pkt::outbound().bytes(), 59_998);
    assert_eq!(
        (flows(&mut model)[0].packets, life(&mut model)),
        ([2, 1], [2, 0, 1])
    );
    run(&mut model, &Pkt::outbound().bytes(), 89_998);
    assert_eq!(
        (flows(&mut model)[0].packets, life(&mut model)),
        ([1, 0], [3, 0, 2])
    );
}

#[test]
fn the_clock_never_goes_back() {
    let mut model = appliance();
    run(&mut model, &Pkt::outbound().bytes(), 1_000);
    run(&mut model, &Pkt::outbound().bytes(), 500);
    assert_eq!(flows(&mut model)[0].last_seen_ns, 1_000_000_000);
}

#[test]
fn an_icmp_echo_reply_hits_the_request_s_flow_by_its_identifier() {
    let mut model = appliance();
    run(&mut model, &Pkt::outbound().icmp(8, 7).bytes(), 0);
    assert_eq!(flows(&mut model)[0].sides[0].key.sport, [0, 7]);
    run(&mut model, &Pkt::inbound().icmp(0, 7).bytes(), 1);
    assert_eq!(flows(&mut model)[0].packets, [1, 1]);
    run(&mut model, &Pkt::inbound().icmp(0, 8).bytes(), 2);
    assert_eq!((flows(&mut model).len(), life(&mut model)[0]), (2, 2));
    // Other messages have no identifier.
    run(&mut model, &Pkt::outbound().icmp(9, 7).bytes(), 3);
    assert_eq!(flows(&mut model).last().unwrap().sides[0].key.sport, [0, 0]);
}

#[test]
fn a_full_table_keeps_what_it_has_and_takes_more_when_one_is_gone() {
    let ir = dash_pipeline::template::pipeline_text(&full_shape());
    let mut model = model_of(&ir, rows(), 1);
    let to = |dport| {
        Pkt {
            l4: udp(1000, dport),
            ..Pkt::outbound()
        }
        .bytes()
    };
    assert_eq!(run(&mut model, &to(1), 0).0, SENT);
    assert_eq!(run(&mut model, &to(2), 0).0, Verdict::Drop);
    assert_eq!(run(&mut model, &to(1), 1).0, SENT);
    assert_eq!(run(&mut model, &to(2), 30_001).0, SENT);
    assert_eq!(life(&mut model), [2, 0, 1]);
}

#[test]
fn flows_and_rows_outlive_code() {
    let mut model = established();
    let image = nic_target::Image {
        shape: [1; 32],
        ir: dash_pipeline::template::pipeline_text(&Default::default()).into(),
        object: Default::default(),
        native: None,
    };
    let update = nic_target::Update {
        generation: 2,
        image: Some(image.into()),
        delta: Default::default(),
    };
    nic_target::Target::apply(&mut model, &update).unwrap();
    // The new pipeline has no underlay routes: a hit leaves by the port it came from.
    assert_eq!(vm(&mut model, ACK, 3), Verdict::Send(1));
    assert_eq!(flows(&mut model)[0].packets, [3, 1]);
}
