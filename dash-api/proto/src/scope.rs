//! Rows that one name stands for together.

use std::sync::Arc;

use dash_model::key::{EniKey, RouteRuleKey, SourcePrefix};
use dash_model::net::Vni;
use dash_model::{Action, ObjectKey, Op, Store};
use prost::Message;

use crate::convert;
use crate::dash::route_rule::RouteRule;

/// Rows that one path or key text stands for, where only the store knows which they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowScope {
    /// Every row of a table.
    Table(Arc<str>),
    /// The inbound rule whose key text has no priority. The row may have got its priority from
    /// its message (choice A47), and so its [`ObjectKey`] is not known from the text.
    RouteRule {
        /// The rule's ENI.
        eni: EniKey,
        /// VNI of the received encap.
        vni: Vni,
        /// Outer source matched.
        source: SourcePrefix,
    },
}

impl RowScope {
    /// The scope of a key text; `None` when `key`, parsed from it, is the one row it names.
    pub fn of_key(key: &ObjectKey, key_text: &str) -> Option<Self> {
        match key {
            ObjectKey::RouteRule(rule) if !convert::names_priority(key_text) => {
                Some(Self::RouteRule {
                    eni: rule.eni.clone(),
                    vni: rule.vni,
                    source: rule.source,
                })
            }
            _ => None,
        }
    }

    /// The rows of the store in the scope.
    pub fn keys(&self, store: &Store) -> Vec<ObjectKey> {
        match self {
            Self::Table(table) => store.iter_table(table).map(|(key, _)| key).collect(),
            Self::RouteRule { eni, .. } => store
                .route_rules(eni)
                .map(|(rule, _)| ObjectKey::RouteRule(rule.clone()))
                .filter(|key| store.get(key).is_some_and(|row| self.holds(key, &row.raw)))
                .collect(),
        }
    }

    /// The rows in the scope that `ops` write.
    pub(crate) fn written(&self, ops: &[Op]) -> Vec<ObjectKey> {
        ops.iter()
            .filter(|op| match &op.action {
                Action::Set { raw, .. } => self.holds(&op.key, raw),
                Action::Del => false,
            })
            .map(|op| op.key.clone())
            .collect()
    }

    /// True for a row in the scope.
    fn holds(&self, key: &ObjectKey, raw: &[u8]) -> bool {
        match (self, key) {
            (Self::Table(table), key) => key.table_name() == table.as_ref(),
            (Self::RouteRule { eni, vni, source }, ObjectKey::RouteRule(rule)) => {
                rule.eni == *eni
                    && rule.vni == *vni
                    && rule.source == *source
                    && may_lack_priority(rule, raw)
            }
            (Self::RouteRule { .. }, _) => false,
        }
    }
}

/// True when the text of the rule's key can have been without a priority: another priority than
/// 0 then is the message's.
fn may_lack_priority(rule: &RouteRuleKey, raw: &[u8]) -> bool {
    rule.priority == 0 || RouteRule::decode(raw).is_ok_and(|row| row.priority == rule.priority)
}
