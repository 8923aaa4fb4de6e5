//! A small data plane in hand-written bytecode: every kind of table, a tail call, a moved head.
//!
//! Stage 0 finds the ENI by destination MAC, counts the packet, makes or refreshes a flow keyed by
//! bytes 34..36, and tail-calls stage 1. Stage 1 pushes 8 bytes, routes by bytes 30..34 of the
//! packet it got, asks ACL group 5, writes what it found into the new bytes and sends to port 1.

use std::mem::offset_of;
use std::sync::Arc;

use dash_bpf::builder::{Builder, Label, R0, R1, R2, R3, R4, R6, R7, R8, R9, R10};
use dash_bpf::helper::{self, xdp_md};
use dash_bpf::op::{AluOp, Cond};
use dash_bpf::program::{Program, ProgramKind, TailCalls};
use dash_bpf::{Insn, Object, Size};
use dash_wire::stats::EniStat;
use dash_wire::tables::{
    AclKey, EniMacKey, FlowEntry, Route4Key, RouteRow, acl_action, flow_state,
};
use nic_target::tables::map_defs;
use nic_target::{AclRuleRow, Capacity, Frame, Image, Table, TableDelta, TableOp, Update};
use zerocopy::IntoBytes;

pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
pub(crate) const ENI: u32 = 3;
pub(crate) const TIMEOUT_MS: u32 = 1000;

pub(crate) fn capacity() -> Capacity {
    Capacity {
        enis: 8,
        routes: 256,
        mappings: 256,
        inbound_rules: 16,
        trusted_vnis: 16,
        acl_groups: 16,
        underlay_routes: 16,
        flows: 8,
    }
}

pub(crate) fn program(name: &str, insns: Vec<Insn>) -> Program {
    Program {
        name: name.to_owned(),
        kind: ProgramKind::Xdp,
        insns,
        ..Program::default()
    }
}

pub(crate) fn object(programs: Vec<Program>) -> Object {
    let slots = (0..programs.len() as u32).map(Some).collect();
    let tail_calls = vec![TailCalls {
        map: Table::Stages.index(),
        programs: slots,
    }];
    Object {
        maps: map_defs(&capacity()),
        programs,
        tail_calls,
    }
}

pub(crate) fn image(object: Object) -> Arc<Image> {
    Arc::new(Image {
        shape: [1; 32],
        object: Arc::new(object),
        native: None,
        ir: Arc::from(""),
    })
}

pub(crate) fn update(generation: u64, image: Option<Arc<Image>>, ops: Vec<TableOp>) -> Update {
    Update {
        generation,
        image,
        delta: Arc::new(TableDelta { ops }),
    }
}

/// A program of one stage whose body ends with r0 set.
pub(crate) fn single(body: impl FnOnce(&mut Builder)) -> Arc<Image> {
    let mut b = Builder::new();
    body(&mut b);
    b.exit();
    image(object(vec![program(
        "single",
        b.finish().expect("a well-formed program"),
    )]))
}

/// r7, r8 = packet; goes to `out` when it has fewer than `len` bytes.
fn packet(b: &mut Builder, len: i32, out: Label) {
    b.load(Size::W, R7, R6, xdp_md::DATA);
    b.load(Size::W, R8, R6, xdp_md::DATA_END);
    b.mov(R1, R7);
    b.alu(AluOp::Add, R1, len);
    b.jump_if(Cond::Gt, R1, R8, out);
}

fn stage0() -> Vec<Insn> {
    let mut b = Builder::new();
    let (drop, miss, hit, next) = (b.label(), b.label(), b.label(), b.label());
    b.mov(R6, R1);
    packet(&mut b, 42, drop);
    // EniMacKey at -8.
    b.store(Size::Dw, R10, -8, 0);
    b.load(Size::W, R1, R7, 0);
    b.store(Size::W, R10, -8, R1);
    b.load(Size::H, R1, R7, 4);
    b.store(Size::H, R10, -4, R1);
    b.load_map(R1, Table::EniMac.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -8);
    b.call(helper::MAP_LOOKUP_ELEM);
    b.jump_if(Cond::Eq, R0, 0, drop);
    b.load(Size::W, R9, R0, 0);
    // eni_stats[eni].RX_PACKETS += 1
    b.store(Size::W, R10, -52, R9);
    b.load_map(R1, Table::EniStats.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -52);
    b.call(helper::MAP_LOOKUP_ELEM);
    b.jump_if(Cond::Eq, R0, 0, drop);
    let stat = EniStat::RxPackets.offset() as i16;
    b.load(Size::Dw, R1, R0, stat);
    b.alu(AluOp::Add, R1, 1);
    b.store(Size::Dw, R0, stat, R1);
    // FlowKey at -48: only the source port.
    for at in 0..5 {
        b.store(Size::Dw, R10, -48 + 8 * at, 0);
    }
    b.load(Size::H, R1, R7, 34);
    b.store(Size::H, R10, -48 + 32, R1);
    b.load_map(R1, Table::FlowIndex.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -48);
    b.call(helper::MAP_LOOKUP_ELEM);
    b.jump_if(Cond::Ne, R0, 0, hit);

    b.load_map(R1, Table::FlowFree.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -56);
    b.store(Size::W, R10, -56, 0);
    b.call(helper::MAP_POP_ELEM);
    b.jump_if(Cond::Ne, R0, 0, drop);
    b.load_map(R1, Table::FlowSlab.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -56);
    b.call(helper::MAP_LOOKUP_ELEM);
    b.jump_if(Cond::Eq, R0, 0, drop);
    b.mov(R8, R0);
    for at in 0..(size_of::<FlowEntry>() / 8) as i16 {
        b.store(Size::Dw, R8, at * 8, 0);
    }
    b.load(Size::H, R1, R10, -48 + 32);
    b.store(Size::H, R8, 32, R1);
    b.store(
        Size::B,
        R8,
        offset_of!(FlowEntry, state) as i16,
        i32::from(flow_state::ESTABLISHED),
    );
    b.store(
        Size::W,
        R8,
        offset_of!(FlowEntry, timeout_ms) as i16,
        TIMEOUT_MS as i32,
    );
    b.store(Size::H, R8, offset_of!(FlowEntry, eni) as i16, R9);
    b.load(Size::W, R1, R10, -56);
    b.alu(AluOp::Lsh, R1, 1);
    b.store(Size::W, R10, -60, R1);
    b.load_map(R1, Table::FlowIndex.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -48);
    b.mov(R3, R10);
    b.alu(AluOp::Add, R3, -60);
    b.mov(R4, 1);
    b.call(helper::MAP_UPDATE_ELEM);
    b.jump_if(Cond::Ne, R0, 0, drop);
    b.call(helper::KTIME_GET_NS);
    b.store(Size::Dw, R8, offset_of!(FlowEntry, created_ns) as i16, R0);
    b.store(Size::Dw, R8, offset_of!(FlowEntry, last_seen_ns) as i16, R0);
    b.load_map(R1, Table::FlowEvents.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -56);
    b.mov(R3, 0);
    b.call(helper::MAP_PUSH_ELEM);
    b.jump(miss);

    b.bind(hit);
    b.load(Size::W, R1, R0, 0);
    b.alu(AluOp::Rsh, R1, 1);
    b.store(Size::W, R10, -56, R1);
    b.load_map(R1, Table::FlowSlab.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -56);
    b.call(helper::MAP_LOOKUP_ELEM);
    b.jump_if(Cond::Eq, R0, 0, drop);
    b.mov(R8, R0);
    b.call(helper::KTIME_GET_NS);
    b.store(Size::Dw, R8, offset_of!(FlowEntry, last_seen_ns) as i16, R0);
    b.jump(next);

    b.bind(miss);
    b.bind(next);
    let packets = offset_of!(FlowEntry, packets) as i16;
    b.load(Size::Dw, R1, R8, packets);
    b.alu(AluOp::Add, R1, 1);
    b.store(Size::Dw, R8, packets, R1);
    b.mov(R1, R6);
    b.load_map(R2, Table::Stages.index());
    b.mov(R3, 1);
    b.call(helper::TAIL_CALL);
    b.mov(R0, 0);
    b.exit();

    b.bind(drop);
    b.mov(R0, 1);
    b.exit();
    b.finish().expect("a well-formed program")
}

fn stage1() -> Vec<Insn> {
    let mut b = Builder::new();
    let drop = b.label();
    b.mov(R6, R1);
    b.mov(R2, -8);
    b.call(helper::XDP_ADJUST_HEAD);
    b.jump_if(Cond::Ne, R0, 0, drop);
    packet(&mut b, 50, drop);
    // Route4Key at -12: group 9.
    b.store(Size::W, R10, -12, 64);
    b.store(Size::W, R10, -8, 9);
    b.load(Size::W, R1, R7, 38);
    b.store(Size::W, R10, -4, R1);
    b.load_map(R1, Table::Route4.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -12);
    b.call(helper::MAP_LOOKUP_ELEM);
    b.jump_if(Cond::Eq, R0, 0, drop);
    b.load(Size::W, R9, R0, offset_of!(RouteRow, vni) as i16);
    // AclKey at -56.
    for at in 0..11 {
        b.store(Size::W, R10, -56 + 4 * at, 0);
    }
    b.store(Size::W, R10, -56, 5);
    b.store(Size::B, R10, -56 + offset_of!(AclKey, proto) as i16, 17);
    b.load_map(R1, Table::Acl.index());
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -56);
    b.call(helper::MAP_LOOKUP_ELEM);
    b.jump_if(Cond::Eq, R0, 0, drop);
    b.load(Size::W, R1, R0, 0);
    b.be32(R9);
    b.store(Size::W, R7, 0, R9);
    b.be32(R1);
    b.store(Size::W, R7, 4, R1);
    b.mov(R1, 1);
    b.mov(R2, 0);
    b.call(helper::REDIRECT);
    b.exit();
    b.bind(drop);
    b.mov(R0, 1);
    b.exit();
    b.finish().expect("a well-formed program")
}

pub(crate) fn small_pipeline() -> Arc<Image> {
    image(object(vec![
        program("stage0", stage0()),
        program("stage1", stage1()),
    ]))
}

pub(crate) fn route(bits: u32, dst: [u8; 4], vni: u32) -> TableOp {
    let key = Route4Key {
        prefix_len: 32 + bits,
        group: 9,
        dst,
    };
    let row = RouteRow {
        vni,
        ..RouteRow::default()
    };
    TableOp::Put {
        table: Table::Route4,
        key: key.as_bytes().into(),
        value: row.as_bytes().into(),
    }
}

/// Rows under which [`frame`] is sent.
pub(crate) fn rows() -> Vec<TableOp> {
    let mac = EniMacKey {
        mac: MAC,
        pad: [0; 2],
    };
    let named = acl_action::PERMIT | acl_action::NAMES_PROTOCOL;
    let rule = |action, proto: u8| AclRuleRow {
        action,
        protocols: Some(Box::new([proto])),
        src: None,
        dst: None,
        src_ports: None,
        dst_ports: None,
    };
    vec![
        TableOp::Put {
            table: Table::EniMac,
            key: mac.as_bytes().into(),
            value: ENI.to_ne_bytes().into(),
        },
        route(8, [10, 0, 0, 0], 0xaa),
        route(24, [10, 1, 2, 0], 0xbb),
        TableOp::Acl {
            group: 5,
            rules: Some(Arc::new([rule(acl_action::DENY, 6), rule(named, 17)])),
        },
    ]
}

pub(crate) fn frame(dst: [u8; 4], flow: u16, timestamp_ns: u64) -> Frame {
    let mut data = [0x11; 64];
    data[..6].copy_from_slice(&MAC);
    data[30..34].copy_from_slice(&dst);
    data[34..36].copy_from_slice(&flow.to_be_bytes());
    let mut frame = Frame::new();
    assert!(frame.fill(&data));
    frame.timestamp_ns = timestamp_ns;
    frame
}
