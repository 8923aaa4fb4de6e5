//! The meaning of an ACL group: rules tried one by one. Slow on purpose, the twin of
//! [`Classifier`](super::classifier::Classifier) in tests.

use dash_wire::tables::AclKey;
use nic_target::{AclPrefix, AclRuleRow};

/// Row of the first of `rules` that matches.
pub fn first(rules: &[AclRuleRow], key: &AclKey) -> Option<u32> {
    rules
        .iter()
        .find(|rule| matches(rule, key))
        .map(|rule| rule.action)
}

fn matches(rule: &AclRuleRow, key: &AclKey) -> bool {
    rule.protocols
        .as_ref()
        .is_none_or(|list| list.contains(&key.proto))
        && rule
            .src
            .as_ref()
            .is_none_or(|list| list.iter().any(|p| inside(p, key.sip)))
        && rule
            .dst
            .as_ref()
            .is_none_or(|list| list.iter().any(|p| inside(p, key.dip)))
        && rule
            .src_ports
            .as_ref()
            .is_none_or(|list| in_ranges(list, key.sport))
        && rule
            .dst_ports
            .as_ref()
            .is_none_or(|list| in_ranges(list, key.dport))
}

fn inside(prefix: &AclPrefix, addr: [u8; 16]) -> bool {
    (0..usize::from(prefix.len.min(128))).all(|bit| {
        let of = |a: [u8; 16]| a[bit / 8] >> (7 - bit % 8) & 1;
        of(prefix.addr) == of(addr)
    })
}

fn in_ranges(ranges: &[(u16, u16)], port: [u8; 2]) -> bool {
    let port = u16::from_be_bytes(port);
    ranges
        .iter()
        .any(|&(low, high)| (low..=high).contains(&port))
}
