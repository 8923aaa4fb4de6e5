//! What happened to a packet: a line a step for people, and what programs need to name the objects
//! behind it ([`crate::plan::Planner::explain`]).

use dash_wire::drop::DropReason;
use nic_target::Table;

use super::tables::By;
use super::value::Value;

/// Something that happened to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLine {
    /// Stage it happened in.
    pub stage: String,
    /// What, in one line.
    pub what: String,
    /// The same for programs.
    pub event: Event,
}

/// What kind of step a line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A row was looked for.
    Lookup(LookedUp),
    /// The packet's flow was there.
    FlowHit {
        /// 0: the side that the connection began on.
        side: usize,
        /// The packet ended the connection.
        ended: bool,
    },
    /// A SYN ended the connection that was there; policy decides again.
    FlowReset,
    /// There was no flow.
    FlowMiss,
    /// A connection was made.
    FlowCreated,
    /// The packet was dropped.
    Drop(DropReason),
    /// Anything else.
    Other,
}

/// A look-up in a table of policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedUp {
    /// Table.
    pub table: Table,
    /// Components of the key in the order of the table's schema.
    pub key: Vec<KeyPart>,
    /// How a row was found; `None` when there was none.
    pub found: Option<FoundBy>,
}

/// A component of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// A number.
    Num(u64),
    /// Bytes in network order.
    Bytes(Box<[u8]>),
}

/// How a row was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// By its key.
    Key,
    /// By the longest prefix: so many bits of the last component.
    Prefix(u8),
    /// As the rule of this place, from 0.
    Rule(usize),
}

impl LookedUp {
    /// A component that is a number.
    pub fn num(&self, at: usize) -> Option<u32> {
        match self.key.get(at)? {
            KeyPart::Num(n) => u32::try_from(*n).ok(),
            KeyPart::Bytes(_) => None,
        }
    }

    /// A component of `N` bytes.
    pub fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        match self.key.get(at)? {
            KeyPart::Num(_) => None,
            KeyPart::Bytes(bytes) => bytes.as_ref().try_into().ok(),
        }
    }
}

pub(super) fn lookup_event(table: Table, key: &[Value], found: Option<By>) -> Event {
    let schema = crate::fields::key_schema(table);
    // Prefixes are taken of the last component; the others count as whole.
    let whole: usize = schema.iter().rev().skip(1).map(|f| f.ty.size() * 8).sum();
    let part = |value: &Value| match *value {
        Value::Num(n) => KeyPart::Num(n),
        Value::Bytes(n, all) => KeyPart::Bytes(all.iter().take(n.into()).copied().collect()),
    };
    Event::Lookup(LookedUp {
        table,
        key: key.iter().map(part).collect(),
        found: found.map(|by| match by {
            By::Exact => FoundBy::Key,
            By::Prefix(bits) => {
                FoundBy::Prefix(u8::try_from((bits as usize).saturating_sub(whole)).unwrap_or(0))
            }
            By::Rule(at) => FoundBy::Rule(at),
        }),
    })
}
