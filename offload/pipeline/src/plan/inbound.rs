//! Inbound route rules, chosen by priority, as rows chosen by longest prefix ([`super::priority`]).
//!
//! Rows are of a VNI, and of a VNI and a protocol where a rule of the VNI is for that protocol. The latter are made
//! of the rules for all protocols, too: who finds one of them has found the best of both, and who finds none has none for
//! that protocol, whatever there is for all.

use std::collections::BTreeMap;

use dash_model::key::{RouteRuleKey, SourcePrefix};
use dash_wire::tables::{INBOUND_PROTOCOL_SHIFT, InboundKey, InboundRow};
use nic_target::Table;

use super::ops::Ops;
use super::priority::Priorities;

/// ENI index and VNI.
type Network = (u32, u32);
/// The same, with the protocol above the VNI: 0 for all.
type Scope = (u32, u32);

/// The rules of every ENI and VNI. A priority is unique among those of a prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbound {
    rows: Priorities<Scope, SourcePrefix, (), InboundRow>,
    /// Protocols that rules of a network are for, with how many are.
    protocols: BTreeMap<Network, BTreeMap<u8, usize>>,
}

impl Inbound {
    pub(super) fn insert(
        &mut self,
        eni: u32,
        key: &RouteRuleKey,
        protocol: Option<u8>,
        row: InboundRow,
    ) {
        let network = (eni, key.vni.get());
        let rank = (key.priority, ());
        let Some(protocol) = protocol else {
            for scope in self.scopes(network) {
                self.rows.insert(scope, key.source, rank, row);
            }
            return;
        };
        let scope = scope(network, protocol);
        let rules = self.protocols.entry(network).or_default();
        let rules = rules.entry(protocol).or_default();
        *rules += 1;
        if *rules == 1 {
            for (prefix, rank, row) in self.rows.rules(network) {
                self.rows.insert(scope, prefix, rank, row);
            }
        }
        self.rows.insert(scope, key.source, rank, row);
    }

    pub(super) fn remove(&mut self, eni: u32, key: &RouteRuleKey, protocol: Option<u8>) {
        let network = (eni, key.vni.get());
        let rank = (key.priority, ());
        let Some(protocol) = protocol else {
            for scope in self.scopes(network) {
                self.rows.remove(scope, key.source, &rank);
            }
            return;
        };
        let scope = scope(network, protocol);
        self.rows.remove(scope, key.source, &rank);
        let Some(rules) = self.protocols.get_mut(&network) else {
            return;
        };
        let last = rules.get_mut(&protocol).is_some_and(|count| {
            *count -= 1;
            *count == 0
        });
        if !last {
            return;
        }
        rules.remove(&protocol);
        if rules.is_empty() {
            self.protocols.remove(&network);
        }
        for (prefix, rank, _) in self.rows.rules(scope) {
            self.rows.remove(scope, prefix, &rank);
        }
    }

    /// Where a rule for all protocols is.
    fn scopes(&self, network: Network) -> Vec<Scope> {
        let protocols = self.protocols.get(&network).into_iter().flatten();
        let particular = protocols.map(|(protocol, _)| scope(network, *protocol));
        std::iter::once(network).chain(particular).collect()
    }

    /// Writes the rows that differ.
    pub(super) fn flush(&mut self, ops: &mut Ops) {
        self.rows.flush(|(eni, vni), prefix, row| {
            let key = InboundKey {
                prefix_len: 64 + u32::from(prefix.len),
                eni,
                vni,
                sip: prefix.addr.octets(),
            };
            match row {
                Some(row) => ops.put(Table::Inbound, &key, &row),
                None => ops.delete(Table::Inbound, &key),
            }
        });
    }
}

fn scope((eni, vni): Network, protocol: u8) -> Scope {
    (eni, vni | u32::from(protocol) << INBOUND_PROTOCOL_SHIFT)
}

/// VNI and protocol of what a key says in its place for the VNI.
pub(super) fn parts(vni: u32) -> (u32, Option<u8>) {
    let protocol = (vni >> INBOUND_PROTOCOL_SHIFT) as u8;
    let vni = vni & ((1 << INBOUND_PROTOCOL_SHIFT) - 1);
    (vni, (protocol != 0).then_some(protocol))
}
