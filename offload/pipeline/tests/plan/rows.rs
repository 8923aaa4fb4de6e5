//! Objects to the exact rows that programs read.

use dash_model::key::ObjectKey;
use dash_model::objects::{
    AclAction, DscpMode, EniSettings, Family, Object, RouteAction, RouteGroupSettings,
};
use dash_wire::tables::{
    EniMacKey, EniRow, Globals, MappingKey, MappingRow, PaKey, Route4Key, Route6Key, RouteRow,
    TrustedVniKey, eni_flags, mapping_flags, route_action,
};
use nic_target::{Capacity, Table};

use crate::support::{
    Bench, Edit, acl_group, acl_in, acl_out, acl_rule, any, appliance, eni, eni_route, gone, ip,
    mac, mapping, route, route_group, tag, vnet,
};
use dash_pipeline::plan::{Planner, Settings, Touched};

/// An appliance, two VNETs and an ENI in the first.
fn card() -> Bench {
    let mut bench = Bench::new();
    bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[]),
        vnet("Vnet1", 2001),
        vnet("Vnet2", 2002),
        eni("eni0", 1, "Vnet1", &[]),
    ]);
    bench
}

fn eni_row(bench: &Bench, key: &str) -> EniRow {
    let index = bench.planner.eni_index(&key.into()).expect("the ENI");
    let row = bench.tables.get(Table::Eni, &index);
    row.expect("its row")
}

#[test]
fn the_first_plan_writes_the_settings_without_any_object() {
    let mut bench = Bench::new();
    let plan = bench.commit(&[]);
    assert!(plan.shape_changed);
    let globals: Option<Globals> = bench.tables.get(Table::Globals, &0u32);
    let expected = Globals {
        vip: [0; 4],
        vm_vni: 0,
        vxlan_port: [0x12, 0xb5],
        encap_ttl: 64,
        flags: 0,
        sport_base: 5120,
        sport_mask: 127,
        ..Globals::default()
    };
    assert_eq!(globals, Some(expected));
    assert_eq!(bench.tables.rows.len(), 1);
    let again = bench.commit(&[]);
    assert!(again.delta.ops.is_empty() && !again.shape_changed);
}

#[test]
fn source_port_bits_from_none_to_all_make_a_mask() {
    for (bits, mask) in [(0, 0), (1, 1), (15, 0x7fff), (16, 0xffff), (40, 0xffff)] {
        let settings = Settings {
            sport_bits: bits,
            ..Settings::default()
        };
        let mut bench = Bench::new();
        bench.planner = Planner::new(settings, &Capacity::default());
        bench.commit(&[]);
        let globals: Globals = bench.tables.get(Table::Globals, &0u32).expect("a row");
        assert_eq!(globals.sport_mask, mask, "{bits} bits");
    }
}

#[test]
fn the_appliance_is_in_the_globals_and_in_every_eni() {
    let mut bench = card();
    let globals: Globals = bench.tables.get(Table::Globals, &0u32).expect("a row");
    assert_eq!(
        (globals.vip, globals.vm_vni, globals.flags),
        ([10, 1, 0, 5], 9, 0)
    );
    let plan = bench.commit(&[appliance("100", "10.1.0.6", 10, &[(5, 5)])]);
    let globals: Globals = bench.tables.get(Table::Globals, &0u32).expect("a row");
    assert_eq!(
        (globals.vip, globals.vm_vni, globals.flags),
        ([10, 1, 0, 6], 10, 1)
    );
    assert_eq!(eni_row(&bench, "eni0").vm_vni, 10);
    assert_eq!(plan.delta.ops.len(), 3, "globals, one ENI, one VNI");
}

#[test]
fn an_eni_has_its_mac_and_all_that_is_bound_to_it() {
    let mut bench = card();
    assert_eq!(
        bench.tables.get(
            Table::EniMac,
            &EniMacKey {
                mac: mac(1).0,
                pad: [0; 2]
            }
        ),
        Some(0u32)
    );
    let plain = EniRow {
        mac: mac(1).0,
        flags: eni_flags::ADMIN_UP,
        vm_underlay_dip: [10, 9, 0, 1],
        vm_vni: 9,
        vnet_vni: 2001,
        vnet: bench.planner.vnet_id(&"Vnet1".into()).expect("an id"),
        mtu: u16::MAX,
        pl_keep: [0xff; 16],
        ..EniRow::default()
    };
    assert_eq!(eni_row(&bench, "eni0"), plain);

    bench.commit(&[
        eni("eni0", 1, "Vnet1", &[(7, 7)]),
        route_group("rg"),
        eni_route("eni0", "rg"),
        acl_group("four", Family::V4),
        acl_group("six", Family::V6),
        acl_rule("four", "1", any(1, AclAction::Permit)),
        acl_rule("six", "1", any(1, AclAction::Permit)),
        acl_out("eni0", 1, Some("four"), Some("six")),
        acl_out("eni0", 5, Some("four"), None),
        acl_in("eni0", 2, None, Some("six")),
    ]);
    let four = bench.planner.acl_group_id(&"four".into()).expect("an id");
    let six = bench.planner.acl_group_id(&"six".into()).expect("an id");
    assert_eq!(
        eni_row(&bench, "eni0"),
        EniRow {
            flags: eni_flags::ADMIN_UP | eni_flags::TRUSTED_VNIS | eni_flags::ROUTE_GROUP,
            route_group: bench.planner.route_group_id(&"rg".into()).expect("an id"),
            acl: [
                [four, 0, 0, 0, four],
                [six, 0, 0, 0, 0],
                [0; 5],
                [0, six, 0, 0, 0]
            ],
            ..plain
        }
    );

    // A change that leaves the row as it is writes nothing.
    let plan = bench.commit(&[acl_in("eni0", 3, None, None)]);
    assert!(plan.delta.ops.is_empty());
}

/// Settings of ours for an ENI, as a row.
fn own(eni: &str, settings: EniSettings) -> Edit {
    let key = ObjectKey::EniSettings(eni.into());
    (key, Some(Object::EniSettings(settings)))
}

#[test]
fn what_an_eni_does_not_say_of_itself_is_the_cards() {
    let mut bench = card();
    let pipe = |row: &EniRow| row.flags & eni_flags::DSCP_PIPE != 0;
    let plan = bench.commit(&[own("eni0", EniSettings::default())]);
    assert!(plan.delta.ops.is_empty() && !plan.shape_changed);

    let plan = bench.commit(&[own(
        "eni0",
        EniSettings {
            dscp: Some(DscpMode::Pipe(46)),
            disable_fast_path: Some(true),
            max_resimulated: Some(5),
            mtu: Some(1500),
            learn: true,
            reverse_sip: Some([10, 0, 0, 9].into()),
            packets_per_second: Some(1000),
        },
    )]);
    assert!(plan.shape.flows.learn && plan.shape.flows.epoch);
    assert!(plan.shape.dscp_pipe && plan.shape.mtu);
    let row = eni_row(&bench, "eni0");
    assert!(pipe(&row));
    assert_eq!((row.dscp_tos, row.mtu), (46 << 2, 1500));
    assert_eq!(row.resim_per_second, 5);
    assert_ne!(row.flags & eni_flags::LEARN, 0);
    assert_eq!(row.reverse_sip, [10, 0, 0, 9]);
    assert_ne!(row.flags & eni_flags::NO_FAST_PATH, 0);

    let card = Settings {
        dscp_pipe: Some(8),
        mtu: Some(9000),
        ..Settings::default()
    };
    let plan = bench.planner.set_settings(&bench.store, card);
    assert!(plan.delta.ops.is_empty(), "the ENI has its own");
    bench.commit(&[own(
        "eni0",
        EniSettings {
            dscp: Some(DscpMode::Preserve),
            ..EniSettings::default()
        },
    )]);
    let row = eni_row(&bench, "eni0");
    assert!(!pipe(&row));
    assert_eq!((row.mtu, row.flags & eni_flags::LEARN), (9000, 0));
    let plan = bench.commit(&[(ObjectKey::EniSettings("eni0".into()), None)]);
    assert!(plan.shape.dscp_pipe && plan.shape.mtu, "the card has them");
    let row = eni_row(&bench, "eni0");
    assert_eq!((pipe(&row), row.dscp_tos, row.mtu), (true, 8 << 2, 9000));
    let plan = bench
        .planner
        .set_settings(&bench.store, Settings::default());
    bench.tables.apply(&plan.delta);
    assert!(!plan.shape.dscp_pipe && !plan.shape.mtu);
    assert_eq!(eni_row(&bench, "eni0").mtu, u16::MAX);

    // Ports that are all alike hold everybody's, those that say more of themselves too.
    let ports = Settings {
        port_mtus: vec![Some(1500); 2],
        ..Settings::default()
    };
    let plan = bench.planner.set_settings(&bench.store, ports);
    bench.tables.apply(&plan.delta);
    assert_eq!(eni_row(&bench, "eni0").mtu, 1500);
    for (mtu, left) in [(9000, 1500), (1000, 1000)] {
        let own_mtu = EniSettings {
            mtu: Some(mtu),
            ..EniSettings::default()
        };
        bench.commit(&[own("eni0", own_mtu)]);
        assert_eq!(eni_row(&bench, "eni0").mtu, left);
    }
}

#[test]
fn a_disabled_route_group_is_known_by_the_enis_that_bind_it() {
    let mut bench = card();
    let disable = |disabled| {
        let key = ObjectKey::RouteGroupSettings("rg".into());
        let settings = RouteGroupSettings { disabled };
        (key, Some(Object::RouteGroupSettings(settings)))
    };
    let off = |bench: &Bench| eni_row(bench, "eni0").flags & eni_flags::ROUTE_GROUP_DISABLED != 0;
    let plan = bench.commit(&[route_group("rg"), disable(true)]);
    assert!(plan.shape.route_group_disabled);
    assert!(!off(&bench), "it is not bound");
    bench.commit(&[eni_route("eni0", "rg")]);
    assert!(off(&bench));
    let plan = bench.commit(&[disable(false)]);
    assert!(!off(&bench) && !plan.shape.route_group_disabled);
    bench.commit(&[disable(true)]);
    assert!(off(&bench));
    bench.commit(&[(ObjectKey::EniRoute("eni0".into()), None)]);
    assert!(!off(&bench));
}

#[test]
fn an_eni_that_goes_takes_its_rows_and_its_index_is_used_again() {
    let mut bench = card();
    bench.commit(&[eni("eni1", 2, "Vnet2", &[(1, 3)])]);
    assert_eq!(bench.tables.count(Table::TrustedVni), 2);
    bench.commit(&[gone(ObjectKey::Eni("eni0".into()))]);
    assert_eq!(bench.planner.eni_key(0), None);
    assert_eq!(bench.tables.count(Table::Eni), 1);
    bench.commit(&[gone(ObjectKey::Eni("eni1".into()))]);
    let left = [Table::Eni, Table::EniMac, Table::TrustedVni];
    assert_eq!(left.map(|table| bench.tables.count(table)), [0; 3]);
    bench.commit(&[eni("eni2", 3, "Vnet1", &[])]);
    assert_eq!(bench.planner.eni_index(&"eni2".into()), Some(0));
    let all: Vec<_> = bench
        .planner
        .enis()
        .map(|(i, key)| (i, key.as_str()))
        .collect();
    assert_eq!(all, [(0, "eni2")]);
}

#[test]
fn trusted_vnis_are_blocks_of_the_card_or_of_an_eni() {
    let mut bench = card();
    bench.commit(&[
        appliance("100", "10.1.0.5", 9, &[(0x10_0000, 0x1f_ffff)]),
        eni("eni0", 1, "Vnet1", &[(45, 46), (46, 47)]),
    ]);
    let key = |prefix_len, eni, vni| TrustedVniKey {
        prefix_len,
        eni,
        vni,
        pad: [0; 3],
    };
    let table = Table::TrustedVni;
    let rows = &bench.tables;
    assert_eq!(
        rows.get(table, &key(16 + 4, [0xff, 0xff], [0x10, 0, 0])),
        Some(1u32)
    );
    assert_eq!(
        rows.get(table, &key(16 + 24, [0, 0], [0, 0, 45])),
        Some(1u32)
    );
    assert_eq!(
        rows.get(table, &key(16 + 23, [0, 0], [0, 0, 46])),
        Some(1u32)
    );
    assert_eq!(rows.count(table), 3);

    let plan = bench.commit(&[eni("eni0", 1, "Vnet1", &[(46, 47)])]);
    let touched = plan.touched();
    let one_deleted = Touched {
        puts: 0,
        deletes: 1,
    };
    assert_eq!(touched.get(&table), Some(&one_deleted));
    assert_eq!(bench.tables.count(table), 2);
}

#[test]
fn each_routing_type_has_its_row() {
    let mut bench = card();
    let direct = |overlay_ip| RouteAction::VnetDirect {
        vnet: "Vnet2".into(),
        overlay_ip,
    };
    bench.commit(&[
        route_group("rg"),
        route("rg", "10.0.0.0/8", RouteAction::Vnet("Vnet2".into())),
        route("rg", "10.1.0.0/16", direct(Some(ip("10.2.0.6")))),
        route("rg", "10.2.0.0/16", direct(Some(ip("fd00::6")))),
        route("rg", "10.3.0.0/16", direct(None)),
        route("rg", "10.4.0.0/16", RouteAction::Direct),
        route("rg", "0.0.0.0/0", RouteAction::Drop),
        route("rg", "fd00::/8", RouteAction::Vnet("Vnet1".into())),
    ]);
    let group = bench.planner.route_group_id(&"rg".into()).expect("an id");
    let row = |dst, len: u32| -> RouteRow {
        let prefix_len = 32 + len;
        let key = Route4Key {
            prefix_len,
            group,
            dst,
        };
        bench.tables.get(Table::Route4, &key).expect("a route")
    };
    let vnet = bench.planner.vnet_id(&"Vnet2".into()).expect("an id");
    let to_vnet2 = RouteRow {
        action: route_action::VNET,
        vnet,
        vni: 2002,
        meter_and: 0xfff,
        ..RouteRow::default()
    };
    assert_eq!(row([10, 0, 0, 0], 8), to_vnet2);
    let mut overlay_ip = [0; 16];
    overlay_ip[12..].copy_from_slice(&[10, 2, 0, 6]);
    let action = route_action::VNET_DIRECT;
    assert_eq!(
        row([10, 1, 0, 0], 16),
        RouteRow {
            action,
            overlay_ip,
            ..to_vnet2
        }
    );
    let mut overlay_ip = [0; 16];
    (overlay_ip[0], overlay_ip[15]) = (0xfd, 6);
    assert_eq!(
        row([10, 2, 0, 0], 16),
        RouteRow {
            action,
            flags: 1,
            overlay_ip,
            ..to_vnet2
        }
    );
    assert_eq!(row([10, 3, 0, 0], 16), to_vnet2);
    let bare = |action| RouteRow {
        action,
        meter_and: 0xfff,
        ..RouteRow::default()
    };
    assert_eq!(row([10, 4, 0, 0], 16), bare(route_action::DIRECT));
    assert_eq!(row([0; 4], 0), bare(route_action::DROP));
    let mut dst = [0; 16];
    dst[0] = 0xfd;
    let key = Route6Key {
        prefix_len: 40,
        group,
        dst,
    };
    let row6: RouteRow = bench.tables.get(Table::Route6, &key).expect("a route");
    assert_eq!((row6.action, row6.vni), (route_action::VNET, 2001));
    assert_eq!(
        (
            bench.tables.count(Table::Route4),
            bench.tables.count(Table::Route6)
        ),
        (6, 1)
    );

    // The routes of a group go with it.
    bench.commit(&[gone(ObjectKey::RouteGroup("rg".into()))]);
    assert_eq!(
        (
            bench.tables.count(Table::Route4),
            bench.tables.count(Table::Route6)
        ),
        (0, 0)
    );
}

#[test]
fn a_mapping_has_its_pa_mac_and_flags() {
    let mut bench = card();
    let (key, object) = mapping("Vnet1", "10.1.0.7", "101.1.2.3");
    let Some(Object::VnetMapping(mut with_mac)) = object else {
        panic!("a mapping");
    };
    with_mac.mac = Some(mac(0x77));
    with_mac.use_dst_vni = true;
    bench.commit(&[
        (key, Some(Object::VnetMapping(with_mac))),
        mapping("Vnet1", "fd00::7", "101.1.2.4"),
    ]);
    let vnet = bench.planner.vnet_id(&"Vnet1".into()).expect("an id");
    let mut ip = [0; 16];
    ip[12..].copy_from_slice(&[10, 1, 0, 7]);
    let key = MappingKey {
        vnet,
        v6: 0,
        pad: 0,
        ip,
    };
    let row = MappingRow {
        underlay_dip: [101, 1, 2, 3],
        dmac: mac(0x77).0,
        flags: mapping_flags::USE_DST_VNI | mapping_flags::SET_DMAC,
    };
    assert_eq!(bench.tables.get(Table::Mapping, &key), Some(row));
    let mut ip = [0; 16];
    (ip[0], ip[15]) = (0xfd, 7);
    let key = MappingKey {
        vnet,
        v6: 1,
        pad: 0,
        ip,
    };
    let row = MappingRow {
        underlay_dip: [101, 1, 2, 4],
        ..MappingRow::default()
    };
    assert_eq!(bench.tables.get(Table::Mapping, &key), Some(row));
}

#[test]
fn a_pa_is_valid_as_long_as_any_mapping_of_the_vnet_names_it() {
    let mut bench = card();
    bench.commit(&[
        mapping("Vnet1", "10.1.0.1", "101.1.2.3"),
        mapping("Vnet1", "10.1.0.2", "101.1.2.3"),
        mapping("Vnet2", "10.1.0.1", "101.1.2.3"),
    ]);
    let key = |bench: &Bench, vnet: &str| PaKey {
        vnet: bench.planner.vnet_id(&vnet.into()).expect("an id"),
        pad: 0,
        sip: [101, 1, 2, 3],
    };
    let valid = |bench: &Bench, vnet| {
        let row: Option<u32> = bench.tables.get(Table::PaValidation, &key(bench, vnet));
        row == Some(1)
    };
    assert!(valid(&bench, "Vnet1") && valid(&bench, "Vnet2"));
    assert_eq!(bench.tables.count(Table::PaValidation), 2);
    // One of two goes elsewhere: still named.
    bench.commit(&[mapping("Vnet1", "10.1.0.1", "101.1.2.4")]);
    assert!(valid(&bench, "Vnet1"));
    bench.commit(&[gone(ObjectKey::VnetMapping("Vnet1".into(), ip("10.1.0.2")))]);
    assert!(!valid(&bench, "Vnet1") && valid(&bench, "Vnet2"));
    // Two mappings that swap their PAs leave both rows alone.
    bench.commit(&[mapping("Vnet1", "10.1.0.2", "101.1.2.3")]);
    let plan = bench.commit(&[
        mapping("Vnet1", "10.1.0.1", "101.1.2.3"),
        mapping("Vnet1", "10.1.0.2", "101.1.2.4"),
    ]);
    assert!(!plan.touched().contains_key(&Table::PaValidation));
}

#[test]
fn a_change_costs_its_rows_whatever_else_there_is() {
    let mut bench = card();
    let mut edits = vec![route_group("rg"), eni_route("eni0", "rg")];
    for n in 0..20_000u32 {
        let [_, a, b, c] = n.to_be_bytes();
        let ca = format!("10.{a}.{b}.{c}");
        edits.push(route("rg", &ca, RouteAction::Vnet("Vnet1".into())));
        edits.push(mapping("Vnet1", &ca, &format!("101.{a}.{b}.{c}")));
    }
    edits.push(acl_group("acl", Family::V4));
    edits.push(acl_rule("acl", "1", any(1, AclAction::Permit)));
    edits.push(tag("unused", Family::V4, &["10.0.0.0/8"]));
    bench.commit(&edits);

    let one = Touched {
        puts: 1,
        deletes: 0,
    };
    let plan = bench.commit(&[route("rg", "10.0.0.9", RouteAction::Drop)]);
    assert_eq!(
        plan.touched().into_iter().collect::<Vec<_>>(),
        [(Table::Route4, one)]
    );
    let plan = bench.commit(&[mapping("Vnet1", "10.0.0.9", "101.0.0.8")]);
    let pa_gone = Touched {
        puts: 0,
        deletes: 1,
    };
    assert_eq!(
        plan.touched().into_iter().collect::<Vec<_>>(),
        [(Table::Mapping, one), (Table::PaValidation, pa_gone)]
    );
    let plan = bench.commit(&[gone(ObjectKey::EniRoute("eni0".into()))]);
    assert_eq!(
        plan.touched().into_iter().collect::<Vec<_>>(),
        [(Table::Eni, one)]
    );
    let plan = bench.commit(&[tag("unused", Family::V4, &["11.0.0.0/8"])]);
    assert!(plan.delta.ops.is_empty());
}
