//! The underlay: where a packet leaves once its outermost destination is known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dash_model::net::IpPrefix;
use dash_wire::tables::{UnderlayKey, UnderlayRow, underlay_flags};
use nic_target::Table;

use super::ops::Ops;

/// Routes and neighbours of the card's ports, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderlayTable {
    /// Routes; of several with one prefix the first counts.
    pub routes: Vec<UnderlayRoute>,
    /// MAC, and the port it was learnt on, of addresses next to the card.
    pub neighbors: BTreeMap<IpAddr, ([u8; 6], u32)>,
    /// MAC of each port.
    pub port_macs: Vec<[u8; 6]>,
}

/// One underlay route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderlayRoute {
    /// Destinations.
    pub prefix: IpPrefix,
    /// Port they leave by.
    pub port: u32,
    /// Router to send them to; `None` when they are next to the card.
    pub next_hop: Option<IpAddr>,
}

/// The rows as they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Underlay {
    rows: BTreeMap<IpPrefix, UnderlayRow>,
    /// By port.
    mtus: BTreeMap<u32, u16>,
}

impl Underlay {
    pub(super) fn has_routes(&self) -> bool {
        // Neighbours have rows below an on-link route only.
        !self.rows.is_empty()
    }

    /// Writes what differs when ports have these limits.
    pub(super) fn ports(&mut self, mtus: &[Option<u16>], ops: &mut Ops) {
        let known = |(port, mtu): (u32, &Option<u16>)| mtu.map(|mtu| (port, mtu));
        let mtus: BTreeMap<u32, u16> = (0..).zip(mtus).filter_map(known).collect();
        if mtus == self.mtus {
            return;
        }
        for port in self.mtus.keys().filter(|port| !mtus.contains_key(port)) {
            ops.delete_index(Table::PortMtu, *port);
        }
        for (port, mtu) in &mtus {
            if self.mtus.get(port) != Some(mtu) {
                ops.put_index(Table::PortMtu, *port, &u32::from(*mtu));
            }
        }
        self.mtus = mtus;
        let mut rows = std::mem::take(&mut self.rows);
        for (prefix, row) in &mut rows {
            let mtu = self.mtu(row.port);
            if std::mem::replace(&mut row.mtu, mtu) != mtu {
                ops.put(Table::Underlay, &key(prefix), row);
            }
        }
        self.rows = rows;
    }

    fn mtu(&self, port: u32) -> u16 {
        self.mtus.get(&port).copied().unwrap_or(u16::MAX)
    }

    /// Writes the rows that differ.
    pub(super) fn update(&mut self, table: &UnderlayTable, mtus: &[Option<u16>], ops: &mut Ops) {
        self.ports(mtus, ops);
        let mut rows = table.rows();
        for row in rows.values_mut() {
            row.mtu = self.mtu(row.port);
        }
        for (prefix, row) in &rows {
            if self.rows.get(prefix) != Some(row) {
                ops.put(Table::Underlay, &key(prefix), row);
            }
        }
        for prefix in self.rows.keys().filter(|prefix| !rows.contains_key(prefix)) {
            ops.delete(Table::Underlay, &key(prefix));
        }
        self.rows = rows;
    }
}

impl UnderlayTable {
    fn rows(&self) -> BTreeMap<IpPrefix, UnderlayRow> {
        let mut routes = BTreeMap::new();
        for route in &self.routes {
            routes.entry(route.prefix).or_insert(route);
        }
        let mut rows: BTreeMap<IpPrefix, UnderlayRow> = routes
            .iter()
            .map(|(prefix, route)| (*prefix, self.row(route.port, route.next_hop)))
            .collect();

        let lengths: BTreeSet<u8> = routes.keys().map(IpPrefix::prefix_len).collect();
        for (&ip, &(_, port)) in &self.neighbors {
            let longest = lengths.iter().rev().find_map(|&len| {
                let prefix = IpPrefix::new(ip, len)?;
                routes.get(&prefix)
            });
            // A neighbour that the routes reach another way is not used.
            if longest.is_some_and(|route| route.next_hop.is_none() && route.port == port) {
                rows.insert(IpPrefix::host(ip), self.row(port, Some(ip)));
            }
        }
        rows
    }

    /// The row of a port and, when it is known on that port, a neighbour.
    fn row(&self, port: u32, neighbor: Option<IpAddr>) -> UnderlayRow {
        let smac = usize::try_from(port)
            .ok()
            .and_then(|port| self.port_macs.get(port));
        let dmac = neighbor
            .and_then(|ip| self.neighbors.get(&ip))
            .filter(|(_, on)| *on == port)
            .map(|(mac, _)| mac);
        UnderlayRow {
            port,
            flags: if smac.is_some() && dmac.is_some() {
                underlay_flags::RESOLVED
            } else {
                0
            },
            dmac: dmac.copied().unwrap_or_default(),
            smac: smac.copied().unwrap_or_default(),
            // That of its port is not the table's to say.
            mtu: u16::MAX,
            pad: [0; 2],
        }
    }
}

fn key(prefix: &IpPrefix) -> UnderlayKey {
    let mut dst = [0; 16];
    let v6 = match prefix.addr() {
        IpAddr::V4(ip) => {
            dst[..4].copy_from_slice(&ip.octets());
            0
        }
        IpAddr::V6(ip) => {
            dst = ip.octets();
            1
        }
    };
    UnderlayKey {
        prefix_len: 32 + u32::from(prefix.prefix_len()),
        v6,
        dst,
    }
}
