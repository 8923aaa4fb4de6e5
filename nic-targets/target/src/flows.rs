//! Which connections control asks for, and what it does to them.
//!
//! A [`FlowQuery`] is looked at by the core that has the flows, a part at a time, so that a table of
//! millions is never copied to find a few.

use dash_wire::tables::{FlowEntry, FlowKey, flow_flags};

/// A field of a flow that filters compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowField {
    /// IP protocol.
    Proto,
    /// Inner source.
    SrcIp,
    /// Inner destination.
    DstIp,
    /// Source port.
    SrcPort,
    /// Destination port.
    DstPort,
    /// The epoch it was decided in ([`FlowEntry::epoch`]).
    Version,
}

/// How a filter compares a flow's field, on the left, with its own value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "comparisons")]
pub enum FlowOp {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl FlowOp {
    /// The comparison.
    pub fn holds<T: Ord>(self, a: T, b: T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Greater => a > b,
            Self::GreaterOrEqual => a >= b,
            Self::Less => a < b,
            Self::LessOrEqual => a <= b,
        }
    }
}

/// What a field is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowValue {
    /// A protocol, port or version.
    Number(u64),
    /// An address as flow keys have it. Flows of the other family never match.
    Ip {
        /// IPv6.
        v6: bool,
        /// IPv4 in the last 4 bytes.
        addr: [u8; 16],
    },
}

/// One condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowFilter {
    /// What is compared.
    pub field: FlowField,
    /// How.
    pub op: FlowOp,
    /// With what. A value of another kind than the field's matches nothing.
    pub value: FlowValue,
}

impl FlowFilter {
    fn matches(&self, flow: &FlowEntry, key: &FlowKey) -> bool {
        let number = |n: u64| match self.value {
            FlowValue::Number(value) => self.op.holds(n, value),
            FlowValue::Ip { .. } => false,
        };
        let address = |ip: &[u8; 16]| match &self.value {
            FlowValue::Ip { v6, addr } => {
                (key.flags & flow_flags::V6 != 0) == *v6 && self.op.holds(ip, addr)
            }
            FlowValue::Number(_) => false,
        };
        match self.field {
            FlowField::Proto => number(key.proto.into()),
            FlowField::SrcIp => address(&key.sip),
            FlowField::DstIp => address(&key.dip),
            FlowField::SrcPort => number(u16::from_be_bytes(key.sport).into()),
            FlowField::DstPort => number(u16::from_be_bytes(key.dport).into()),
            FlowField::Version => number(flow.epoch.into()),
        }
    }
}

/// Which connections: of some ENIs, with all filters true of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowQuery {
    /// Indices of ENIs; `None` for every ENI.
    pub enis: Option<Vec<u32>>,
    /// All must hold.
    pub filters: Vec<FlowFilter>,
    /// Most connections, of each core.
    pub most: usize,
}

impl FlowQuery {
    /// Every connection.
    pub const ALL: Self = Self {
        enis: None,
        filters: Vec::new(),
        most: usize::MAX,
    };

    /// The ENI is one of those asked for.
    pub fn has_eni(&self, eni: u16) -> bool {
        self.enis
            .as_ref()
            .is_none_or(|enis| enis.contains(&eni.into()))
    }

    /// All filters hold of one direction.
    pub fn matches_side(&self, flow: &FlowEntry, side: usize) -> bool {
        let key = &flow.sides[side].key;
        self.has_eni(flow.eni) && self.filters.iter().all(|filter| filter.matches(flow, key))
    }

    /// The connection is one of those asked for.
    pub fn matches(&self, flow: &FlowEntry) -> bool {
        self.matches_side(flow, 0) || self.matches_side(flow, 1)
    }
}

/// What is done to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEdit {
    /// They go, both directions, and FLOW_DELETED counts each.
    Delete,
    /// They are of this epoch from now on; where it is not their ENI's, they are decided again.
    Epoch(u8),
}

#[cfg(test)]
mod tests {
    use super::*;
    use dash_wire::tables::FlowHalf;

    fn key(v6: bool, last: u8, sport: u16, proto: u8) -> FlowKey {
        let mut key = FlowKey {
            sport: sport.to_be_bytes(),
            dport: 80u16.to_be_bytes(),
            proto,
            flags: u8::from(v6),
            ..FlowKey::default()
        };
        key.sip[15] = last;
        key.dip[15] = 200;
        key
    }

    fn flow(v6: bool, last: u8, epoch: u8) -> FlowEntry {
        let mut flow = FlowEntry {
            epoch,
            eni: 3,
            ..FlowEntry::default()
        };
        let there = key(v6, last, 1000, 6);
        flow.sides[0] = FlowHalf {
            key: there,
            ..FlowHalf::default()
        };
        flow.sides[1].key = FlowKey {
            sip: there.dip,
            dip: there.sip,
            sport: there.dport,
            dport: there.sport,
            ..there
        };
        flow
    }

    fn number(field: FlowField, op: FlowOp, value: u64) -> FlowFilter {
        FlowFilter {
            field,
            op,
            value: FlowValue::Number(value),
        }
    }

    fn query(filters: &[FlowFilter]) -> FlowQuery {
        FlowQuery {
            filters: filters.to_vec(),
            ..FlowQuery::ALL
        }
    }

    #[test]
    fn a_version_above_3_and_below_5_is_4() {
        let both = query(&[
            number(FlowField::Version, FlowOp::Greater, 3),
            number(FlowField::Version, FlowOp::Less, 5),
        ]);
        let met: Vec<u8> = (0..8)
            .filter(|version| both.matches(&flow(false, 1, *version)))
            .collect();
        assert_eq!(met, [4]);
    }

    #[test]
    fn all_filters_hold_of_one_direction() {
        let flow = flow(false, 1, 0);
        let ports = |src, dst| {
            query(&[
                number(FlowField::SrcPort, FlowOp::Equal, src),
                number(FlowField::DstPort, FlowOp::Equal, dst),
            ])
        };
        assert!(ports(1000, 80).matches(&flow) && ports(80, 1000).matches(&flow));
        assert!(ports(1000, 80).matches_side(&flow, 0) && !ports(1000, 80).matches_side(&flow, 1));
        assert!(!ports(1000, 1000).matches(&flow));
    }

    #[test]
    fn addresses_compare_in_their_family_alone() {
        let mut addr = [0; 16];
        addr[15] = 5;
        let below = |v6| {
            query(&[FlowFilter {
                field: FlowField::SrcIp,
                op: FlowOp::Less,
                value: FlowValue::Ip { v6, addr },
            }])
        };
        for v6 in [false, true] {
            assert!(below(v6).matches(&flow(v6, 4, 0)));
            assert!(!below(v6).matches(&flow(v6, 5, 0)));
            assert!(!below(v6).matches(&flow(!v6, 4, 0)));
        }
    }

    #[test]
    fn values_of_another_kind_and_other_enis_match_nothing() {
        let flow = flow(false, 1, 0);
        assert!(!query(&[number(FlowField::SrcIp, FlowOp::GreaterOrEqual, 0)]).matches(&flow));
        let of = |enis: &[u32]| FlowQuery {
            enis: Some(enis.to_vec()),
            ..FlowQuery::ALL
        };
        assert!(of(&[1, 3]).matches(&flow) && !of(&[1]).matches(&flow) && !of(&[]).matches(&flow));
    }
}
