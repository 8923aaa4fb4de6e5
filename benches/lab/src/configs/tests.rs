use std::collections::HashSet;

use dash_engine::{Engine, Options};
use dash_model::key::Table;
use dash_pipeline::model::Model;
use dash_proto::{RowValue, config_to_txn, decode_row, load_config};
use dash_runtime::Core;
use dash_wire::stats::EniStat;
use nic_target::{Frame, PacketEngine, Verdict};

use super::{Config, Counts, Expect, Flow, Scale};

fn counted(config: &Config) -> Counts {
    let mut counts = Counts::default();
    for row in config.rows() {
        let table = row.key.table().expect("every row acts");
        let counter = match table {
            Table::Vnet => &mut counts.vnets,
            Table::Eni => &mut counts.enis,
            Table::AclGroup => &mut counts.acl_groups,
            Table::AclRule => {
                let dash_model::objects::Object::AclRule(rule) = &row.object else {
                    panic!("{}: not a rule", row.key);
                };
                let prefixes = rule.src_prefixes.len() + rule.dst_prefixes.len() - 1;
                counts.acl_prefixes += prefixes as u64;
                &mut counts.acl_rules
            }
            Table::Route => &mut counts.routes,
            Table::VnetMapping => &mut counts.mappings,
            Table::RouteRule => &mut counts.inbound_rules,
            _ => continue,
        };
        *counter += 1;
    }
    counts
}

/// The table of the hero test document, "Baby Hero test"; its 320,000 ACL prefixes are without the
/// nine /15s of each group.
#[test]
fn baby_hero_has_the_published_counts() {
    let config = Config::new(Scale::BABY_HERO);
    let counts = counted(&config);
    assert_eq!(
        counts,
        Counts {
            vnets: 32,
            enis: 32,
            acl_groups: 320,
            acl_rules: 320_000,
            acl_prefixes: 320_000 + 320 * 9,
            routes: 160_000,
            mappings: 80_320,
            inbound_rules: 32,
        }
    );
    assert_eq!(config.counts(), counts);
}

/// "Policy and Route Requirements" of the same documents, for a card of 200G.
#[test]
fn hero_has_the_required_counts() {
    assert_eq!(
        Config::new(Scale::HERO).counts(),
        Counts {
            vnets: 32,
            enis: 32,
            acl_groups: 320,
            acl_rules: 320_000,
            acl_prefixes: 32_000_000 + 320 * 9,
            routes: 3_200_000,
            mappings: 8_000_000,
            inbound_rules: 320_000,
        }
    );
}

#[test]
fn counts_are_those_of_the_rows_at_any_scale() {
    for scale in Scale::ALL {
        for n in [10, 16, 50, 1_000] {
            let config = Config::new(scale.shrink(n));
            assert_eq!(config.counts(), counted(&config), "{} / {n}", scale.name);
        }
    }
    let one = Config::new(Scale::ONE_IP);
    assert_eq!(one.counts(), counted(&one));
    assert_eq!(one.counts().mappings, 1);
}

#[test]
fn no_row_is_there_twice() {
    let config = Config::new(Scale::HERO.shrink(16));
    let mut seen = HashSet::new();
    for row in config.rows() {
        assert!(seen.insert(row.key.clone()), "{}", row.key);
    }
}

/// A controller's bytes and the file's JSON mean the objects that are committed in process.
#[test]
fn messages_and_json_say_what_the_objects_are() {
    for scale in [
        Scale::ONE_IP,
        Scale::BABY_HERO.shrink(100),
        Scale::HERO.shrink(50),
    ] {
        let config = Config::new(scale);
        for row in config.rows() {
            let key = row.key.key_text().to_string();
            let decoded = decode_row(row.key.table_name(), &key, RowValue::Pb(&row.bytes()))
                .expect("a row that is right");
            assert_eq!((decoded.key, decoded.object), (row.key.clone(), row.object));
        }
        let mut file = Vec::new();
        config.write_json(&mut file).expect("a vector takes it");
        let file = String::from_utf8(file).expect("JSON is UTF-8");
        let rows = load_config(&file).expect("a file as SONiC's");
        let (txn, _) = config_to_txn(&rows).expect("rows that are right");
        let objects = |ops: Vec<dash_model::Op>| -> Vec<_> {
            let of = |op: dash_model::Op| match op.action {
                dash_model::Action::Set { object, .. } => (op.key, object),
                dash_model::Action::Del => panic!("nothing is deleted"),
            };
            ops.into_iter().map(of).collect()
        };
        let made: Vec<_> = config.rows().map(|r| (r.key, r.object)).collect();
        assert!(objects(txn.ops) == made, "{}", scale.name);
    }
}

#[test]
fn connections_differ() {
    let config = Config::new(Scale::BABY_HERO.shrink(8));
    let mut seen = HashSet::new();
    for n in 0..200_000 {
        let f = config.outbound(n);
        assert!(seen.insert((f.eni, f.proto, f.src, f.dst, f.sport, f.dport)));
    }
}

fn engine<T: PacketEngine>(config: &Config, target: T, native: bool) -> Engine<T> {
    let cache = tempfile::tempdir().expect("a folder");
    let options = Options {
        capacity: config.capacity(4_096),
        cache_dir: Some(cache.path().to_path_buf()),
        native,
        ..Options::default()
    };
    let mut engine = Engine::new(options, Box::new(target)).expect("an empty configuration");
    for txn in config.txns() {
        engine.commit(txn).expect("a configuration that is right");
    }
    engine
}

/// Runs a packet and compares what came of it with what must.
fn check<T: PacketEngine>(engine: &mut Engine<T>, frame: &mut Frame, flow: &Flow, tcp_flags: u8) {
    let packet = flow.frame(tcp_flags, 18);
    let said = || nic_sim::describe(&packet);
    assert!(frame.fill(&packet));
    frame.port = 0;
    frame.timestamp_ns += 1_000;
    let verdict = engine.target_mut().run(frame).expect("an engine that runs");
    match flow.expect {
        Expect::Dropped(_) => assert_eq!(verdict, Verdict::Drop, "{}", said()),
        Expect::Sent { to, vni, dmac } => {
            assert_eq!(verdict, Verdict::Send(0), "{}", said());
            let out = frame.data();
            assert_eq!(out[30..34], to.octets(), "outer destination: {}", said());
            assert_eq!(out[46..49], vni.to_be_bytes()[1..], "VNI: {}", said());
            assert_eq!(out[50..56], dmac.0, "inner MAC: {}", said());
            // The rest of the inner packet is as it was.
            assert_eq!(out[56..], packet[56..], "{}", said());
        }
    }
}

/// A sample of every kind of traffic, and the counters that say why packets were dropped.
fn sample<T: PacketEngine>(config: &Config, mut engine: Engine<T>) {
    const SYN: u8 = 2;
    const SYN_ACK: u8 = 0x12;
    let mut frame = Frame::new();
    frame.timestamp_ns = 1;
    let (mut denied, mut foreign) = (0, 0);
    for i in 0..400u64 {
        // Neighbours, and far ones in all digits.
        let n = if i % 2 == 0 {
            i
        } else {
            i.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        };
        for first in [config.outbound(n), config.inbound(n)] {
            check(&mut engine, &mut frame, &first, SYN);
            let reply = first.reply().expect("it is allowed");
            check(&mut engine, &mut frame, &reply, SYN_ACK);
        }
        let stopped = [config.outbound_denied(n), config.inbound_denied(n)];
        for flow in stopped.into_iter().flatten() {
            check(&mut engine, &mut frame, &flow, SYN);
            assert_eq!(flow.reply(), None);
            denied += 1;
        }
        check(&mut engine, &mut frame, &config.inbound_foreign(n), SYN);
        foreign += 1;
    }
    let counters = engine.target_mut().counters().expect("counters");
    let total = |stat: EniStat| -> u64 { counters.eni.values().map(|c| c[stat as usize]).sum() };
    assert_eq!(total(EniStat::PolicyDropPackets), denied);
    assert_eq!(total(EniStat::InboundRoutingEntryMissDropPackets), foreign);
    assert_eq!(total(EniStat::TotalDropPackets), denied + foreign);
}

#[test]
fn the_model_does_what_the_traffic_says() {
    for scale in [
        Scale::ONE_IP,
        Scale::BABY_HERO.shrink(16),
        Scale::HERO.shrink(16),
    ] {
        let config = Config::new(scale);
        let model = Model::new(&config.capacity(4_096));
        sample(&config, engine(&config, model, false));
    }
}

#[test]
fn machine_code_does_what_the_traffic_says() {
    for scale in [
        Scale::ONE_IP,
        Scale::BABY_HERO.shrink(16),
        Scale::HERO.shrink(16),
    ] {
        let config = Config::new(scale);
        match Core::new(dash_runtime::Engine::Native, &config.capacity(4_096)) {
            Ok(core) => sample(&config, engine(&config, core, true)),
            Err(why) => eprintln!("SKIP: no machine code here: {why}"),
        }
    }
}
