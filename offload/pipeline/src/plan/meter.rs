//! Metering: rules of meter policies, chosen by priority, as rows chosen by longest prefix
//! ([`super::priority`]).

use std::net::IpAddr;
use std::sync::Arc;

use dash_model::net::IpPrefix;
use dash_model::objects::{MeterBits, MeterClass, MeterRule, Object};
use dash_wire::tables::MeterRuleKey;
use nic_target::Table;

use super::ops::Ops;
use super::priority::Priorities;

/// The rules of every policy, by the policy's number.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Priorities<u32, IpPrefix, Arc<str>, u32>);

impl Rules {
    pub(super) fn insert(&mut self, policy: u32, number: &Arc<str>, rule: &MeterRule) {
        let rank = (rule.priority, Arc::clone(number));
        let class = u32::from(rule.class.get());
        self.0.insert(policy, rule.prefix, rank, class);
    }

    pub(super) fn remove(&mut self, policy: u32, number: &Arc<str>, rule: &MeterRule) {
        let rank = (rule.priority, Arc::clone(number));
        self.0.remove(policy, rule.prefix, &rank);
    }

    /// Writes the rows that differ.
    pub(super) fn flush(&mut self, ops: &mut Ops) {
        self.0.flush(|policy, prefix, row| {
            let key = MeterRuleKey {
                prefix_len: 32 + u32::from(prefix.prefix_len()),
                policy,
                ip: first16(prefix.addr()),
            };
            match row {
                Some(class) => ops.put(Table::MeterRule, &key, &class),
                None => ops.delete(Table::MeterRule, &key),
            }
        });
    }
}

/// An address in 16 bytes: IPv4 in the first 4, so that prefixes of both families line up.
fn first16(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// True for an object that may give a flow a metering class.
pub(super) fn meters(object: &Object) -> bool {
    let sets = |or: MeterClass| or != MeterClass::default();
    let bits = |bits: &MeterBits| sets(bits.or);
    match object {
        Object::Route(route) => bits(&route.meter),
        Object::RouteRule(rule) => bits(&rule.meter),
        Object::VnetMapping(mapping) => sets(mapping.meter_or),
        Object::Tunnel(tunnel) => sets(tunnel.meter_or),
        Object::Eni(eni) => eni.v4_meter_policy.is_some() || eni.v6_meter_policy.is_some(),
        _ => false,
    }
}
