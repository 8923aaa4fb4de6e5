//! Arithmetic (RFC 9669 section 4).

use super::*;
use dash_bpf::op::{AluOp, Endian};

impl Lowering<'_> {
    /// A register at a width.
    pub(super) fn register(&mut self, depth: usize, width: Width, reg: Reg) -> Value {
        let value = self.get(depth, reg);
        self.narrow(width, value)
    }

    /// An operand at a width.
    pub(super) fn operand(&mut self, depth: usize, width: Width, operand: Operand) -> Value {
        match (operand, width) {
            (Operand::Reg(r), _) => self.register(depth, width, r),
            (Operand::Imm(v), Width::W64) => self.iconst(v.into()),
            // Constants narrower than 64 bits are given zero-extended.
            (Operand::Imm(v), Width::W32) => self
                .b
                .ins()
                .iconst(types::I32, i64::from(v.cast_unsigned())),
        }
    }

    pub(super) fn operand64(&mut self, depth: usize, operand: Operand) -> Value {
        self.operand(depth, Width::W64, operand)
    }

    fn narrow(&mut self, width: Width, value: Value) -> Value {
        match width {
            Width::W64 => value,
            Width::W32 => self.b.ins().ireduce(types::I32, value),
        }
    }

    /// Sets a register; 32-bit results are zero-extended.
    fn set_at(&mut self, depth: usize, width: Width, reg: Reg, value: Value) {
        let value = match width {
            Width::W64 => value,
            Width::W32 => self.b.ins().uextend(types::I64, value),
        };
        self.set(depth, reg, value);
    }

    pub(super) fn alu(&mut self, depth: usize, width: Width, op: AluOp, dst: Reg, src: Operand) {
        if let (AluOp::Mov, Operand::Imm(v)) = (op, src) {
            let value = match width {
                Width::W64 => i64::from(v),
                Width::W32 => i64::from(v.cast_unsigned()),
            };
            let value = self.iconst(value);
            self.set(depth, dst, value);
            return;
        }
        let y = self.operand(depth, width, src);
        let value = match op {
            AluOp::Mov => y,
            AluOp::Movsx8 => self.sign_extend_low(width, types::I8, y),
            AluOp::Movsx16 => self.sign_extend_low(width, types::I16, y),
            AluOp::Movsx32 if width == Width::W32 => y,
            AluOp::Movsx32 => self.sign_extend_low(width, types::I32, y),
            _ => {
                let x = self.register(depth, width, dst);
                self.binary(width, op, x, y, src)
            }
        };
        self.set_at(depth, width, dst, value);
    }

    fn sign_extend_low(
        &mut self,
        width: Width,
        from: cranelift_codegen::ir::Type,
        value: Value,
    ) -> Value {
        let low = self.b.ins().ireduce(from, value);
        self.b.ins().sextend(int_type(width), low)
    }

    fn binary(&mut self, width: Width, op: AluOp, x: Value, y: Value, src: Operand) -> Value {
        match op {
            AluOp::Add => self.b.ins().iadd(x, y),
            AluOp::Sub => self.b.ins().isub(x, y),
            AluOp::Mul => self.b.ins().imul(x, y),
            AluOp::Or => self.b.ins().bor(x, y),
            AluOp::And => self.b.ins().band(x, y),
            AluOp::Xor => self.b.ins().bxor(x, y),
            // Cranelift masks shift amounts to the width, as eBPF does.
            AluOp::Lsh => self.b.ins().ishl(x, y),
            AluOp::Rsh => self.b.ins().ushr(x, y),
            AluOp::Arsh => self.b.ins().sshr(x, y),
            AluOp::Div | AluOp::Sdiv | AluOp::Mod | AluOp::Smod => {
                self.divide(width, op, x, y, src)
            }
            AluOp::Mov | AluOp::Movsx8 | AluOp::Movsx16 | AluOp::Movsx32 => y,
        }
    }

    /// Division and remainder. The machine's instructions trap on a zero divisor and on the one
    /// quotient that overflows, so they are given 1 instead and the result is chosen afterwards:
    /// x / 0 = 0, x % 0 = x, and MIN / -1 = -MIN = MIN, MIN % -1 = 0.
    fn divide(&mut self, width: Width, op: AluOp, x: Value, y: Value, src: Operand) -> Value {
        let ty = int_type(width);
        let signed = matches!(op, AluOp::Sdiv | AluOp::Smod);
        match src {
            Operand::Imm(0) if matches!(op, AluOp::Div | AluOp::Sdiv) => {
                return self.b.ins().iconst(ty, 0);
            }
            Operand::Imm(0) => return x,
            Operand::Imm(-1) if op == AluOp::Sdiv => return self.b.ins().ineg(x),
            Operand::Imm(-1) if op == AluOp::Smod => return self.b.ins().iconst(ty, 0),
            Operand::Imm(_) => {
                return match op {
                    AluOp::Div => self.b.ins().udiv(x, y),
                    AluOp::Sdiv => self.b.ins().sdiv(x, y),
                    AluOp::Mod => self.b.ins().urem(x, y),
                    _ => self.b.ins().srem(x, y),
                };
            }
            Operand::Reg(_) => {}
        }
        let is_zero = self.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let one = self.b.ins().iconst(ty, 1);
        let mut divisor = self.b.ins().select(is_zero, one, y);
        let is_minus_one = signed.then(|| self.b.ins().icmp_imm_s(IntCC::Equal, y, -1));
        if let Some(is_minus_one) = is_minus_one {
            divisor = self.b.ins().select(is_minus_one, one, divisor);
        }
        match op {
            AluOp::Div | AluOp::Sdiv => {
                let mut quotient = if signed {
                    self.b.ins().sdiv(x, divisor)
                } else {
                    self.b.ins().udiv(x, divisor)
                };
                if let Some(is_minus_one) = is_minus_one {
                    let negated = self.b.ins().ineg(x);
                    quotient = self.b.ins().select(is_minus_one, negated, quotient);
                }
                let zero = self.b.ins().iconst(ty, 0);
                self.b.ins().select(is_zero, zero, quotient)
            }
            _ => {
                // x % 1 = 0 is already right for -1.
                let remainder = if signed {
                    self.b.ins().srem(x, divisor)
                } else {
                    self.b.ins().urem(x, divisor)
                };
                self.b.ins().select(is_zero, x, remainder)
            }
        }
    }

    pub(super) fn neg(&mut self, depth: usize, width: Width, dst: Reg) {
        let value = self.register(depth, width, dst);
        let value = self.b.ins().ineg(value);
        self.set_at(depth, width, dst, value);
    }

    /// Byte order; both machines are little-endian.
    pub(super) fn endian(&mut self, depth: usize, order: Endian, bits: u8, dst: Reg) {
        let value = self.get(depth, dst);
        let low = match bits {
            16 => self.b.ins().ireduce(types::I16, value),
            32 => self.b.ins().ireduce(types::I32, value),
            _ => value,
        };
        let ordered = match order {
            Endian::Le => low,
            Endian::Be | Endian::Swap => self.b.ins().bswap(low),
        };
        let value = match bits {
            16 | 32 => self.b.ins().uextend(types::I64, ordered),
            _ => ordered,
        };
        self.set(depth, dst, value);
    }
}

fn int_type(width: Width) -> cranelift_codegen::ir::Type {
    match width {
        Width::W32 => types::I32,
        Width::W64 => types::I64,
    }
}
