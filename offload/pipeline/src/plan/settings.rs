//! Settings that an ENI may have of its own, and the card has for all others.

use std::net::Ipv4Addr;

use dash_model::Store;
use dash_model::key::EniKey;
use dash_model::objects::{DscpMode, Eni, Switch};

use super::resim::Resim;
use crate::ir::Timeouts;

/// What the planner puts into `globals` beside the appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// TTL of encaps (A13).
    pub encap_ttl: u8,
    /// Lowest outer UDP source port of encaps.
    pub sport_base: u16,
    /// Ports from `sport_base` up that flows are spread over, as a power of two; more than 16 is
    /// as 16.
    pub sport_bits: u8,
    /// A private link whose port map has no range for a port drops, rather than go the plain way (A51).
    pub drop_unmapped_ports: bool,
    /// VXLAN from other source ports than these is dropped.
    pub sport_security: bool,
    /// Longest IP packet that may leave, its outermost header counted; without, ports judge.
    pub mtu: Option<u16>,
    /// And by each port, where that is known; empty where ports are not asked.
    pub port_mtus: Vec<Option<u16>>,
    /// DSCP of every encap (SAI's pipe model), 0 to 63; without, that of the received outer header
    /// (its preserve model).
    pub dscp_pipe: Option<u8>,
    /// How long connections stay without a packet.
    pub timeouts: Timeouts,
    /// TCP of no known connection is dropped unless it is a SYN (A19); policy decides else.
    pub tcp_nonsyn_drop: bool,
    /// A change that concerns an ENI's flows resimulates them; else only who asks does.
    pub resimulate_changes: bool,
    /// TCP that an ACL denies in the middle of a connection is answered with a reset to each end.
    pub tcp_reset: bool,
    /// Workers that share an ENI's limits.
    pub workers: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vxlan_port: 4789,
            encap_ttl: 64,
            sport_base: 5120,
            sport_bits: 7,
            drop_unmapped_ports: false,
            sport_security: false,
            mtu: None,
            port_mtus: Vec::new(),
            dscp_pipe: None,
            timeouts: Timeouts::default(),
            tcp_nonsyn_drop: false,
            resimulate_changes: false,
            tcp_reset: false,
            workers: 1,
        }
    }
}

/// What of an ENI's settings packets meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EniInForce {
    /// DSCP of encaps; without, that of the received outer header.
    pub dscp: Option<u8>,
    /// Redirects of load balancers change no flow.
    pub disable_fast_path: bool,
    /// Most flows that a worker decides again in a second, 0 for any number.
    pub max_resimulated: u32,
    /// Longest IP packet that may leave; without, ports judge.
    pub mtu: Option<u16>,
    /// Replies go where the first side's packets come from.
    pub learn: bool,
    /// Outer source of replies that do; without, the VIP.
    pub reverse_sip: Option<Ipv4Addr>,
    /// Packets a second in each direction, 0 for any number.
    pub packets_per_second: u32,
}

/// Longest IP packet that leaves by whatever port, where it is one for all.
fn common_port_mtu(card: &Settings) -> Option<u16> {
    let (first, rest) = card.port_mtus.split_first()?;
    first.filter(|_| rest.iter().all(|mtu| mtu == first))
}

/// Longest IP packet of ENIs that have no limit of their own.
pub(super) fn card_mtu(card: &Settings) -> Option<u16> {
    card.mtu.or(common_port_mtu(card))
}

/// Where ports' limits differ, the least: shorter packets leave by any.
pub(super) fn least_port_mtu(card: &Settings) -> Option<u16> {
    let least = card.port_mtus.iter().flatten().min().copied();
    least.filter(|_| common_port_mtu(card).is_none())
}

/// The card's settings, with what SONiC's switch says of VXLAN.
pub(super) fn with_switch(card: &Settings, switch: Switch) -> Settings {
    Settings {
        vxlan_port: switch.vxlan_port.unwrap_or(card.vxlan_port),
        sport_base: switch.sport_base.unwrap_or(card.sport_base),
        sport_bits: switch.sport_bits.unwrap_or(card.sport_bits),
        ..card.clone()
    }
}

pub(super) fn in_force(
    store: &Store,
    card: &Settings,
    resim: &Resim,
    key: &EniKey,
    eni: &Eni,
) -> EniInForce {
    let own = store.eni_settings(key);
    EniInForce {
        dscp: match own.dscp {
            Some(DscpMode::Pipe(dscp)) => Some(dscp),
            Some(DscpMode::Preserve) => None,
            None => card.dscp_pipe,
        },
        disable_fast_path: own.disable_fast_path.unwrap_or(eni.disable_fast_path),
        max_resimulated: resim.per_second.or(own.max_resimulated).unwrap_or(0),
        // What no port takes, nobody's settings let out.
        mtu: match (own.mtu.or(card.mtu), common_port_mtu(card)) {
            (Some(said), Some(ports)) => Some(said.min(ports)),
            (said, ports) => said.or(ports),
        },
        learn: own.learn,
        reverse_sip: own.reverse_sip,
        packets_per_second: own.packets_per_second.unwrap_or(0),
    }
}
