//! Five stages of ACL rules, with source and destination prefixes that are all different.

use std::sync::Arc;

use dash_runtime::tables::acl::Acl;
use dash_wire::tables::AclKey;
use nic_target::{AclPrefix, AclPrefixes, AclRuleRow};

use crate::{Way, mix};

/// Stages an ENI binds in a direction.
const STAGES: u32 = 5;

/// How large the groups are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Rules of a group.
    pub rules: u64,
    /// Prefixes of a rule, half of them sources.
    pub prefixes: u64,
}

/// Groups of five stages in one family.
#[derive(Clone, Debug)]
pub struct Acls {
    acl: Acl,
    stages: Vec<Vec<AclRuleRow>>,
    size: Size,
    v6: bool,
}

fn stage(stage: u64, size: Size, v6: bool) -> Vec<AclRuleRow> {
    let prefix = |rule: u64, n: u64| {
        let bits = mix(stage << 40 | rule << 20 | n);
        let (addr, len) = if v6 {
            let net = 0x2001_0db8 << 96;
            (net | u128::from(bits as u32 & 0xffff_ff00) << 64, 56)
        } else {
            (u128::from(0x0a00_0000 | bits as u32 & 0x00ff_ffc0), 122)
        };
        AclPrefix {
            addr: addr.to_be_bytes(),
            len,
        }
    };
    let list = |rule, from: u64, to: u64| -> AclPrefixes {
        let all: Vec<_> = (from..to).map(|n| prefix(rule, n)).collect();
        all.into()
    };
    let half = size.prefixes / 2;
    let rule = |rule: u64| AclRuleRow {
        action: rule as u32,
        protocols: (rule.is_multiple_of(2)).then(|| [6, 17].into()),
        src: Some(list(rule, 0, half)),
        dst: (!rule.is_multiple_of(10)).then(|| list(rule, half, size.prefixes)),
        src_ports: None,
        dst_ports: (rule.is_multiple_of(2)).then(|| {
            let low = (rule * 60) as u16;
            [(low, low.saturating_add(100))].into()
        }),
    };
    (0..size.rules).map(rule).collect()
}

/// Looks keys up in all stages; how many were found in how many.
fn find(acl: &Acl, keys: &[AclKey]) -> usize {
    let stages = |key: &AclKey| {
        (1..=STAGES)
            .filter(|&group| acl.get(&AclKey { group, ..*key }).is_some())
            .count()
    };
    keys.iter().map(stages).sum()
}

impl Acls {
    /// Makes the groups, and binds them to an ENI's stages.
    pub fn new(size: Size, v6: bool) -> Self {
        let stages: Vec<_> = (0..STAGES.into()).map(|n| stage(n, size, v6)).collect();
        let mut acl = Acl::new();
        for (rules, group) in stages.iter().zip(1..) {
            acl.set(group, Some(rules));
        }
        acl.bind(&[[1, 2, 3, 4, 5]]);
        Self {
            acl,
            stages,
            size,
            v6,
        }
    }

    /// The same groups, of which no ENI binds any.
    pub fn unbound(&self) -> Self {
        let mut other = self.clone();
        other.acl.bind(&[]);
        other
    }

    /// Memory of all, bytes.
    pub fn memory(&self) -> usize {
        self.acl.memory()
    }

    /// Packets that some rule matches, of all rules in no order.
    pub fn packets(&self, many: usize) -> Vec<AclKey> {
        let half = (self.size.prefixes / 2).max(1);
        let pick = |list: &Option<AclPrefixes>, n: u64| {
            let list = list.as_ref().map(|l| Arc::clone(&l.lists()[0]));
            let prefix = list.and_then(|l| l.get((n % half) as usize).copied());
            prefix.map_or([0; 16], |prefix| prefix.addr)
        };
        let packet = |n: u64| {
            let bits = mix(n);
            let stage = &self.stages[bits as usize % self.stages.len()];
            let rule = &stage[(bits >> 8) as usize % stage.len()];
            let dport = rule.dst_ports.as_ref().map_or(80, |ports| ports[0].0);
            AclKey {
                proto: 17,
                v6: self.v6.into(),
                sip: pick(&rule.src, bits >> 20),
                dip: pick(&rule.dst, bits >> 30),
                dport: dport.to_be_bytes(),
                ..AclKey::default()
            }
        };
        (0..many as u64).map(packet).collect()
    }

    /// Looks packets up in all five stages, so many times over.
    pub fn way<'a>(&'a self, name: &'static str, packets: &'a [AclKey], times: usize) -> Way<'a> {
        Way::new(name, move || {
            (0..times).map(|_| find(&self.acl, packets)).sum()
        })
    }

    /// Rules of a group that is like the others.
    pub fn other_group(&self) -> Vec<AclRuleRow> {
        stage(77, self.size, self.v6)
    }

    /// The groups after one was made again, as a transaction makes it.
    pub fn change(&self, rules: &[AclRuleRow]) -> Self {
        let mut next = self.clone();
        next.acl.set(1, Some(rules));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_is_of_a_rule_whether_bound_or_not() {
        let size = Size {
            rules: 40,
            prefixes: 10,
        };
        for v6 in [false, true] {
            let acls = Acls::new(size, v6);
            let packets = acls.packets(500);
            let found = acls.way("bound", &packets, 1).run();
            assert!(found >= packets.len(), "{found}");
            let unbound = acls.unbound();
            assert_eq!(unbound.way("unbound", &packets, 2).run(), 2 * found);
            assert!(acls.memory() > 0);
            let changed = acls.change(&acls.other_group());
            assert!(changed.way("changed", &packets, 1).run() < found);
        }
    }
}
