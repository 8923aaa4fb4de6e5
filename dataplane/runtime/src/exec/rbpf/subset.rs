//! Which programs rbpf 0.4 runs as RFC 9669 says.

use dash_bpf::helper as nr;
use dash_bpf::op::{AluOp, Cond, Endian, Imm64, Operand, Width};
use dash_bpf::{Op, Program, Reg, decode};
use nic_target::TargetError;

use super::{ENTER, refuse};

/// Refuses what rbpf 0.4 lacks or gets wrong.
pub(super) fn check(program: &Program) -> Result<(), TargetError> {
    let at = |slot: usize, why: &str| {
        refuse(format!(
            "program {}, instruction {slot}: {why}",
            program.name
        ))
    };
    let ops =
        decode(&program.insns).map_err(|e| refuse(format!("program {}: {e}", program.name)))?;
    if ops.len() > 30_000 {
        return Err(refuse(format!(
            "program {} is too long for its 16-bit program counter",
            program.name
        )));
    }
    for (slot, op) in ops.iter().enumerate() {
        let why = match op {
            Op::Atomic { .. } => "atomic operation",
            Op::Load { signed: true, .. } => "sign-extending load (cpu v4)",
            Op::Alu {
                op: AluOp::Sdiv | AluOp::Smod,
                ..
            } => "signed division (cpu v4)",
            Op::Alu {
                op: AluOp::Movsx8 | AluOp::Movsx16 | AluOp::Movsx32,
                ..
            } => "sign-extending move (cpu v4)",
            Op::Endian {
                order: Endian::Swap,
                ..
            } => "unconditional byte swap (cpu v4)",
            Op::JumpIf {
                width: Width::W64,
                cond: Cond::Eq | Cond::Ne | Cond::Set | Cond::Gt | Cond::Ge | Cond::Lt | Cond::Le,
                src: Operand::Imm(..=-1),
                ..
            } => "64-bit comparison with a negative immediate, which it zero-extends",
            Op::Jump { .. } if program.insns[slot].code == 0x06 => "32-bit jump (cpu v4)",
            Op::Call { helper: ENTER } => "helper 255, which is ours",
            Op::CallReg { .. } => "call by register",
            Op::CallBtf { .. } => "call by BTF id",
            Op::CallLocal { .. } => "local call, whose frames it makes 256 bytes",
            Op::LoadPacket { .. } => "legacy packet access",
            Op::LoadImm64 {
                imm: Imm64::Other { .. },
                ..
            } => "64-bit immediate of a kind it does not have",
            Op::Call {
                helper: nr::TAIL_CALL,
            } => {
                let sets_r0 = matches!(
                    ops.get(slot + 1),
                    Some(Op::Alu {
                        op: AluOp::Mov,
                        dst: Reg::R0,
                        src: Operand::Imm(_),
                        ..
                    })
                );
                if sets_r0 && ops.get(slot + 2) == Some(&Op::Exit) {
                    continue;
                }
                "tail call that `r0 = imm; exit` does not follow"
            }
            _ => continue,
        };
        return Err(at(slot, why));
    }
    match program.insns.last().map(|insn| insn.code & 7) {
        Some(5) => Ok(()),
        _ => Err(at(
            ops.len() - 1,
            "the last instruction is not of class JMP",
        )),
    }
}
