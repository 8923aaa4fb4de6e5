//! Tunnels to a row an endpoint, port maps to rows of a longest-prefix table over the port's bits.

use dash_model::net::PortRange;
use dash_model::objects::{PortMapRange, Tunnel};
use dash_wire::tables::{PortRangeKey, PortRangeRow, TunnelKey, TunnelRow, port_range_action};
use nic_target::Table;

use super::ops::Ops;

/// Bits of a port.
const PORT_BITS: u32 = 16;

pub(super) fn delete(tunnel: u32, old: &Tunnel, ops: &mut Ops) {
    for (member, _) in (0..).zip(&old.endpoints) {
        ops.delete(Table::Tunnel, &TunnelKey { tunnel, member });
    }
}

pub(super) fn put(tunnel: u32, new: &Tunnel, ops: &mut Ops) {
    let members = u32::try_from(new.endpoints.len()).unwrap_or(u32::MAX);
    for (member, dip) in (0..).zip(&new.endpoints) {
        let row = TunnelRow {
            dip: dip.octets(),
            vni: new.key.get(),
            members,
            encap: new.kind as u8,
            pad: 0,
            meter_or: new.meter_or.get(),
        };
        ops.put(Table::Tunnel, &TunnelKey { tunnel, member }, &row);
    }
}

pub(super) fn delete_range(map: u32, ports: PortRange, ops: &mut Ops) {
    for key in prefixes(map, ports) {
        ops.delete(Table::PortRange, &key);
    }
}

pub(super) fn put_range(map: u32, ports: PortRange, range: &PortMapRange, ops: &mut Ops) {
    let row = match *range {
        PortMapRange::Skip => PortRangeRow {
            action: port_range_action::SKIP,
            ..PortRangeRow::default()
        },
        PortMapRange::Service {
            backend_ip,
            backend_port_base,
        } => PortRangeRow {
            backend_ip: backend_ip.octets(),
            action: port_range_action::MAP,
            match_base: ports.min,
            backend_base: backend_port_base,
            pad: 0,
        },
    };
    for key in prefixes(map, ports) {
        ops.put(Table::PortRange, &key, &row);
    }
}

/// The fewest aligned blocks that cover exactly the range.
fn prefixes(map: u32, ports: PortRange) -> impl Iterator<Item = PortRangeKey> {
    let (mut at, max) = (u32::from(ports.min), u32::from(ports.max));
    std::iter::from_fn(move || {
        if at > max {
            return None;
        }
        let size = at
            .trailing_zeros()
            .min(PORT_BITS)
            .min((max - at + 1).ilog2());
        let key = PortRangeKey {
            prefix_len: 32 + PORT_BITS - size,
            map,
            port: (at as u16).to_be_bytes(),
            pad: [0; 2],
        };
        at += 1 << size;
        Some(key)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_cover_exactly_the_range_and_never_twice(a in any::<u16>(), b in any::<u16>()) {
            let ports = PortRange { min: a.min(b), max: a.max(b) };
            let keys: Vec<_> = prefixes(7, ports).collect();
            prop_assert!(keys.len() <= 30);
            for port in 0..=u16::MAX {
                let covering = keys
                    .iter()
                    .filter(|key| {
                        let free = 48 - key.prefix_len;
                        let first = u32::from(u16::from_be_bytes(key.port));
                        u32::from(port) >> free == first >> free
                    })
                    .count();
                let inside = (ports.min..=ports.max).contains(&port);
                prop_assert_eq!(covering, usize::from(inside), "port {}", port);
            }
        }
    }
}
