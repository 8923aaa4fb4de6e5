//! ACL groups as a classifier takes them: rules in order, with the lists of their tags (A21, A22).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use dash_model::Store;
use dash_model::key::{AclGroupId, ObjectKey, TagName};
use dash_model::net::{IpPrefix, PortRange};
use dash_model::objects::{AclAction, AclRule, Family};
use dash_wire::tables::acl_action;
use nic_target::{AclPrefix, AclPrefixes, AclRuleRow};

use super::Edit;
use super::rows::ip16;

/// Groups whose rules may be others after the edits: their own changed, or those of a tag that a
/// rule names.
pub(super) fn touched<'a>(store: &'a Store, edits: &[Edit<'a>]) -> BTreeSet<&'a AclGroupId> {
    let mut groups = BTreeSet::new();
    for edit in edits {
        match edit.key {
            ObjectKey::AclRule(group, _) => {
                groups.insert(group);
            }
            ObjectKey::PrefixTag(tag) => groups.extend(store.acl_groups_naming(tag)),
            _ => {}
        }
    }
    groups
}

/// The rules of a group by priority, then by number text; `None` for a group without rules, which
/// has no row.
pub(super) fn rules(
    store: &Store,
    group: &AclGroupId,
    lists: &mut Lists,
) -> Option<Arc<[AclRuleRow]>> {
    let family = store.acl_group(group)?.family;
    let rows: Arc<[AclRuleRow]> = in_order(store, group)
        .into_iter()
        .map(|(_, rule)| row(store, family, rule, lists))
        .collect();
    (!rows.is_empty()).then_some(rows)
}

/// The rules of a group in the order they are tried in.
pub(super) fn in_order<'a>(
    store: &'a Store,
    group: &AclGroupId,
) -> Vec<(&'a Arc<str>, &'a AclRule)> {
    let rules = store.acl_rules(group);
    let mut rules: Vec<_> = rules.map(|(number, rule)| (number, &**rule)).collect();
    // They come by number text, and the sort is stable.
    rules.sort_by_key(|(_, rule)| rule.priority);
    rules
}

fn row(store: &Store, family: Family, rule: &AclRule, lists: &mut Lists) -> AclRuleRow {
    AclRuleRow {
        action: action(rule),
        protocols: any_or(&rule.protocols, |protocol| *protocol),
        src: lists.of(store, family, &rule.src_prefixes, &rule.src_tags),
        dst: lists.of(store, family, &rule.dst_prefixes, &rule.dst_tags),
        src_ports: any_or(&rule.src_ports, ports),
        dst_ports: any_or(&rule.dst_ports, ports),
    }
}

fn action(rule: &AclRule) -> u32 {
    let action = match (rule.action, rule.terminating) {
        (AclAction::Permit, true) => acl_action::PERMIT,
        (AclAction::Permit, false) => acl_action::PERMIT_AND_CONTINUE,
        (AclAction::Deny, true) => acl_action::DENY,
        (AclAction::Deny, false) => acl_action::DENY_AND_CONTINUE,
    };
    if rule.protocols.is_empty() {
        action
    } else {
        action | acl_action::NAMES_PROTOCOL
    }
}

/// An empty list in an object is "any", which a classifier's `None` is.
fn any_or<T, U>(list: &[T], convert: impl Fn(&T) -> U) -> Option<Box<[U]>> {
    (!list.is_empty()).then(|| list.iter().map(convert).collect())
}

fn ports(range: &PortRange) -> (u16, u16) {
    (range.min, range.max)
}

/// Lists of prefixes as rows have them. A list that equals one of another rule need not be the same
/// one; a list of a tag is, in all groups that name it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    tags: BTreeMap<TagName, Arc<[AclPrefix]>>,
}

impl Lists {
    /// Forgets the tags that the edits change.
    pub(super) fn forget(&mut self, edits: &[Edit<'_>]) {
        for edit in edits {
            if let ObjectKey::PrefixTag(tag) = edit.key {
                self.tags.remove(tag);
            }
        }
    }

    /// A rule's own prefixes and the lists of its tags. A rule that names tags is never "any": with
    /// tags that are empty or do not exist it has no lists and matches nothing.
    fn of(
        &mut self,
        store: &Store,
        family: Family,
        own: &[IpPrefix],
        tags: &[TagName],
    ) -> Option<AclPrefixes> {
        if own.is_empty() && tags.is_empty() {
            return None;
        }
        let tags = tags.iter().filter_map(|name| {
            let tag = store.tag(name).filter(|tag| tag.family == family)?;
            let known = self.tags.get(name).cloned();
            Some(known.unwrap_or_else(|| {
                let list = list(&tag.prefixes);
                self.tags.insert(name.clone(), Arc::clone(&list));
                list
            }))
        });
        Some([list(own)].into_iter().chain(tags).collect())
    }
}

fn list(prefixes: &[IpPrefix]) -> Arc<[AclPrefix]> {
    let mut all: Vec<&IpPrefix> = prefixes.iter().collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(prefix).collect()
}

fn prefix(prefix: &IpPrefix) -> AclPrefix {
    let above = match prefix.addr() {
        IpAddr::V4(_) => 96,
        IpAddr::V6(_) => 0,
    };
    AclPrefix {
        addr: ip16(prefix.addr()),
        len: above + prefix.prefix_len(),
    }
}
