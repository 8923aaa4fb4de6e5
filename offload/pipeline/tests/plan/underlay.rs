//! Underlay routes and neighbours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dash_pipeline::plan::{Settings, Touched, UnderlayRoute, UnderlayTable};
use dash_wire::tables::{UnderlayKey, UnderlayRow, underlay_flags};
use nic_target::Table;
use proptest::prelude::*;

use crate::support::{Bench, Contents, ip, net};

const PORT_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 1]];
const PEER: [u8; 6] = [2, 0, 0, 0, 1, 1];

fn table(routes: &[(&str, u32, Option<&str>)], neighbors: &[(&str, u32)]) -> UnderlayTable {
    UnderlayTable {
        routes: routes
            .iter()
            .map(|(prefix, port, next_hop)| UnderlayRoute {
                prefix: net(prefix),
                port: *port,
                next_hop: next_hop.map(ip),
            })
            .collect(),
        neighbors: neighbors
            .iter()
            .map(|(at, port)| (ip(at), (PEER, *port)))
            .collect(),
        port_macs: PORT_MACS.to_vec(),
    }
}

fn row(tables: &Contents, prefix: &str) -> Option<UnderlayRow> {
    let prefix = net(prefix);
    let mut dst = [0; 16];
    let v6 = match prefix.addr() {
        IpAddr::V4(addr) => {
            dst[..4].copy_from_slice(&addr.octets());
            0
        }
        IpAddr::V6(addr) => {
            dst = addr.octets();
            1
        }
    };
    let prefix_len = 32 + u32::from(prefix.prefix_len());
    tables.get(
        Table::Underlay,
        &UnderlayKey {
            prefix_len,
            v6,
            dst,
        },
    )
}

fn resolved(port: u32) -> Option<UnderlayRow> {
    Some(UnderlayRow {
        port,
        flags: underlay_flags::RESOLVED,
        dmac: PEER,
        smac: PORT_MACS[port as usize],
        mtu: u16::MAX,
        pad: [0; 2],
    })
}

fn unresolved(port: u32) -> Option<UnderlayRow> {
    Some(UnderlayRow {
        port,
        smac: PORT_MACS[port as usize],
        mtu: u16::MAX,
        ..UnderlayRow::default()
    })
}

fn update(bench: &mut Bench, table: &UnderlayTable) -> dash_pipeline::plan::Plan {
    let plan = bench.planner.underlay(table);
    bench.tables.apply(&plan.delta);
    plan
}

#[test]
fn a_route_is_resolved_when_its_next_hop_is_known_on_its_port() {
    let mut bench = Bench::new();
    let routes = [
        ("0.0.0.0/0", 1, Some("10.0.1.1")),
        ("101.0.0.0/8", 0, Some("10.0.1.1")),
        ("102.0.0.0/8", 0, Some("10.0.0.9")),
        ("fd00::/8", 1, Some("fe80::1")),
        ("10.0.1.0/24", 1, None),
    ];
    update(
        &mut bench,
        &table(&routes, &[("10.0.1.1", 1), ("fe80::1", 1)]),
    );
    let tables = &bench.tables;
    assert_eq!(row(tables, "0.0.0.0/0"), resolved(1));
    assert_eq!(
        row(tables, "101.0.0.0/8"),
        unresolved(0),
        "it is on the other port"
    );
    assert_eq!(row(tables, "102.0.0.0/8"), unresolved(0), "nobody knows it");
    assert_eq!(row(tables, "fd00::/8"), resolved(1));
    assert_eq!(row(tables, "10.0.1.0/24"), unresolved(1));
    assert_eq!(row(tables, "10.0.1.1/32"), resolved(1));
    assert_eq!(row(tables, "fe80::1/128"), None, "no route covers it");
    assert_eq!(tables.count(Table::Underlay), 6);
}

#[test]
fn neighbours_have_rows_where_the_routes_reach_them_on_link() {
    let mut bench = Bench::new();
    let routes = [
        ("10.0.0.0/24", 0, None),
        ("10.0.0.128/25", 1, Some("10.1.0.1")),
        ("10.0.0.7/32", 0, Some("10.0.0.8")),
        ("fd00::/64", 1, None),
    ];
    let neighbors = [
        ("10.0.0.1", 0),
        ("10.0.0.2", 1),
        ("10.0.0.7", 0),
        ("10.0.0.129", 0),
        ("10.0.0.8", 0),
        ("fd00::5", 1),
    ];
    update(&mut bench, &table(&routes, &neighbors));
    let tables = &bench.tables;
    assert_eq!(row(tables, "10.0.0.1/32"), resolved(0));
    assert_eq!(row(tables, "10.0.0.2/32"), None, "learnt on the other port");
    assert_eq!(
        row(tables, "10.0.0.7/32"),
        resolved(0),
        "the route's own row"
    );
    assert_eq!(row(tables, "10.0.0.129/32"), None, "routed elsewhere");
    assert_eq!(row(tables, "fd00::5/128"), resolved(1));
}

#[test]
fn a_port_without_a_mac_resolves_nothing_and_the_first_of_equal_prefixes_counts() {
    let mut bench = Bench::new();
    let routes = [("10.0.0.0/24", 7, None), ("10.0.0.0/24", 0, None)];
    update(&mut bench, &table(&routes, &[("10.0.0.1", 7)]));
    let bare = UnderlayRow {
        port: 7,
        mtu: u16::MAX,
        ..UnderlayRow::default()
    };
    assert_eq!(row(&bench.tables, "10.0.0.0/24"), Some(bare));
    let host = row(&bench.tables, "10.0.0.1/32").expect("a row");
    assert_eq!(host, UnderlayRow { dmac: PEER, ..bare });
}

#[test]
fn only_differences_are_written_and_the_first_route_changes_the_shape() {
    let mut bench = Bench::new();
    let first = bench.commit(&[]);
    assert!(!first.shape.underlay_routes);
    let routes = [("10.0.0.0/24", 0, None), ("0.0.0.0/0", 0, Some("10.0.0.1"))];
    let plan = update(&mut bench, &table(&routes, &[]));
    assert!(plan.shape_changed && plan.shape.underlay_routes);
    let plan = update(&mut bench, &table(&routes, &[]));
    assert!(plan.delta.ops.is_empty() && !plan.shape_changed);
    let plan = update(&mut bench, &table(&routes, &[("10.0.0.1", 0)]));
    let both = Touched {
        puts: 2,
        deletes: 0,
    };
    assert_eq!(plan.touched(), BTreeMap::from([(Table::Underlay, both)]));
    assert!(!plan.shape_changed);
    // The shape of the underlay stays through commits.
    assert!(bench.commit(&[]).shape.underlay_routes);
    let plan = update(&mut bench, &table(&[], &[("10.0.0.1", 0)]));
    assert!(plan.shape_changed && !plan.shape.underlay_routes);
    assert_eq!(bench.tables.count(Table::Underlay), 0);
}

proptest! {
    #[test]
    fn tables_in_any_sequence_lead_to_the_rows_of_the_last(
        picks in prop::collection::vec((any::<u8>(), any::<u8>()), 1..6),
    ) {
        const ROUTES: [(&str, u32, Option<&str>); 8] = [
            ("0.0.0.0/0", 0, Some("10.0.0.1")),
            ("10.0.0.0/24", 0, None),
            ("10.0.0.0/25", 1, None),
            ("10.0.0.1/32", 1, None),
            ("10.0.0.1/32", 0, Some("10.0.0.2")),
            ("::/0", 1, Some("fd00::1")),
            ("fd00::/64", 1, None),
            ("fd00::1/128", 0, None),
        ];
        const NEIGHBORS: [(&str, u32); 4] =
            [("10.0.0.1", 0), ("10.0.0.2", 1), ("fd00::1", 1), ("10.0.0.200", 0)];
        let pick = |list: &[(&str, u32)], bits: u8| -> Vec<(String, u32)> {
            let chosen = list.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
            chosen.map(|(_, (at, port))| ((*at).to_owned(), *port)).collect()
        };
        let mut bench = Bench::new();
        let mut last = UnderlayTable::default();
        for (routes, neighbors) in picks {
            let routes: Vec<_> = ROUTES
                .into_iter()
                .enumerate()
                .filter(|(n, _)| routes >> n & 1 == 1)
                .map(|(_, route)| route)
                .collect();
            let neighbors = pick(&NEIGHBORS, neighbors);
            let neighbors: Vec<_> = neighbors.iter().map(|(at, port)| (&**at, *port)).collect();
            last = table(&routes, &neighbors);
            update(&mut bench, &last);
        }
        let mut fresh = Bench::new();
        let plan = update(&mut fresh, &last);
        prop_assert_eq!(&bench.tables, &fresh.tables);
        prop_assert_eq!(plan.shape.underlay_routes, !last.routes.is_empty());
    }
}

#[test]
fn ports_of_different_mtus_have_rows_and_a_shape_and_equal_ones_are_the_enis() {
    let mut bench = Bench::new();
    let routes = [("10.0.0.0/24", 0, None), ("11.0.0.0/24", 1, None)];
    update(&mut bench, &table(&routes, &[]));
    let mtus = |bench: &mut Bench, mtus: &[Option<u16>], mtu| {
        let settings = Settings {
            port_mtus: mtus.to_vec(),
            mtu,
            ..Settings::default()
        };
        let plan = bench.planner.set_settings(&bench.store, settings);
        bench.tables.apply(&plan.delta);
        let of = |prefix| row(&bench.tables, prefix).map(|row| row.mtu);
        let own = [0u32, 1].map(|port| bench.tables.get::<u32>(Table::PortMtu, &port));
        let shape = (plan.shape.mtu, plan.shape.port_mtu);
        (shape, [of("10.0.0.0/24"), of("11.0.0.0/24")], own)
    };
    let (any, all) = (Some(u16::MAX), [None, None]);
    assert_eq!(mtus(&mut bench, &[], None), ((false, None), [any; 2], all));
    let (small, large) = (Some(1500), Some(9000));
    assert_eq!(
        mtus(&mut bench, &[small, large], None),
        ((false, small), [small, large], [Some(1500), Some(9000)])
    );
    // A neighbour's row comes later.
    update(&mut bench, &table(&routes, &[("11.0.0.9", 1)]));
    let host = row(&bench.tables, "11.0.0.9/32").expect("a row");
    assert_eq!(host.mtu, 9000);
    // One that nobody knows takes anything.
    assert_eq!(
        mtus(&mut bench, &[None, large], None),
        ((false, large), [any, large], [None, Some(9000)])
    );
    assert_eq!(
        mtus(&mut bench, &[large, large], None),
        ((true, None), [large; 2], [Some(9000); 2])
    );
    let (shape, ..) = mtus(&mut bench, &[large, small], Some(2000));
    assert_eq!(shape, (true, small), "the card's and the ports'");
    assert_eq!(mtus(&mut bench, &[], None), ((false, None), [any; 2], all));
}
