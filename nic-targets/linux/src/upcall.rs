//! The few programs written by hand around the compiled stages.
//!
//! - `upcall` is in the slot of every stage that only user space has. It undoes `decap`, so that the
//!   packet is as it was received (stages before wrote nothing into it), and gives it to user space.
//! - `punt` gives user space what a stage leaves to control, as the stage left it.
//! - `up` is each port's: both of the above end in it, and it knows the port's sockets.
//! - `port` is attached to an interface: it counts what comes in and starts the installed stages.

use std::mem::offset_of;

use dash_bpf::builder::{BuildError, Builder, Label, R0, R1, R2, R3, R6, R7, R10};
use dash_bpf::helper::{self, XdpAction, xdp_md};
use dash_bpf::op::{AluOp, Cond};
use dash_bpf::{Insn, Size};
use dash_wire::stats::PortStat;
use dash_wire::tables::Meta;
use nic_target::Table;

/// What `upcall` redirects to in a test run. Ports have 16 bits.
pub(crate) const USER_SPACE: u32 = 0xffff_fffe;

/// Bytes in front of a packet that tell user space why it has it.
pub(crate) const MARK_LEN: usize = 8;

/// What the bytes in front of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// No flow is known: as it was received.
    Miss,
    /// For control, as the stages left it; it is counted.
    Punt,
}

impl Mark {
    /// From the bytes in front of a packet.
    pub(crate) fn of(bytes: [u8; MARK_LEN]) -> Option<Self> {
        match u64::from_ne_bytes(bytes) {
            Self::MISS => Some(Self::Miss),
            Self::PUNT => Some(Self::Punt),
            _ => None,
        }
    }

    const MISS: u64 = 0x7373_696d_6873_6164;
    const PUNT: u64 = 0x746e_7570_6873_6164;

    fn number(self) -> u64 {
        match self {
            Self::Miss => Self::MISS,
            Self::Punt => Self::PUNT,
        }
    }
}

/// How a packet gets to user space.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'a> {
    /// The test run's executor looks for a redirect to [`USER_SPACE`].
    TestRun,
    /// By an AF_XDP socket of the port it came in on.
    Sockets {
        /// Interface index by port.
        interfaces: &'a [u32],
        /// Index of the array of `up` programs, by port.
        ups: u32,
    },
}

/// See the module.
pub(crate) fn upcall(way: Way<'_>) -> Result<Vec<Insn>, BuildError> {
    let mut b = Builder::new();
    let lost = b.label();
    b.mov(R6, R1);
    lookup_0(&mut b, Table::Meta.index());
    b.jump_if(Cond::Eq, R0, 0, lost);
    b.load(Size::W, R7, R0, offset_of!(Meta, frame_len) as i16);
    b.load(Size::W, R1, R6, xdp_md::DATA);
    b.load(Size::W, R2, R6, xdp_md::DATA_END);
    b.alu(AluOp::Sub, R2, R1);
    b.alu(AluOp::Sub, R2, R7);
    b.mov(R1, R6);
    b.call(helper::XDP_ADJUST_HEAD);
    b.jump_if(Cond::Ne, R0, 0, lost);
    send_up(&mut b, way, Mark::Miss, lost);
    b.bind(lost);
    b.mov(R0, XdpAction::Aborted as i32);
    b.exit();
    b.finish()
}

/// See the module.
pub(crate) fn punt(way: Way<'_>) -> Result<Vec<Insn>, BuildError> {
    let mut b = Builder::new();
    let lost = b.label();
    b.mov(R6, R1);
    send_up(&mut b, way, Mark::Punt, lost);
    b.bind(lost);
    b.mov(R0, XdpAction::Aborted as i32);
    b.exit();
    b.finish()
}

/// See the module. `sockets` is an XSKMAP from receive queue to socket.
pub(crate) fn up(sockets: u32) -> Result<Vec<Insn>, BuildError> {
    let mut b = Builder::new();
    b.load(Size::W, R2, R1, xdp_md::RX_QUEUE_INDEX);
    b.load_map(R1, sockets);
    // What happens where no socket is.
    b.mov(R3, XdpAction::Drop as i32);
    b.call(helper::REDIRECT_MAP);
    b.exit();
    b.finish()
}

/// See the module. `stages` is the map whose slot 0 holds the first stage.
pub(crate) fn port(port_stats: u32, stages: u32) -> Result<Vec<Insn>, BuildError> {
    let mut b = Builder::new();
    let uncounted = b.label();
    b.mov(R6, R1);
    lookup_0(&mut b, port_stats);
    b.jump_if(Cond::Eq, R0, 0, uncounted);
    b.load(Size::W, R2, R6, xdp_md::DATA);
    b.load(Size::W, R3, R6, xdp_md::DATA_END);
    b.alu(AluOp::Sub, R3, R2);
    let (octets, packets) = (
        PortStat::IfInOctets.offset() as i16,
        PortStat::IfInUcastPkts.offset() as i16,
    );
    b.load(Size::Dw, R1, R0, octets);
    b.alu(AluOp::Add, R1, R3);
    b.store(Size::Dw, R0, octets, R1);
    b.load(Size::Dw, R1, R0, packets);
    b.alu(AluOp::Add, R1, 1);
    b.store(Size::Dw, R0, packets, R1);
    b.bind(uncounted);
    b.mov(R1, R6);
    b.load_map(R2, stages);
    b.mov(R3, 0);
    b.call(helper::TAIL_CALL);
    // Nothing is installed.
    b.mov(R0, XdpAction::Drop as i32);
    b.exit();
    b.finish()
}

/// r0 = address of element 0 of an array.
fn lookup_0(b: &mut Builder, map: u32) {
    b.store(Size::W, R10, -4, 0);
    b.mov(R2, R10);
    b.alu(AluOp::Add, R2, -4);
    b.load_map(R1, map);
    b.call(helper::MAP_LOOKUP_ELEM);
}

/// Ends the program with the packet on its way to user space, or goes on to `lost`, which follows.
fn send_up(b: &mut Builder, way: Way<'_>, mark: Mark, lost: Label) {
    let (interfaces, ups) = match way {
        Way::TestRun => {
            b.load_const(R1, u64::from(USER_SPACE));
            b.mov(R2, 0);
            b.call(helper::REDIRECT);
            b.exit();
            return;
        }
        Way::Sockets { interfaces, ups } => (interfaces, ups),
    };
    b.mov(R1, R6);
    b.mov(R2, -(MARK_LEN as i32));
    b.call(helper::XDP_ADJUST_META);
    b.jump_if(Cond::Ne, R0, 0, lost);
    b.load(Size::W, R2, R6, xdp_md::DATA);
    b.load(Size::W, R3, R6, xdp_md::DATA_META);
    b.mov(R1, R3);
    b.alu(AluOp::Add, R1, MARK_LEN as i32);
    b.jump_if(Cond::Gt, R1, R2, lost);
    b.load_imm64(R1, mark.number());
    b.store(Size::Dw, R3, 0, R1);
    let known = b.label();
    b.load(Size::W, R1, R6, xdp_md::INGRESS_IFINDEX);
    for (port, interface) in (0i32..).zip(interfaces) {
        b.mov(R3, port);
        b.load_const(R2, u64::from(*interface));
        b.jump_if(Cond::Eq, R1, R2, known);
    }
    b.jump(lost);
    b.bind(known);
    b.mov(R1, R6);
    b.load_map(R2, ups);
    b.call(helper::TAIL_CALL);
}
