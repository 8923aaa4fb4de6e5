//! Connections of a configuration, by number, each with what must become of it.
//!
//! Numbers spread over ENIs first, then windows, then addresses, then ports, so that any run of
//! numbers touches as much of the policy as it can. [`Flow::reply`] is the other direction.

use std::net::Ipv4Addr;

use dash_model::net::Mac;
use dash_wire::drop::DropReason;
use dash_wire::tables::Direction;
use nic_sim::Packet;
use nic_sim::packet::{Layers, last};

use super::{Config, plan};

/// MAC of the card's port in frames made here.
pub const CARD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// MAC of the next hop that frames made here come from.
pub const HOP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// First and number of source ports used.
const PORTS: (u16, u64) = (1_024, 60_000);

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What must become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It leaves in VXLAN.
    Sent {
        /// Outer destination.
        to: Ipv4Addr,
        /// VNI.
        vni: u32,
        /// Inner destination MAC.
        dmac: Mac,
    },
    /// It is dropped.
    Dropped(DropReason),
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Number of the ENI, from 0.
    pub eni: u32,
    /// From the VM or to it.
    pub direction: Direction,
    /// Outer source.
    pub outer_src: Ipv4Addr,
    /// Outer destination.
    pub outer_dst: Ipv4Addr,
    /// VNI.
    pub vni: u32,
    /// Inner source MAC.
    pub smac: Mac,
    /// Inner destination MAC.
    pub dmac: Mac,
    /// Inner source.
    pub src: Ipv4Addr,
    /// Inner destination.
    pub dst: Ipv4Addr,
    /// IP protocol: TCP or UDP.
    pub proto: u8,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// What must become of it.
    pub expect: Expect,
}

impl Flow {
    /// The other direction of an allowed connection, whose first packet made a flow; `None` for one
    /// that is dropped.
    pub fn reply(&self) -> Option<Self> {
        let Expect::Sent { to, vni, .. } = self.expect else {
            return None;
        };
        Some(Self {
            direction: match self.direction {
                Direction::Outbound => Direction::Inbound,
                Direction::Inbound => Direction::Outbound,
            },
            // From the host that the first packet went to, back to where that came from.
            outer_src: to,
            vni,
            smac: self.dmac,
            dmac: self.smac,
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            expect: Expect::Sent {
                to: self.outer_src,
                vni: self.vni,
                dmac: self.smac,
            },
            ..*self
        })
    }

    fn inner(&self) -> Layers<last::Ipv4> {
        Packet::eth(CARD_MAC, HOP_MAC)
            .ipv4(self.outer_src, self.outer_dst)
            .udp(5_137, 4_789)
            .vxlan(self.vni)
            .eth(self.dmac.0, self.smac.0)
            .ipv4(self.src, self.dst)
    }

    /// A frame of it with `payload` bytes of data: UDP, or TCP with these flags.
    pub fn frame(&self, tcp_flags: u8, payload: usize) -> Vec<u8> {
        let data = vec![0x5a; payload];
        if self.proto == TCP {
            let tcp = self.inner().tcp(self.sport, self.dport).flags(tcp_flags);
            tcp.payload(data).build()
        } else {
            let udp = self.inner().udp(self.sport, self.dport);
            udp.payload(data).build()
        }
    }
}

/// Where a number lands.
struct Place {
    eni: u32,
    window: u32,
    nth: u32,
    sport: u16,
    proto: u8,
}

impl Config {
    /// The `n`th allowed connection from a VM. Repeats after [`connections`](Self::connections).
    pub fn outbound(&self, n: u64) -> Flow {
        let at = self.place(n, 0, self.scale.windows);
        let offset = 2 * at.nth + 1;
        let to = if self.routed_by_gateway(offset) {
            (0, 0)
        } else {
            (at.window, at.nth)
        };
        let expect = Expect::Sent {
            to: self.pa_of(at.eni, to.0, to.1),
            vni: plan::vnet_vni(at.eni),
            dmac: plan::remote_mac(at.eni, to.0, 2 * to.1 + 1),
        };
        self.sent_by_vm(&at, offset, expect)
    }

    /// The `n`th connection from a VM that a deny rule stops; `None` if there is none.
    pub fn outbound_denied(&self, n: u64) -> Option<Flow> {
        let first = self.denied_from(true)?;
        let at = self.place(n, first, self.scale.stages);
        let expect = Expect::Dropped(DropReason::AclDeny);
        Some(self.sent_by_vm(&at, 2 * at.nth, expect))
    }

    /// The `n`th allowed connection to a VM.
    pub fn inbound(&self, n: u64) -> Flow {
        let at = self.place(n, 0, self.scale.windows);
        let expect = Expect::Sent {
            to: plan::host(at.eni),
            vni: plan::VM_VNI,
            dmac: plan::local_mac(at.eni),
        };
        self.sent_to_vm(&at, 2 * at.nth + 1, expect)
    }

    /// The `n`th connection to a VM that a deny rule stops; `None` if there is none.
    pub fn inbound_denied(&self, n: u64) -> Option<Flow> {
        let first = self.denied_from(false)?;
        let at = self.place(n, first, self.scale.stages);
        let expect = Expect::Dropped(DropReason::AclDeny);
        Some(self.sent_to_vm(&at, 2 * at.nth, expect))
    }

    /// The `n`th connection to a VM from a host that is none of its VNET's.
    pub fn inbound_foreign(&self, n: u64) -> Flow {
        let at = self.place(n, 0, self.scale.windows);
        let expect = Expect::Dropped(DropReason::InboundMiss);
        Flow {
            outer_src: plan::host(at.eni),
            // Not the port of an allowed connection, which may have a flow.
            dport: 8_443,
            ..self.sent_to_vm(&at, 2 * at.nth + 1, expect)
        }
    }

    /// How many allowed connections differ, in one direction.
    pub fn connections(&self) -> u64 {
        let s = &self.scale;
        u64::from(s.enis) * u64::from(s.windows) * u64::from(s.allowed()) * PORTS.1 * 2
    }

    /// First window with deny rules of its own in this direction.
    fn denied_from(&self, outbound: bool) -> Option<u32> {
        (self.scale.rules > 1).then(|| self.window_of(outbound, 0))
    }

    fn place(&self, n: u64, first_window: u32, windows: u32) -> Place {
        let mut rest = n;
        let mut digit = |of: u64| {
            let digit = rest % of;
            rest /= of;
            digit
        };
        let small = |digit: u64| u32::try_from(digit).expect("below a 32-bit number");
        let eni = small(digit(self.scale.enis.into()));
        let window = small(digit(windows.into()));
        let nth = small(digit(self.scale.allowed().into()));
        let port = u16::try_from(digit(PORTS.1)).expect("below the number of ports");
        let proto = if digit(2) == 0 { UDP } else { TCP };
        Place {
            eni,
            window: (first_window + window) % self.scale.windows,
            nth,
            sport: PORTS.0 + port,
            proto,
        }
    }

    fn routed_by_gateway(&self, offset: u32) -> bool {
        let block = self.blocks.block_of(offset);
        !block.is_some_and(|block| self.is_mapped(block))
    }

    fn sent_by_vm(&self, at: &Place, offset: u32, expect: Expect) -> Flow {
        Flow {
            eni: at.eni,
            direction: Direction::Outbound,
            outer_src: plan::host(at.eni),
            outer_dst: plan::vip(),
            vni: plan::VM_VNI,
            smac: plan::local_mac(at.eni),
            dmac: plan::remote_mac(at.eni, at.window, offset),
            src: plan::local(at.eni),
            dst: plan::remote(at.eni, at.window, offset),
            proto: at.proto,
            sport: at.sport,
            dport: 80,
            expect,
        }
    }

    fn sent_to_vm(&self, at: &Place, offset: u32, expect: Expect) -> Flow {
        Flow {
            eni: at.eni,
            direction: Direction::Inbound,
            outer_src: self.pa_of(at.eni, at.window, at.nth),
            outer_dst: plan::vip(),
            vni: plan::vnet_vni(at.eni),
            smac: plan::remote_mac(at.eni, at.window, offset),
            dmac: plan::local_mac(at.eni),
            src: plan::remote(at.eni, at.window, offset),
            dst: plan::local(at.eni),
            proto: at.proto,
            sport: at.sport,
            dport: 443,
            expect,
        }
    }
}
