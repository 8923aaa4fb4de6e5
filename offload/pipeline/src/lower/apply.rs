//! `apply` and `forward`: the only code that writes packet bytes, from the frozen actions alone.

use dash_bpf::builder::{Label, R0, R1, R2, R3, R4, R5};
use dash_bpf::helper::{self, XdpAction};
use dash_bpf::op::{AluOp, Cond as C};
use dash_bpf::{Reg, Size};
use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use dash_wire::tables::{
    Direction, FlowActions, Globals, Meta, UnderlayRow, encap, flow_action, underlay_flags,
};
use nic_target::Table;
use std::mem::offset_of;

use super::LowerError;
use super::stage::{CTX, META, StageLower};

/// Inner ECN after decap's combination, then the outgoing frame's length.
const KEEP: Reg = Reg::R8;
/// Globals row.
const GLOBALS: Reg = Reg::R9;

const ETH: i16 = 14;
/// Ethernet, IPv4, UDP and VXLAN.
const VXLAN_ENCAP: i32 = 50;
/// Ethernet, IPv4 and GRE with a key.
const NVGRE_ENCAP: i32 = 42;
/// GRE of version 0 with a key and nothing else, over Ethernet, as a little-endian word.
const GRE_KEY_ETHERNET: i32 = 0x5865_0020;
const ETH_IPV6: i32 = 0xdd86;

macro_rules! meta {
    ($field:ident) => {
        offset_of!(Meta, $field) as i16
    };
}
macro_rules! action {
    ($field:ident) => {
        (offset_of!(Meta, actions) + offset_of!(FlowActions, $field)) as i16
    };
}

/// Kinds of encap.
#[derive(Clone, Copy)]
enum Encap {
    Vxlan,
    Nvgre,
}

impl Encap {
    /// Bytes in front of the inner frame.
    fn len(self) -> i32 {
        match self {
            Self::Vxlan => VXLAN_ENCAP,
            Self::Nvgre => NVGRE_ENCAP,
        }
    }

    /// IP protocol.
    fn protocol(self) -> i32 {
        match self {
            Self::Vxlan => 17,
            Self::Nvgre => 47,
        }
    }
}

/// Where an encap's addresses and VNI are read.
#[derive(Clone, Copy)]
struct From {
    sip: (Reg, i16),
    /// In the metadata.
    dip: i16,
    /// In the metadata.
    vni: i16,
}

const U0: From = From {
    sip: (META, action!(u0_sip)),
    dip: action!(u0_dip),
    vni: action!(u0_vni),
};
const U1: From = From {
    sip: (GLOBALS, offset_of!(Globals, vip) as i16),
    dip: meta!(u1_dip),
    vni: meta!(u1_vni),
};

impl StageLower<'_> {
    pub(super) fn apply(&mut self, nvgre: bool, u1: bool, smac: bool) {
        let internal = self.drop_label(DropReason::Internal);
        self.b.comment("apply: trim to the IP length");
        let trimmed = self.b.label();
        self.load_packet();
        self.b.alu(AluOp::Sub, R3, R2);
        self.b.load(Size::H, R2, META, meta!(inner_len));
        self.b.alu(AluOp::Sub, R2, R3);
        self.b.jump_if(C::Eq, R2, 0, trimmed);
        self.b.jump_if(C::Sgt, R2, 0, internal);
        self.b.mov(R1, CTX);
        self.b.call(helper::XDP_ADJUST_TAIL);
        self.b.jump_if(C::Ne, R0, 0, internal);
        self.b.bind(trimmed);

        self.load_packet();
        self.need(R2, i32::from(ETH) + 20, internal);
        self.ecn();
        let no_dmac = self.b.label();
        self.b.load(Size::H, R1, META, action!(actions));
        self.b.alu(AluOp::And, R1, i32::from(flow_action::SET_DMAC));
        self.b.jump_if(C::Eq, R1, 0, no_dmac);
        self.copy(R2, 0, META, action!(dmac), 6);
        self.b.bind(no_dmac);
        if smac {
            let no_smac = self.b.label();
            self.b.load(Size::H, R1, META, action!(actions));
            self.b.alu(AluOp::And, R1, i32::from(flow_action::SET_SMAC));
            self.b.jump_if(C::Eq, R1, 0, no_smac);
            self.copy(R2, 6, META, meta!(inner_dmac), 6);
            self.b.bind(no_smac);
        }

        let (bare, done) = (self.b.label(), self.b.label());
        self.b.load(Size::H, R1, META, action!(actions));
        self.b.alu(AluOp::And, R1, i32::from(flow_action::ENCAP_U0));
        self.b.jump_if(C::Eq, R1, 0, bare);
        self.globals();
        if nvgre || u1 {
            self.encaps(nvgre, u1);
            self.b.load(Size::H, KEEP, META, meta!(inner_len));
        } else {
            self.encap(Encap::Vxlan, U0);
            self.b.load(Size::H, KEEP, META, meta!(inner_len));
            self.b.alu(AluOp::Add, KEEP, VXLAN_ENCAP);
        }
        self.b.jump(done);
        self.b.bind(bare);
        self.b.load(Size::H, KEEP, META, meta!(inner_len));
        self.b.bind(done);
        self.count_sent();
    }

    /// RFC 6040 decapsulation: the inner ECN field after combining; leaves it in KEEP. r2 is the
    /// inner frame. (CE on a packet that cannot carry it was dropped by `parse inner`.)
    fn ecn(&mut self) {
        let (v6, v6_done, done, v4_mark, v6_mark) = (
            self.b.label(),
            self.b.label(),
            self.b.label(),
            self.b.label(),
            self.b.label(),
        );
        self.b.comment("ECN");
        self.b.load(Size::B, R4, META, meta!(outer_tos));
        self.b.alu(AluOp::And, R4, 3);
        self.b.load(Size::H, R1, R2, 12);
        self.b.jump_if(C::Eq, R1, ETH_IPV6, v6);

        self.b.load(Size::B, KEEP, R2, ETH + 1);
        self.b.alu(AluOp::And, KEEP, 3);
        self.combine(v4_mark, done);
        self.b.bind(v4_mark);
        // RFC 1624 equation 3 over the 16-bit word that holds the TOS, as loaded.
        self.b.load(Size::H, R1, R2, ETH);
        self.b.alu(AluOp::Xor, R1, 0xffff);
        self.b.load(Size::B, R5, R2, ETH + 1);
        self.b.alu(AluOp::And, R5, 0xfc);
        self.b.alu(AluOp::Or, R5, KEEP);
        self.b.store(Size::B, R2, ETH + 1, R5);
        self.b.load(Size::H, R5, R2, ETH + 10);
        self.b.alu(AluOp::Xor, R5, 0xffff);
        self.b.alu(AluOp::Add, R5, R1);
        self.b.load(Size::H, R1, R2, ETH);
        self.b.alu(AluOp::Add, R5, R1);
        self.fold(R5);
        self.b.alu(AluOp::Xor, R5, 0xffff);
        self.b.store(Size::H, R2, ETH + 10, R5);
        self.b.jump(done);

        self.b.bind(v6);
        self.b.load(Size::B, KEEP, R2, ETH + 1);
        self.b.alu(AluOp::Rsh, KEEP, 4);
        self.b.alu(AluOp::And, KEEP, 3);
        self.combine(v6_mark, v6_done);
        self.b.bind(v6_mark);
        self.b.load(Size::B, R5, R2, ETH + 1);
        self.b.alu(AluOp::And, R5, 0xcf);
        self.b.mov(R1, KEEP);
        self.b.alu(AluOp::Lsh, R1, 4);
        self.b.alu(AluOp::Or, R5, R1);
        self.b.store(Size::B, R2, ETH + 1, R5);
        self.b.bind(v6_done);
        self.b.bind(done);
    }

    /// KEEP = inner ECN, r4 = outer: falls to `mark` with the new value when it changes, else
    /// jumps to `done`.
    fn combine(&mut self, mark: Label, done: Label) {
        let not_ce = self.b.label();
        self.b.jump_if(C::Eq, R4, 0, done);
        self.b.jump_if(C::Ne, R4, 3, not_ce);
        self.b.jump_if(C::Eq, KEEP, 0, done);
        self.b.jump_if(C::Eq, KEEP, 3, done);
        self.b.mov(KEEP, 3);
        self.b.jump(mark);
        self.b.bind(not_ce);
        self.b.jump_if(C::Ne, R4, 1, done);
        self.b.jump_if(C::Ne, KEEP, 2, done);
        self.b.mov(KEEP, 1);
    }

    /// GLOBALS = the settings.
    fn globals(&mut self) {
        let internal = self.drop_label(DropReason::Internal);
        self.lookup_array(Table::Globals, 0);
        self.b.jump_if(C::Eq, R0, 0, internal);
        self.b.mov(GLOBALS, R0);
    }

    /// Encaps of any kind, one in another. `inner_len` is what they have in them so far.
    fn encaps(&mut self, nvgre: bool, u1: bool) {
        self.encap_of(nvgre, action!(u0_encap), U0);
        if u1 {
            let one = self.b.label();
            self.b.load(Size::H, R1, META, action!(actions));
            self.b.alu(AluOp::And, R1, i32::from(flow_action::ENCAP_U1));
            self.b.jump_if(C::Eq, R1, 0, one);
            self.encap_of(nvgre, action!(u1), U1);
            self.b.bind(one);
        }
    }

    /// An encap of the kind that a field of the actions says.
    fn encap_of(&mut self, nvgre: bool, kind: i16, from: From) {
        let (other, done) = (self.b.label(), self.b.label());
        if nvgre {
            self.b.load(Size::B, R1, META, kind);
            self.b.jump_if(C::Ne, R1, i32::from(encap::NVGRE), other);
            self.encap(Encap::Nvgre, from);
            self.grow(Encap::Nvgre);
            self.b.jump(done);
            self.b.bind(other);
        }
        self.encap(Encap::Vxlan, from);
        self.grow(Encap::Vxlan);
        self.b.bind(done);
    }

    fn grow(&mut self, kind: Encap) {
        self.b.load(Size::H, R1, META, meta!(inner_len));
        self.b.alu(AluOp::Add, R1, kind.len());
        self.b.store(Size::H, META, meta!(inner_len), R1);
    }

    /// Headers over IPv4 in front of the inner frame (DASH reference 3.1, 3.2).
    fn encap(&mut self, kind: Encap, from: From) {
        let internal = self.drop_label(DropReason::Internal);
        self.b.comment("encap");
        self.b.mov(R1, CTX);
        self.b.mov(R2, -kind.len());
        self.b.call(helper::XDP_ADJUST_HEAD);
        self.b.jump_if(C::Ne, R0, 0, internal);
        self.load_packet();
        self.need(R2, kind.len(), internal);

        // Back to where it came from unless an underlay route says otherwise.
        const { assert!(offset_of!(Meta, outer_dmac) == offset_of!(Meta, outer_smac) + 6) };
        self.copy(R2, 0, META, meta!(outer_smac), 12);
        self.b.store(Size::H, R2, 12, 0x0008);

        // IPv4: words in wire order, summed as they are stored.
        self.b.load(Size::H, R4, META, meta!(inner_len));
        self.b.mov(R3, R4);
        self.b.alu(AluOp::Add, R3, kind.len() - i32::from(ETH));
        self.b.be16(R3);
        self.b.alu(AluOp::Lsh, R3, 16);
        self.b.load(Size::B, R5, META, meta!(outer_tos));
        self.b.alu(AluOp::And, R5, 0xfc);
        self.b.alu(AluOp::Or, R5, KEEP);
        self.b.alu(AluOp::Lsh, R5, 8);
        self.b.alu(AluOp::Or, R5, 0x45);
        self.b.alu(AluOp::Or, R5, R3);
        self.b.store(Size::W, R2, ETH, R5);
        self.b.store(Size::W, R2, ETH + 4, 0);
        self.b
            .load(Size::B, R3, GLOBALS, offset_of!(Globals, encap_ttl) as i16);
        self.b.alu(AluOp::Or, R3, kind.protocol() << 8);
        self.b.store(Size::H, R2, ETH + 8, R3);
        self.b.alu(AluOp::Add, R5, R3);
        self.b.load(Size::W, R1, from.sip.0, from.sip.1);
        self.b.store(Size::W, R2, ETH + 12, R1);
        self.b.alu(AluOp::Add, R5, R1);
        self.b.load(Size::W, R1, META, from.dip);
        self.b.store(Size::W, R2, ETH + 16, R1);
        self.b.alu(AluOp::Add, R5, R1);
        self.fold(R5);
        self.b.alu(AluOp::Xor, R5, 0xffff);
        self.b.store(Size::H, R2, ETH + 10, R5);

        if let Encap::Nvgre = kind {
            self.b.store(Size::W, R2, ETH + 20, GRE_KEY_ETHERNET);
            self.b.load(Size::W, R1, META, from.vni);
            self.b.alu(AluOp::Lsh, R1, 8);
            self.b.be32(R1);
            self.b.store(Size::W, R2, ETH + 24, R1);
            return;
        }
        self.b.load(Size::H, R1, META, action!(sport));
        self.b.store(Size::H, R2, ETH + 20, R1);
        self.b
            .load(Size::H, R1, GLOBALS, offset_of!(Globals, vxlan_port) as i16);
        self.b.store(Size::H, R2, ETH + 22, R1);
        self.b.alu(AluOp::Add, R4, 16);
        self.b.be16(R4);
        // With a checksum of 0 behind it.
        self.b.store(Size::W, R2, ETH + 24, R4);
        self.b.store(Size::W, R2, ETH + 28, 0x08);
        self.b.load(Size::W, R1, META, from.vni);
        self.b.alu(AluOp::Lsh, R1, 8);
        self.b.be32(R1);
        self.b.store(Size::W, R2, ETH + 32, R1);
    }

    /// Counts a frame of KEEP bytes as sent.
    fn count_sent(&mut self) {
        let (inbound, done) = (self.b.label(), self.b.label());
        self.count_one(EniStat::TxPackets);
        self.count(EniStat::TxBytes, KEEP);
        self.b.load(Size::B, R1, META, meta!(direction));
        self.b
            .jump_if(C::Ne, R1, Direction::Outbound as i32, inbound);
        self.count_one(EniStat::OutboundTxPackets);
        self.count(EniStat::OutboundTxBytes, KEEP);
        self.b.jump(done);
        self.b.bind(inbound);
        self.count_one(EniStat::InboundTxPackets);
        self.count(EniStat::InboundTxBytes, KEEP);
        self.b.bind(done);
    }

    pub(super) fn forward(&mut self, row: &str) -> Result<(), LowerError> {
        let unresolved = self.exit_label(DropReason::NeighborMiss, XdpAction::Pass);
        let internal = self.drop_label(DropReason::Internal);
        let bare = self.b.label();
        let flags = self.row(row, "flags", R4)?;
        let base = flags.base;
        self.b.load(Size::W, R1, base, flags.off);
        self.b.alu(AluOp::And, R1, underlay_flags::RESOLVED as i32);
        self.b.jump_if(C::Eq, R1, 0, unresolved);
        self.b.load(Size::H, R1, META, action!(actions));
        self.b.alu(AluOp::And, R1, i32::from(flow_action::ENCAP_U0));
        self.b.jump_if(C::Eq, R1, 0, bare);
        self.load_packet();
        self.need(R2, i32::from(ETH), internal);
        const { assert!(offset_of!(UnderlayRow, smac) == offset_of!(UnderlayRow, dmac) + 6) };
        self.copy(R2, 0, base, offset_of!(UnderlayRow, dmac) as i16, 12);
        self.b.bind(bare);
        self.b
            .load(Size::W, R1, base, offset_of!(UnderlayRow, port) as i16);
        self.b.mov(R2, 0);
        self.b.call(helper::REDIRECT);
        self.b.exit();
        Ok(())
    }
}
