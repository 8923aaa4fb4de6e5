//! Loads, stores and atomics (RFC 9669 section 5), and where the eBPF stack really is.

use super::*;
use crate::analysis;
use crate::code::Machine;
use crate::stack::{Home, Piece};
use cranelift_codegen::ir::{AtomicRmwOp, Opcode};
use dash_bpf::op::AtomicOp;
use dash_bpf::{Size, helper::xdp_md};

impl Lowering<'_> {
    pub(super) fn load_memory(
        &mut self,
        flags: MemFlagsData,
        base: Value,
        off: i32,
        size: Size,
        signed: bool,
    ) -> Value {
        let ins = self.b.ins();
        match (size, signed) {
            (Size::B, false) => ins.uload8(types::I64, flags, base, off),
            (Size::B, true) => ins.sload8(types::I64, flags, base, off),
            (Size::H, false) => ins.uload16(types::I64, flags, base, off),
            (Size::H, true) => ins.sload16(types::I64, flags, base, off),
            (Size::W, false) => ins.uload32(flags, base, off),
            (Size::W, true) => ins.sload32(flags, base, off),
            (Size::Dw, _) => ins.load(types::I64, flags, base, off),
        }
    }

    pub(super) fn store_memory(
        &mut self,
        flags: MemFlagsData,
        base: Value,
        off: i32,
        size: Size,
        value: Value,
    ) {
        // A narrow value, and not a narrow store of a wide one: machines that store constants do so then.
        let narrow = match size {
            Size::B => Some(types::I8),
            Size::H => Some(types::I16),
            Size::W => Some(types::I32),
            Size::Dw => None,
        };
        let value = match narrow {
            Some(ty) => self.b.ins().ireduce(ty, value),
            None => value,
        };
        self.b.ins().store(flags, value, base, off);
    }

    /// A field of `struct xdp_md`: packet pointers are whole pointers in our context.
    pub(super) fn load_ctx(&mut self, field: i64, size: Size) -> Value {
        const DATA: i64 = xdp_md::DATA as i64;
        const DATA_END: i64 = xdp_md::DATA_END as i64;
        const DATA_META: i64 = xdp_md::DATA_META as i64;
        let pointer = match field {
            DATA => Some(run_ctx::DATA),
            DATA_END => Some(run_ctx::DATA_END),
            DATA_META => Some(run_ctx::DATA_META),
            _ => None,
        };
        let (ctx, flags) = (self.ctx, self.flags.ctx);
        if let Some(at) = pointer {
            return self.b.ins().load(types::I64, flags, ctx, at);
        }
        let start = |f: i16| i64::from(f);
        let at = match field {
            f if f >= start(xdp_md::EGRESS_IFINDEX) => run_ctx::EGRESS_IFINDEX,
            f if f >= start(xdp_md::RX_QUEUE_INDEX) => run_ctx::RX_QUEUE_INDEX,
            _ => run_ctx::INGRESS_IFINDEX,
        };
        // The analysis let only accesses inside one field pass.
        let part = (field % 4) as i32;
        self.load_memory(flags, ctx, at + part, size, false)
    }

    /// Whether a place is stack memory, and not in registers.
    pub(super) fn has_memory(&self, at: analysis::Place) -> bool {
        let size = self.slots[usize::from(at.depth)].map_or(0, |(_, size)| size);
        (-size..0).contains(&i32::from(at.off))
    }

    /// Address of a byte of stack memory.
    pub(super) fn stack_address(&mut self, at: analysis::Place) -> Value {
        match self.slots[usize::from(at.depth)] {
            Some((slot, size)) => {
                let off = size + i32::from(at.off);
                self.b.ins().stack_addr(types::I64, slot, off)
            }
            None => self.iconst(0),
        }
    }

    /// Stack bytes, zero-extended.
    pub(super) fn load_stack(
        &mut self,
        place: &Place<'_>,
        at: analysis::Place,
        bytes: usize,
    ) -> Value {
        let depth = usize::from(at.depth);
        match place.unit.frames[depth].home(at.off, bytes) {
            Home::Memory => {
                let address = self.stack_address(at);
                let flags = self.flags.stack;
                self.load_memory(flags, address, 0, size_of_bytes(bytes), false)
            }
            Home::Pieces(first, pieces) => {
                let mut whole = None;
                for (i, piece) in pieces.iter().enumerate() {
                    let part = self.b.use_var(place.pieces[depth][first + i]);
                    let shift = 8 * i64::from(piece.off - at.off);
                    whole = Some(match whole {
                        None => part,
                        Some(low) => {
                            let part = self.b.ins().ishl_imm_u(part, shift);
                            self.b.ins().bor(low, part)
                        }
                    });
                }
                whole.unwrap_or_else(|| self.iconst(0))
            }
        }
    }

    pub(super) fn store_stack(
        &mut self,
        place: &Place<'_>,
        at: analysis::Place,
        bytes: usize,
        value: Value,
    ) {
        let depth = usize::from(at.depth);
        match place.unit.frames[depth].home(at.off, bytes) {
            Home::Memory => {
                let address = self.stack_address(at);
                let flags = self.flags.stack;
                self.store_memory(flags, address, 0, size_of_bytes(bytes), value);
            }
            Home::Pieces(first, pieces) => {
                for (i, piece) in pieces.iter().enumerate() {
                    let part = match 8 * i64::from(piece.off - at.off) {
                        0 => value,
                        shift => self.b.ins().ushr_imm_u(value, shift),
                    };
                    let part = self.low_bytes(part, *piece);
                    self.b.def_var(place.pieces[depth][first + i], part);
                }
            }
        }
    }

    /// The low bytes of a value that fill a piece, the rest zero.
    fn low_bytes(&mut self, value: Value, piece: Piece) -> Value {
        if self.fits(value, piece.size) {
            return value;
        }
        let narrow = match piece.size {
            1 => types::I8,
            2 => types::I16,
            4 => types::I32,
            8 => return value,
            odd => return self.b.ins().band_imm_u(value, (1i64 << (8 * odd)) - 1),
        };
        let low = self.b.ins().ireduce(narrow, value);
        self.b.ins().uextend(types::I64, low)
    }

    /// A value that cannot be wider than so many bytes: just loaded.
    fn fits(&self, value: Value, bytes: u8) -> bool {
        let Some(inst) = self.b.func.dfg.value_def(value).inst() else {
            return false;
        };
        match self.b.func.dfg.insts[inst].opcode() {
            Opcode::Uload8 => bytes >= 1,
            Opcode::Uload16 => bytes >= 2,
            Opcode::Uload32 => bytes >= 4,
            _ => false,
        }
    }

    /// Sign-extends what was loaded zero-extended, where the instruction says so.
    pub(super) fn extend_loaded(&mut self, value: Value, size: Size, signed: bool) -> Value {
        let narrow = match (size, signed) {
            (Size::B, true) => types::I8,
            (Size::H, true) => types::I16,
            (Size::W, true) => types::I32,
            _ => return value,
        };
        let low = self.b.ins().ireduce(narrow, value);
        self.b.ins().sextend(types::I64, low)
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of one instruction")]
    pub(super) fn atomic(
        &mut self,
        depth: usize,
        size: Size,
        op: AtomicOp,
        fetch: bool,
        address: Value,
        flags: MemFlagsData,
        src: Reg,
    ) {
        let (ty, width) = match size {
            Size::Dw => (types::I64, Width::W64),
            _ => (types::I32, Width::W32),
        };
        let flags = flags.with_aligned();
        let operand = self.register(depth, width, src);
        let rmw = match op {
            AtomicOp::Add => AtomicRmwOp::Add,
            AtomicOp::Or => AtomicRmwOp::Or,
            AtomicOp::And => AtomicRmwOp::And,
            AtomicOp::Xor => AtomicRmwOp::Xor,
            AtomicOp::Xchg => AtomicRmwOp::Xchg,
            AtomicOp::CmpXchg => {
                let expected = match width {
                    Width::W64 => self.get(depth, Reg::R0),
                    Width::W32 => self.narrow_expected(depth),
                };
                let old = self.b.ins().atomic_cas(flags, address, expected, operand);
                let old = self.widen(width, old);
                self.set(depth, Reg::R0, old);
                return;
            }
        };
        let old = self.b.ins().atomic_rmw(ty, flags, rmw, address, operand);
        if fetch {
            let old = self.widen(width, old);
            self.set(depth, src, old);
        }
    }

    /// The low half of r0, to be compared with 32 bits of memory.
    ///
    /// Cranelift's loop for 64-bit Arm without atomic instructions compares whole registers, of which memory's has
    /// zeros above; a narrow value may have anything there. What it has after its bytes were swapped twice is zeros,
    /// and nothing simplifies that away.
    fn narrow_expected(&mut self, depth: usize) -> Value {
        let r0 = self.get(depth, Reg::R0);
        if self.machine != Machine::Aarch64 {
            return self.b.ins().ireduce(types::I32, r0);
        }
        let swapped = self.b.ins().bswap(r0);
        let low = self.b.ins().ushr_imm_u(swapped, 32);
        let low = self.b.ins().ireduce(types::I32, low);
        self.b.ins().bswap(low)
    }

    fn widen(&mut self, width: Width, value: Value) -> Value {
        match width {
            Width::W64 => value,
            Width::W32 => self.b.ins().uextend(types::I64, value),
        }
    }
}

pub(super) fn size_of_bytes(bytes: usize) -> Size {
    match bytes {
        1 => Size::B,
        2 => Size::H,
        4 => Size::W,
        _ => Size::Dw,
    }
}
