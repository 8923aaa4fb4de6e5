//! Policy tables as sorted lists of rows, searched from end to end.

use std::collections::BTreeMap;
use std::sync::Arc;

use dash_bpf::MapKind;
use dash_wire::tables::{
    AclKey, EniMacKey, Globals, InboundKey, MappingKey, MeterRuleKey, PaKey, PaPrefixKey,
    PortRangeKey, QosRow, Route4Key, Route6Key, TrustedVniKey, TunnelKey, UnderlayKey,
};
use nic_target::tables::Discipline;
use nic_target::{AclPrefixes, AclRuleRow, Capacity, Table, TableDelta, TableOp, TargetError};
use zerocopy::{FromBytes, IntoBytes};

use super::ENGINE;
use super::value::{Row, Value};

/// Most specific last, as a list of prefixes is read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    /// Bits of `data` that count.
    bits: u32,
    /// The key after its prefix length; bits that do not count are zero.
    data: Vec<u8>,
}

impl Prefix {
    /// From a row's key; `None` when it claims more bits than it has.
    fn from_key(key: &[u8]) -> Option<Self> {
        let (bits, data) = key.split_first_chunk::<4>()?;
        let bits = u32::from_ne_bytes(*bits);
        let mut data = data.to_vec();
        if bits as usize > data.len() * 8 {
            return None;
        }
        for (i, byte) in data.iter_mut().enumerate() {
            *byte &= mask(bits, i);
        }
        Some(Self { bits, data })
    }

    fn covers(&self, data: &[u8]) -> bool {
        same_bits(&self.data, data, self.bits)
    }
}

/// Bits of byte `i` that a prefix of `bits` covers.
fn mask(bits: u32, i: usize) -> u8 {
    let before = (i as u32) * 8;
    match bits.saturating_sub(before) {
        0 => 0,
        n @ 1..=7 => 0xff << (8 - n),
        _ => 0xff,
    }
}

fn same_bits(a: &[u8], b: &[u8], bits: u32) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .enumerate()
            .all(|(i, (a, b))| (a ^ b) & mask(bits, i) == 0)
}

/// What a look-up found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) row: Row,
    pub(super) by: By,
}

/// How it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// By equality or index.
    Exact,
    /// By the longest prefix: this many bits of the whole key.
    Prefix(u32),
    /// By the ACL rule with this index.
    Rule(usize),
}

/// A row as it was before a change.
enum Undo {
    Exact(Table, Vec<u8>, Option<Row>),
    Prefix(Table, Prefix, Option<Row>),
    Acl(u32, Option<Arc<[AclRuleRow]>>),
}

/// Contents of every policy table.
pub(super) struct Tables {
    capacity: Capacity,
    /// Arrays (by index, in the key's bytes) and exact tables.
    exact: BTreeMap<Table, BTreeMap<Vec<u8>, Row>>,
    prefixes: BTreeMap<Table, BTreeMap<Prefix, Row>>,
    acl: BTreeMap<u32, Arc<[AclRuleRow]>>,
}

impl Tables {
    pub(super) fn new(capacity: &Capacity) -> Self {
        Self {
            capacity: capacity.clone(),
            exact: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            acl: BTreeMap::new(),
        }
    }

    /// The settings; zero before they are written.
    pub(super) fn globals(&self) -> Globals {
        let row = self
            .exact
            .get(&Table::Globals)
            .and_then(|rows| rows.get(0u32.as_bytes()));
        match row {
            Some(Row::Globals(g)) => *g,
            _ => Globals::default(),
        }
    }

    /// Limits of an ENI; `None` for one that the capacity has no place for.
    pub(super) fn limits(&self, eni: u32) -> Option<QosRow> {
        if eni >= self.capacity.enis {
            return None;
        }
        let rows = self.exact.get(&Table::Qos);
        match rows.and_then(|rows| rows.get(eni.as_bytes())) {
            Some(Row::Qos(row)) => Some(*row),
            _ => Some(QosRow::default()),
        }
    }

    /// Makes all changes or, with an error, none.
    pub(super) fn apply(&mut self, delta: &TableDelta) -> Result<(), TargetError> {
        let mut undo = Vec::with_capacity(delta.ops.len());
        let done = delta
            .ops
            .iter()
            .try_for_each(|op| self.change(op, &mut undo))
            .and_then(|()| self.fits());
        if done.is_err() {
            for change in undo.into_iter().rev() {
                self.revert(change);
            }
        }
        done
    }

    fn change(&mut self, op: &TableOp, undo: &mut Vec<Undo>) -> Result<(), TargetError> {
        match op {
            TableOp::Put { table, key, value } => {
                let def = self.writable(*table)?;
                size(*table, "key", key, def.key_size)?;
                size(*table, "value", value, def.value_size)?;
                let row = Row::from_bytes(*table, value)
                    .ok_or(TargetError::NotPolicy { table: *table })?;
                self.replace(*table, def.kind, key, Some(row), undo)
            }
            TableOp::Delete { table, key } => {
                let def = self.writable(*table)?;
                size(*table, "key", key, def.key_size)?;
                self.replace(*table, def.kind, key, None, undo)
            }
            TableOp::Acl { group, rules } => {
                if *group == 0 {
                    return Err(TargetError::BadIndex {
                        table: Table::Acl,
                        index: 0,
                    });
                }
                let old = match rules {
                    Some(rules) => self.acl.insert(*group, Arc::clone(rules)),
                    None => self.acl.remove(group),
                };
                undo.push(Undo::Acl(*group, old));
                Ok(())
            }
        }
    }

    fn writable(&self, table: Table) -> Result<dash_bpf::MapDef, TargetError> {
        if table.discipline() == Discipline::Policy && table != Table::Acl {
            Ok(table.def(&self.capacity))
        } else {
            Err(TargetError::NotPolicy { table })
        }
    }

    /// Puts a row, or takes it away.
    fn replace(
        &mut self,
        table: Table,
        kind: MapKind,
        key: &[u8],
        row: Option<Row>,
        undo: &mut Vec<Undo>,
    ) -> Result<(), TargetError> {
        if kind == MapKind::LpmTrie {
            let prefix = Prefix::from_key(key).ok_or_else(|| TargetError::Unsupported {
                engine: ENGINE,
                reason: format!(
                    "a row of table {} claims a longer prefix than its key has",
                    table.name()
                ),
            })?;
            let rows = self.prefixes.entry(table).or_default();
            let old = set(rows, prefix.clone(), row);
            undo.push(Undo::Prefix(table, prefix, old));
            return Ok(());
        }
        if kind == MapKind::Array {
            let index = array_index(key);
            if index >= table.def(&self.capacity).max_entries {
                return Err(TargetError::BadIndex { table, index });
            }
        }
        // A deleted array row reads as zero, and so does one never written.
        let old = set(self.exact.entry(table).or_default(), key.to_vec(), row);
        undo.push(Undo::Exact(table, key.to_vec(), old));
        Ok(())
    }

    fn revert(&mut self, change: Undo) {
        match change {
            Undo::Exact(table, key, old) => {
                set(self.exact.entry(table).or_default(), key, old);
            }
            Undo::Prefix(table, prefix, old) => {
                set(self.prefixes.entry(table).or_default(), prefix, old);
            }
            Undo::Acl(group, old) => {
                set(&mut self.acl, group, old);
            }
        }
    }

    fn fits(&self) -> Result<(), TargetError> {
        let exact = self.exact.iter().map(|(t, rows)| (*t, rows.len()));
        let prefixes = self.prefixes.iter().map(|(t, rows)| (*t, rows.len()));
        for (table, rows) in exact.chain(prefixes).chain([(Table::Acl, self.acl.len())]) {
            let capacity = table.def(&self.capacity).max_entries;
            if rows > capacity as usize {
                return Err(TargetError::TableFull { table, capacity });
            }
        }
        Ok(())
    }

    /// Finds the row for a key whose components are in schema order. The outer `None` says that
    /// the components are not a key of this table.
    pub(super) fn lookup(&self, table: Table, key: &[Value]) -> Option<Option<Found>> {
        if table == Table::Acl {
            return self.first_rule(&acl_key(key)?);
        }
        let bytes = key_bytes(table, key)?;
        let def = table.def(&self.capacity);
        Some(match def.kind {
            MapKind::LpmTrie => {
                let wanted = bytes.get(4..)?;
                let mut rows = self.prefixes.get(&table).into_iter().flatten();
                // Rows are sorted by length: the last that covers the key is the longest.
                rows.rfind(|(prefix, _)| prefix.covers(wanted))
                    .map(|(prefix, row)| Found {
                        row: *row,
                        by: By::Prefix(prefix.bits),
                    })
            }
            kind => {
                let row = self
                    .exact
                    .get(&table)
                    .and_then(|rows| rows.get(&bytes))
                    .copied();
                let row = match row {
                    None if kind == MapKind::Array && array_index(&bytes) < def.max_entries => {
                        Row::from_bytes(table, &vec![0; def.value_size as usize])
                    }
                    row => row,
                };
                row.map(|row| Found { row, by: By::Exact })
            }
        })
    }

    fn first_rule(&self, key: &AclKey) -> Option<Option<Found>> {
        let rules = self.acl.get(&key.group).map_or(&[][..], |rules| rules);
        let first = rules
            .iter()
            .enumerate()
            .find(|(_, rule)| rule_matches(rule, key));
        Some(first.map(|(i, rule)| Found {
            row: Row::Number(rule.action),
            by: By::Rule(i),
        }))
    }
}

fn set<K: Ord, V>(rows: &mut BTreeMap<K, V>, key: K, row: Option<V>) -> Option<V> {
    match row {
        Some(row) => rows.insert(key, row),
        None => rows.remove(&key),
    }
}

fn size(table: Table, part: &'static str, bytes: &[u8], want: u32) -> Result<(), TargetError> {
    let want = want as usize;
    if bytes.len() == want {
        Ok(())
    } else {
        Err(TargetError::RowSize {
            table,
            part,
            got: bytes.len(),
            want,
        })
    }
}

fn array_index(key: &[u8]) -> u32 {
    // Keys of arrays have been checked to be of 4 bytes.
    u32::read_from_bytes(key).unwrap_or(u32::MAX)
}

/// All fields that are present match (DASH reference 2.2 S10).
fn rule_matches(rule: &AclRuleRow, key: &AclKey) -> bool {
    let protocol = rule
        .protocols
        .as_ref()
        .is_none_or(|list| list.contains(&key.proto));
    let prefix = |list: &Option<AclPrefixes>, ip: &[u8; 16]| {
        list.as_ref().is_none_or(|list| {
            list.iter()
                .any(|p| same_bits(&p.addr, ip, u32::from(p.len)))
        })
    };
    let port = |list: &Option<Box<[(u16, u16)]>>, port: [u8; 2]| {
        let port = u16::from_be_bytes(port);
        list.as_ref().is_none_or(|list| {
            list.iter()
                .any(|(low, high)| (*low..=*high).contains(&port))
        })
    };
    protocol
        && prefix(&rule.src, &key.sip)
        && prefix(&rule.dst, &key.dip)
        && port(&rule.src_ports, key.sport)
        && port(&rule.dst_ports, key.dport)
}

fn acl_key(key: &[Value]) -> Option<AclKey> {
    let [group, proto, v6, sip, dip, sport, dport] = key else {
        return None;
    };
    Some(AclKey {
        group: group.num()? as u32,
        proto: proto.num()? as u8,
        v6: v6.num()? as u8,
        pad: 0,
        sip: sip.array()?,
        dip: dip.array()?,
        sport: sport.array()?,
        dport: dport.array()?,
    })
}

/// A key as control writes it (with prefix length 0), from its components. Numbers are cut to the
/// width of their place.
fn key_bytes(table: Table, key: &[Value]) -> Option<Vec<u8>> {
    Some(match (table, key) {
        (Table::Globals | Table::Eni | Table::RoutingType | Table::PortMtu, [index]) => {
            (index.num()? as u32).as_bytes().to_vec()
        }
        (Table::EniMac, [mac]) => EniMacKey {
            mac: mac.array()?,
            pad: [0; 2],
        }
        .as_bytes()
        .to_vec(),
        (Table::TrustedVni, [eni, vni]) => TrustedVniKey {
            prefix_len: 0,
            eni: eni.array()?,
            vni: vni.array()?,
            pad: [0; 3],
        }
        .as_bytes()
        .to_vec(),
        (Table::Route4 | Table::Route4More, [group, dst]) => Route4Key {
            prefix_len: 0,
            group: group.num()? as u32,
            dst: dst.array()?,
        }
        .as_bytes()
        .to_vec(),
        (Table::Route6 | Table::Route6More, [group, dst]) => Route6Key {
            prefix_len: 0,
            group: group.num()? as u32,
            dst: dst.array()?,
        }
        .as_bytes()
        .to_vec(),
        (Table::Mapping | Table::MappingMore, [vnet, v6, ip]) => MappingKey {
            vnet: vnet.num()? as u16,
            v6: v6.num()? as u8,
            pad: 0,
            ip: ip.array()?,
        }
        .as_bytes()
        .to_vec(),
        (Table::Inbound, [eni, vni, sip]) => {
            let (eni, vni) = (eni.num()? as u32, vni.num()? as u32);
            InboundKey {
                prefix_len: 0,
                eni,
                vni,
                sip: sip.array()?,
            }
            .as_bytes()
            .to_vec()
        }
        (Table::PaValidation, [vnet, sip]) => PaKey {
            vnet: vnet.num()? as u16,
            pad: 0,
            sip: sip.array()?,
        }
        .as_bytes()
        .to_vec(),
        (Table::PaPrefix, [vnet, sip]) => PaPrefixKey {
            prefix_len: 0,
            vnet: vnet.num()? as u32,
            sip: sip.array()?,
        }
        .as_bytes()
        .to_vec(),
        (Table::Tunnel, [tunnel, member]) => TunnelKey {
            tunnel: tunnel.num()? as u32,
            member: member.num()? as u32,
        }
        .as_bytes()
        .to_vec(),
        (Table::PortRange, [map, port]) => PortRangeKey {
            prefix_len: 0,
            map: map.num()? as u32,
            port: port.array()?,
            pad: [0; 2],
        }
        .as_bytes()
        .to_vec(),
        (Table::MeterRule, [policy, ip]) => MeterRuleKey {
            prefix_len: 0,
            policy: policy.num()? as u32,
            ip: ip.array()?,
        }
        .as_bytes()
        .to_vec(),
        (Table::Underlay, [v6, dst]) => UnderlayKey {
            prefix_len: 0,
            v6: v6.num()? as u32,
            dst: dst.array()?,
        }
        .as_bytes()
        .to_vec(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dash_wire::tables::{EniRow, RouteRow};
    use nic_target::AclPrefix;

    fn route(group: u32, dst: [u8; 4], len: u32, action: u8) -> TableOp {
        TableOp::Put {
            table: Table::Route4,
            key: Route4Key {
                prefix_len: 32 + len,
                group,
                dst,
            }
            .as_bytes()
            .into(),
            value: RouteRow {
                action,
                ..RouteRow::default()
            }
            .as_bytes()
            .into(),
        }
    }

    fn action(tables: &Tables, group: u64, dst: [u8; 4]) -> Option<u64> {
        let found = tables
            .lookup(Table::Route4, &[Value::Num(group), Value::bytes(&dst)])
            .unwrap()?;
        found.row.value("action")?.num()
    }

    fn delta(ops: impl Into<Vec<TableOp>>) -> TableDelta {
        TableDelta { ops: ops.into() }
    }

    #[test]
    fn the_longest_prefix_of_the_right_group_wins() {
        let mut tables = Tables::new(&Capacity::default());
        let rows = [
            route(1, [0; 4], 0, 2),
            route(1, [10, 0, 0, 0], 8, 0),
            route(1, [10, 1, 1, 1], 32, 4),
            route(2, [0; 4], 0, 1),
        ];
        tables.apply(&delta(rows)).unwrap();
        assert_eq!(action(&tables, 1, [10, 1, 1, 1]), Some(4));
        assert_eq!(action(&tables, 1, [10, 1, 1, 2]), Some(0));
        assert_eq!(action(&tables, 1, [8, 8, 8, 8]), Some(2));
        assert_eq!(action(&tables, 2, [10, 1, 1, 1]), Some(1));
        assert_eq!(action(&tables, 3, [10, 1, 1, 1]), None);
    }

    #[test]
    fn host_bits_of_a_prefix_do_not_count() {
        let mut tables = Tables::new(&Capacity::default());
        tables
            .apply(&delta([
                route(1, [10, 1, 2, 3], 16, 7),
                route(1, [10, 1, 0, 0], 16, 8),
            ]))
            .unwrap();
        assert_eq!(
            action(&tables, 1, [10, 1, 9, 9]),
            Some(8),
            "one row, the later change"
        );
    }

    #[test]
    fn a_refused_update_changes_nothing() {
        let mut tables = Tables::new(&Capacity {
            routes: 2,
            ..Capacity::default()
        });
        tables
            .apply(&delta([route(1, [10, 0, 0, 0], 8, 1)]))
            .unwrap();
        let full = tables.apply(&delta([
            route(1, [10, 0, 0, 0], 8, 9),
            route(1, [11, 0, 0, 0], 8, 9),
            route(1, [12, 0, 0, 0], 8, 9),
        ]));
        assert!(
            matches!(
                full,
                Err(TargetError::TableFull {
                    table: Table::Route4,
                    capacity: 2
                })
            ),
            "{full:?}"
        );
        assert_eq!(action(&tables, 1, [10, 0, 0, 1]), Some(1));
        assert_eq!(action(&tables, 1, [11, 0, 0, 1]), None);

        let short = TableOp::Put {
            table: Table::EniMac,
            key: [0; 7].into(),
            value: [0; 4].into(),
        };
        let refused = tables.apply(&delta([route(1, [10, 0, 0, 0], 8, 9), short]));
        assert!(
            matches!(
                refused,
                Err(TargetError::RowSize {
                    part: "key",
                    got: 7,
                    want: 8,
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(action(&tables, 1, [10, 0, 0, 1]), Some(1));
    }

    #[test]
    fn control_writes_no_core_table_and_no_row_outside_an_array() {
        let mut tables = Tables::new(&Capacity {
            enis: 2,
            ..Capacity::default()
        });
        let put = |table, key: u32, size| TableOp::Put {
            table,
            key: key.as_bytes().into(),
            value: vec![0; size].into(),
        };
        let core = tables.apply(&delta([put(Table::FlowSlab, 0, 208)]));
        assert!(
            matches!(
                core,
                Err(TargetError::NotPolicy {
                    table: Table::FlowSlab
                })
            ),
            "{core:?}"
        );
        let outside = tables.apply(&delta([put(Table::Eni, 2, size_of::<EniRow>())]));
        assert!(
            matches!(
                outside,
                Err(TargetError::BadIndex {
                    table: Table::Eni,
                    index: 2
                })
            ),
            "{outside:?}"
        );
    }

    #[test]
    fn array_rows_exist_from_the_start_and_read_as_zero() {
        let tables = Tables::new(&Capacity {
            enis: 2,
            ..Capacity::default()
        });
        let flags = |i| {
            tables
                .lookup(Table::Eni, &[Value::Num(i)])
                .unwrap()
                .and_then(|f| f.row.value("flags"))
        };
        assert_eq!(flags(1), Some(Value::Num(0)));
        assert_eq!(flags(2), None);
    }

    #[test]
    fn acl_rules_are_tried_in_order_and_every_present_field_must_match() {
        let any = AclRuleRow {
            action: 0,
            protocols: None,
            src: None,
            dst: None,
            src_ports: None,
            dst_ports: None,
        };
        let mut host = [0; 16];
        host[12..].copy_from_slice(&[10, 0, 0, 2]);
        let rules = [
            AclRuleRow {
                action: 9,
                dst: Some(AclPrefixes::default()),
                ..any.clone()
            },
            AclRuleRow {
                action: 2,
                protocols: Some([17].into()),
                dst: Some(
                    [AclPrefix {
                        addr: host,
                        len: 128,
                    }]
                    .into(),
                ),
                dst_ports: Some([(1, 2), (4, 4)].into()),
                ..any.clone()
            },
            AclRuleRow {
                action: 1,
                src_ports: Some([(7, 7)].into()),
                ..any
            },
        ];
        let mut tables = Tables::new(&Capacity::default());
        tables
            .apply(&delta([TableOp::Acl {
                group: 5,
                rules: Some(rules.into()),
            }]))
            .unwrap();
        let action = |group: u64, proto: u64, dip: [u8; 16], sport: u16, dport: u16| {
            let key = [
                Value::Num(group),
                Value::Num(proto),
                Value::Num(0),
                Value::bytes(&[0; 16]),
                Value::bytes(&dip),
                Value::bytes(&sport.to_be_bytes()),
                Value::bytes(&dport.to_be_bytes()),
            ];
            tables
                .lookup(Table::Acl, &key)
                .unwrap()
                .map(|f| (f.row, f.by))
        };
        let rule = |action, i| Some((Row::Number(action), By::Rule(i)));
        assert_eq!(action(5, 17, host, 7, 2), rule(2, 1));
        assert_eq!(
            action(5, 17, host, 7, 3),
            rule(1, 2),
            "a port between the ranges"
        );
        assert_eq!(action(5, 6, host, 7, 2), rule(1, 2), "another protocol");
        assert_eq!(action(5, 17, [0; 16], 8, 2), None, "no rule left");
        assert_eq!(action(6, 17, host, 7, 2), None, "no such group");
    }
}
