//! Registers an instruction says it reads and loses, against the interpreter, which traps where a
//! register is read that nothing was put into.

use dash_bpf::Trap;
use dash_bpf::interp::{BareHelpers as _, Interp, TrapKind};
use dash_bpf::op::{AluOp, AtomicOp, Cond, Endian, Imm64, Op, Operand, Reg, Size, Width};

use crate::memory;

const REGISTERS: std::ops::Range<u8> = 0..10;

fn reg(n: u8) -> Reg {
    Reg::new(n).expect("at most 10")
}

fn value(n: u8) -> u64 {
    0x1111_2222_3333_0000 + u64::from(n)
}

/// Every form of instruction, with registers that are all different, and with all the same.
fn instructions() -> Vec<Op> {
    let mut all = Vec::new();
    let operands = [
        Operand::Reg(Reg::R3),
        Operand::Reg(Reg::R2),
        Operand::Imm(5),
    ];
    let alu = [
        AluOp::Add,
        AluOp::Div,
        AluOp::Smod,
        AluOp::Lsh,
        AluOp::Mov,
        AluOp::Movsx8,
        AluOp::Movsx16,
        AluOp::Movsx32,
    ];
    let dst = Reg::R2;
    for src in operands {
        for width in [Width::W32, Width::W64] {
            all.extend(alu.map(|op| Op::Alu {
                width,
                op,
                dst,
                src,
            }));
            all.push(Op::Neg { width, dst });
            all.push(Op::JumpIf {
                width,
                cond: Cond::Set,
                dst,
                src,
                target: 0,
            });
        }
        all.push(Op::Store {
            size: Size::Dw,
            base: Reg::R10,
            off: -8,
            src,
        });
    }
    all.push(Op::Endian {
        order: Endian::Be,
        bits: 16,
        dst,
    });
    all.push(Op::LoadImm64 {
        dst,
        imm: Imm64::Value(7),
    });
    for dst in [Reg::R0, Reg::R2] {
        all.push(Op::Load {
            size: Size::W,
            signed: true,
            dst,
            base: Reg::R10,
            off: -8,
        });
    }
    for op in [
        AtomicOp::Add,
        AtomicOp::Or,
        AtomicOp::And,
        AtomicOp::Xor,
        AtomicOp::Xchg,
        AtomicOp::CmpXchg,
    ] {
        for (fetch, src) in [(false, Reg::R4), (true, Reg::R4), (true, Reg::R0)] {
            let fetches = matches!(op, AtomicOp::Xchg | AtomicOp::CmpXchg);
            all.push(Op::Atomic {
                size: Size::Dw,
                op,
                fetch: fetch || fetches,
                base: Reg::R10,
                off: -8,
                src,
            });
        }
    }
    // One argument: see `memory::Two`.
    all.push(Op::Call { helper: 5 });
    all.push(Op::Exit);
    all
}

/// Runs one instruction with all registers holding something but `without`; the result is what
/// `result` holds after it.
fn run(op: Op, without: Option<u8>, result: u8) -> Result<u64, Trap> {
    let mut ops = vec![Op::Store {
        size: Size::Dw,
        base: Reg::R10,
        off: -8,
        src: Operand::Imm(-1),
    }];
    for n in REGISTERS.filter(|n| Some(*n) != without) {
        let imm = Imm64::Value(value(n));
        ops.extend([Op::LoadImm64 { dst: reg(n), imm }, Op::LoadImm64Hi]);
    }
    let after = ops.len()
        + if matches!(op, Op::LoadImm64 { .. }) {
            2
        } else {
            1
        };
    ops.push(match op {
        Op::JumpIf {
            width,
            cond,
            dst,
            src,
            ..
        } => Op::JumpIf {
            width,
            cond,
            dst,
            src,
            target: after,
        },
        other => other,
    });
    if ops.len() < after {
        ops.push(Op::LoadImm64Hi);
    }
    ops.push(Op::Alu {
        width: Width::W64,
        op: AluOp::Mov,
        dst: Reg::R0,
        src: reg(result).into(),
    });
    ops.push(Op::Exit);
    // Without arguments, so that r1 and r2 hold nothing either.
    Interp::new(100).run(&[ops], 0, &[], &mut memory::memory(&[]))
}

fn is_uninitialised(result: &Result<u64, Trap>) -> bool {
    matches!(result, Err(trap) if matches!(trap.kind, TrapKind::Register(_)))
}

fn arity(helper: u32) -> usize {
    memory::Two.arity(helper)
}

#[test]
fn what_an_instruction_reads_is_what_it_cannot_do_without() {
    for op in instructions() {
        let reads = op.reads(arity);
        for n in REGISTERS {
            // What is looked at after it is something the instruction leaves alone.
            let other = REGISTERS
                .rev()
                .find(|r| *r != n && !op.writes().contains(reg(*r)))
                .expect("no instruction writes all");
            let trapped = is_uninitialised(&run(op, Some(n), other));
            assert_eq!(trapped, reads.contains(reg(n)), "r{n} of {op:?}");
        }
    }
}

#[test]
fn what_an_instruction_does_not_write_holds_what_it_held() {
    for op in instructions() {
        if op == Op::Exit {
            continue;
        }
        for n in REGISTERS {
            let result = run(op, None, n);
            if !op.writes().contains(reg(n)) {
                assert_eq!(result.expect("it runs"), value(n), "r{n} of {op:?}");
            } else if matches!(op, Op::Call { .. }) && n != 0 {
                assert!(is_uninitialised(&result), "r{n} of {op:?}");
            } else {
                // Some of these write what was there.
                assert!(result.is_ok(), "r{n} of {op:?}");
            }
        }
    }
}
