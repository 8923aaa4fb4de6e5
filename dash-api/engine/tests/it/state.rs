use dash_model::objects::Object;
use dash_model::{ObjectKey, Op, Txn};
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::{FlowActions, FlowEntry, FlowHalf, FlowKey, flow_action, flow_state};
use serde_json::Value;

use crate::fake::{BASE, engine, txn};

#[test]
fn every_counter_of_every_eni_is_there_from_0_in_the_order_of_its_list() {
    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    let counters = engine.counters().expect("counters");
    let names = |block: &Value| -> Vec<String> {
        block
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(names(&counters), ["eni", "port", "meter"]);
    assert_eq!(names(&counters["eni"]), ["eni-1"]);
    assert_eq!(
        names(&counters["eni"]["eni-1"]),
        EniStat::ALL.iter().map(|s| s.name()).collect::<Vec<_>>()
    );
    assert_eq!(
        names(&counters["port"]),
        PortStat::ALL.iter().map(|s| s.name()).collect::<Vec<_>>()
    );
    let zero = |block: &Value| {
        block
            .as_object()
            .expect("an object")
            .values()
            .all(|n| n == 0)
    };
    assert!(zero(&counters["eni"]["eni-1"]) && zero(&counters["port"]));
    assert_eq!(counters["meter"], Value::Array(vec![]));
}

#[test]
fn counters_go_to_the_eni_of_their_index() {
    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    let mut block = vec![0; EniStat::COUNT];
    block[EniStat::FlowCreated as usize] = 7;
    engine.target_mut().counters.eni.insert(0, block);
    engine.target_mut().counters.port = (0..PortStat::COUNT as u64).collect();
    let counters = engine.counters().expect("counters");
    assert_eq!(counters["eni"]["eni-1"]["SAI_ENI_STAT_FLOW_CREATED"], 7);
    assert_eq!(counters["eni"]["eni-1"]["SAI_ENI_STAT_FLOW_AGED"], 0);
    assert_eq!(
        counters["port"]["SAI_PORT_STAT_ENI_MISS_DROP_PACKETS"],
        PortStat::EniMissDropPackets as u64
    );
}

#[test]
fn buckets_that_moved_are_listed_by_eni_and_class_and_start_from_0_with_a_new_eni() {
    use dash_wire::tables::MeterBucket;

    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    let set = |engine: &mut dash_engine::Engine<crate::fake::Fake>, class, outbound, inbound| {
        let bucket = MeterBucket { outbound, inbound };
        engine
            .target_mut()
            .counters
            .meter
            .insert((0, class), bucket);
    };
    set(&mut engine, 3598, 100, 80);
    set(&mut engine, 7, 0, 1);
    let row = |eni: &str, class: u32, outbound: u64, inbound: u64| {
        serde_json::json!({
            "eni": eni,
            "meter_class": class,
            "SAI_METER_BUCKET_ENTRY_STAT_OUTBOUND_BYTES": outbound,
            "SAI_METER_BUCKET_ENTRY_STAT_INBOUND_BYTES": inbound,
        })
    };
    let meter = |engine: &mut dash_engine::Engine<crate::fake::Fake>| {
        engine.counters().expect("counters")["meter"].clone()
    };
    assert_eq!(
        meter(&mut engine),
        Value::Array(vec![row("eni-1", 7, 0, 1), row("eni-1", 3598, 100, 80)])
    );

    // No ENI has the index, and then another has.
    let eni = |n: u32| {
        format!(
            r#"[{{"DASH_ENI_TABLE:e{n}": {{"mac_address": "02:00:00:00:01:{n:02x}", "underlay_ip": "25.1.1.1", "admin_state": "enabled"}}, "OP": "SET"}}]"#
        )
    };
    for n in 2..=4 {
        engine.commit(txn(&eni(n))).expect("the card takes four");
    }
    engine
        .commit(txn(r#"[{"DASH_ENI_ROUTE_TABLE:eni-1": {}, "OP": "DEL"}, {"DASH_ENI_TABLE:eni-1": {}, "OP": "DEL"}]"#))
        .expect("nothing needs it");
    assert_eq!(meter(&mut engine), Value::Array(vec![]));
    engine.commit(txn(&eni(5))).expect("there is room for one");
    assert_eq!(meter(&mut engine), Value::Array(vec![]));
    set(&mut engine, 7, 10, 1);
    assert_eq!(meter(&mut engine), Value::Array(vec![row("e5", 7, 10, 0)]));
}

/// An index is used again; what the ENI before it counted is not the new one's.
#[test]
fn an_eni_on_a_used_index_counts_from_0() {
    let mut engine = engine();
    let eni = |n: u32| {
        format!(
            r#"{{"DASH_ENI_TABLE:eni-{n}": {{"mac_address": "02:00:00:00:01:{n:02x}", "underlay_ip": "25.1.1.1", "admin_state": "enabled"}}, "OP": "SET"}}"#
        )
    };
    let all: Vec<String> = (1..=4).map(eni).collect();
    let appliance =
        r#"{"DASH_APPLIANCE_TABLE:100": {"sip": "10.0.0.1", "vm_vni": 4321}, "OP": "SET"}"#;
    engine
        .commit(txn(&format!("[{appliance}, {}]", all.join(", "))))
        .expect("four ENIs fill the card");
    for index in 0..4 {
        let mut block = vec![0; EniStat::COUNT];
        block[EniStat::RxPackets as usize] = 100;
        engine.target_mut().counters.eni.insert(index, block);
    }
    engine
        .commit(txn(r#"[{"DASH_ENI_TABLE:eni-2": {}, "OP": "DEL"}]"#))
        .expect("nothing needs it");
    engine
        .commit(txn(&format!("[{}]", eni(5))))
        .expect("there is room for one");
    let rx = |counters: &Value, key: &str| counters["eni"][key]["SAI_ENI_STAT_RX_PACKETS"].clone();
    let counters = engine.counters().expect("counters");
    assert_eq!(
        (
            rx(&counters, "eni-1"),
            rx(&counters, "eni-5"),
            rx(&counters, "eni-2")
        ),
        (100.into(), 0.into(), Value::Null)
    );
    for block in engine.target_mut().counters.eni.values_mut() {
        block[EniStat::RxPackets as usize] += 3;
    }
    let counters = engine.counters().expect("counters");
    assert_eq!(
        (rx(&counters, "eni-1"), rx(&counters, "eni-5")),
        (103.into(), 3.into())
    );
}

#[test]
fn rows_that_are_only_stored_come_back_byte_for_byte_and_say_so() {
    let mut engine = engine();
    let key = ObjectKey::parse("DASH_HA_SET_CONFIG_TABLE", "5").expect("a key");
    let unknown = ObjectKey::parse("DASH_RESET_STATUS", "x").expect("a key");
    // Unknown fields and another order than ours: nobody re-encodes.
    let bytes: &[u8] = &[0xfa, 0x01, 0x03, 1, 2, 3, 0x08, 0x01];
    let ops = [
        Op::set(0, key.clone(), Object::Opaque, bytes),
        Op::set(1, unknown.clone(), Object::Opaque, &b"{\"a\": 1}"[..]),
    ];
    let commit = engine
        .commit(ops.into_iter().collect::<Txn>())
        .expect("rows to store");
    assert_eq!(commit.stored_only, [key.clone(), unknown.clone()]);
    assert!(!commit.compiled);
    assert_eq!(engine.get(&key).map(|raw| &**raw), Some(bytes));
    assert_eq!(
        engine.get(&unknown).map(|raw| &**raw),
        Some(&b"{\"a\": 1}"[..])
    );
    let result = engine.result(&key).expect("a result");
    assert_eq!(
        result.to_json().to_string(),
        r#"{"result":"0","note":"stored, not acted on"}"#
    );
    let rows: Vec<_> = engine
        .rows("DASH_HA_SET_CONFIG_TABLE")
        .map(|(key, entry)| (key, entry.raw.to_vec()))
        .collect();
    assert_eq!(rows, [(key, bytes.to_vec())]);
}

#[test]
fn result_rows_are_0_with_the_version_of_a_route_group_and_gone_with_the_row() {
    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    let result = |engine: &dash_engine::Engine<_>, key: &str| {
        let key = key.parse().expect("a key");
        engine.result(&key).map(|row| row.to_json().to_string())
    };
    assert_eq!(
        result(&engine, "DASH_VNET_TABLE:Vnet1").as_deref(),
        Some(r#"{"result":"0"}"#)
    );
    assert_eq!(
        result(&engine, "DASH_ROUTE_GROUP_TABLE:rg1").as_deref(),
        Some(r#"{"result":"0","version":"7"}"#)
    );
    engine
        .commit(txn(r#"[{"DASH_ENI_ROUTE_TABLE:eni-1": {}, "OP": "DEL"}]"#))
        .expect("unbound");
    assert_eq!(result(&engine, "DASH_ENI_ROUTE_TABLE:eni-1"), None);
}

fn v4(last: u8) -> [u8; 16] {
    let mut addr = [0; 16];
    addr[12..].copy_from_slice(&[10, 1, 1, last]);
    addr
}

fn flow(src: u8) -> FlowEntry {
    let key = |sip, dip, sport: u16, dport: u16, direction: u8| FlowKey {
        sip: v4(sip),
        dip: v4(dip),
        sport: sport.to_be_bytes(),
        dport: dport.to_be_bytes(),
        eni: 0,
        proto: 6,
        flags: direction << 1,
    };
    let out = FlowActions {
        actions: flow_action::ENCAP_U0 | flow_action::SET_DMAC,
        u0_sip: [10, 0, 0, 1],
        u0_dip: [101, 1, 2, 3],
        u0_vni: 45654,
        dmac: [0xf9, 0x22, 0x83, 0x99, 0x22, 0xa2],
        u0_encap: 1,
        ..FlowActions::default()
    };
    let back = FlowActions {
        actions: flow_action::ENCAP_U0,
        u0_dip: [25, 1, 1, 1],
        u0_vni: 4321,
        ..out
    };
    let side = |key, actions| FlowHalf { key, actions };
    FlowEntry {
        sides: [
            side(key(src, 1, 1000, 80, 1), out),
            side(key(1, src, 80, 1000, 2), back),
        ],
        packets: [3, 2],
        bytes: [162, 108],
        state: flow_state::ESTABLISHED,
        direction: 1,
        timeout_ms: 30_000,
        ..FlowEntry::default()
    }
}

#[test]
fn flows_are_two_lines_a_connection_in_one_order_whatever_the_target_says() {
    let mut engine = engine();
    engine.commit(txn(BASE)).expect("a right configuration");
    engine.target_mut().flows = vec![flow(12), flow(10), flow(11)];
    let one = engine.flows_jsonl().expect("flows");
    engine.target_mut().flows.reverse();
    assert_eq!(engine.flows_jsonl().expect("flows"), one);

    let lines: Vec<Value> = one
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let sources: Vec<&str> = lines
        .iter()
        .map(|line| line["src_ip"].as_str().expect("text"))
        .collect();
    assert_eq!(
        sources,
        [
            "10.1.1.10",
            "10.1.1.1",
            "10.1.1.11",
            "10.1.1.1",
            "10.1.1.12",
            "10.1.1.1"
        ]
    );

    let first = &lines[0];
    assert_eq!(
        (&first["eni"], &first["eni_mac"]),
        (&"eni-1".into(), &"f4:93:9f:ef:c4:7e".into())
    );
    assert_eq!(
        (&first["direction"], &first["state"]),
        (&"outbound".into(), &"established".into())
    );
    assert_eq!(
        (&first["src_port"], &first["dst_port"], &first["ip_proto"]),
        (&1000.into(), &80.into(), &6.into())
    );
    assert_eq!(
        (&first["underlay0_vnet_id"], &first["underlay0_dip"]),
        (&45654.into(), &"101.1.2.3".into())
    );
    assert_eq!(first["dst_mac"], "f9:22:83:99:22:a2");
    assert_eq!(
        first["dash_flow_action"],
        serde_json::json!(["encap_u0", "set_dmac"])
    );
    assert_eq!(
        (&first["packets"], &first["bytes"]),
        (&3.into(), &162.into())
    );
    assert_eq!(
        (
            &first["reverse_flow_src_ip"],
            &first["reverse_flow_dst_port"]
        ),
        (&"10.1.1.1".into(), &1000.into())
    );

    let second = &lines[1];
    assert_eq!(
        (&second["direction"], &second["underlay0_vnet_id"]),
        (&"inbound".into(), &4321.into())
    );
    assert_eq!(
        (&second["packets"], &second["reverse_flow_src_ip"]),
        (&2.into(), &"10.1.1.10".into())
    );
}
