//! Inbound route rules, chosen by priority, as rows chosen by longest prefix ([`super::priority`]).

use dash_model::key::{RouteRuleKey, SourcePrefix};
use dash_wire::tables::{InboundKey, InboundRow};
use nic_target::Table;

use super::ops::Ops;
use super::priority::Priorities;

/// ENI index and VNI.
type Scope = (u32, u32);

/// The rules of every ENI and VNI. A priority is unique among those of a prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Inbound(Priorities<Scope, SourcePrefix, (), InboundRow>);

impl Inbound {
    pub(super) fn insert(&mut self, eni: u32, key: &RouteRuleKey, row: InboundRow) {
        let scope = (eni, key.vni.get());
        self.0.insert(scope, key.source, (key.priority, ()), row);
    }

    pub(super) fn remove(&mut self, eni: u32, key: &RouteRuleKey) {
        let scope = (eni, key.vni.get());
        self.0.remove(scope, key.source, &(key.priority, ()));
    }

    /// Writes the rows that differ.
    pub(super) fn flush(&mut self, ops: &mut Ops) {
        self.0.flush(|(eni, vni), prefix, row| {
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
