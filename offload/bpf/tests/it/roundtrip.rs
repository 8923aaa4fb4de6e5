//! What is written is read back: encoder and decoder, disassembler and assembler.

use dash_bpf::decode::DecodeRule;
use dash_bpf::encode::Encoded;
use dash_bpf::op::{AluOp, AtomicOp, Cond, Endian, Imm64, Op, Operand, Reg, Size, Width};
use dash_bpf::{Insn, assemble, decode, disassemble, encode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn reg() -> impl Strategy<Value = Reg> {
    (0u8..=10).prop_map(|n| Reg::new(n).expect("0..=10"))
}

fn writable() -> impl Strategy<Value = Reg> {
    (0u8..=9).prop_map(|n| Reg::new(n).expect("0..=9"))
}

fn width() -> impl Strategy<Value = Width> {
    select(vec![Width::W32, Width::W64])
}

fn size() -> impl Strategy<Value = Size> {
    select(vec![Size::B, Size::H, Size::W, Size::Dw])
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        reg().prop_map(Operand::Reg),
        any::<i32>().prop_map(Operand::Imm)
    ]
}

fn alu() -> impl Strategy<Value = Op> {
    let ops = vec![
        AluOp::Add,
        AluOp::Sub,
        AluOp::Mul,
        AluOp::Div,
        AluOp::Sdiv,
        AluOp::Or,
        AluOp::And,
        AluOp::Lsh,
        AluOp::Rsh,
        AluOp::Mod,
        AluOp::Smod,
        AluOp::Xor,
        AluOp::Mov,
        AluOp::Arsh,
    ];
    prop_oneof![
        (width(), select(ops), writable(), operand()).prop_map(|(width, op, dst, src)| Op::Alu {
            width,
            op,
            dst,
            src
        }),
        (
            width(),
            select(vec![AluOp::Movsx8, AluOp::Movsx16]),
            writable(),
            reg()
        )
            .prop_map(|(width, op, dst, src)| Op::Alu {
                width,
                op,
                dst,
                src: Operand::Reg(src)
            }),
        (writable(), reg()).prop_map(|(dst, src)| Op::Alu {
            width: Width::W64,
            op: AluOp::Movsx32,
            dst,
            src: Operand::Reg(src)
        }),
        (width(), writable()).prop_map(|(width, dst)| Op::Neg { width, dst }),
        (
            select(vec![Endian::Le, Endian::Be, Endian::Swap]),
            select(vec![16, 32, 64]),
            writable()
        )
            .prop_map(|(order, bits, dst)| Op::Endian { order, bits, dst }),
    ]
}

fn memory() -> impl Strategy<Value = Op> {
    let narrow = select(vec![Size::B, Size::H, Size::W]);
    let atomics = vec![
        (AtomicOp::Add, false),
        (AtomicOp::Add, true),
        (AtomicOp::Or, false),
        (AtomicOp::Or, true),
        (AtomicOp::And, false),
        (AtomicOp::And, true),
        (AtomicOp::Xor, false),
        (AtomicOp::Xor, true),
        (AtomicOp::Xchg, true),
        (AtomicOp::CmpXchg, true),
    ];
    let imm64 = prop_oneof![
        any::<u64>().prop_map(Imm64::Value),
        any::<u32>().prop_map(Imm64::Map),
        any::<(u32, u32)>().prop_map(|(map, offset)| Imm64::MapValue { map, offset }),
        (3u8..=6, any::<i32>(), any::<i32>()).prop_map(|(src, imm, next)| Imm64::Other {
            src,
            imm,
            next
        }),
    ];
    prop_oneof![
        (writable(), imm64).prop_map(|(dst, imm)| Op::LoadImm64 { dst, imm }),
        (size(), writable(), reg(), any::<i16>()).prop_map(|(size, dst, base, off)| Op::Load {
            size,
            signed: false,
            dst,
            base,
            off
        }),
        (narrow.clone(), writable(), reg(), any::<i16>()).prop_map(|(size, dst, base, off)| {
            Op::Load {
                size,
                signed: true,
                dst,
                base,
                off,
            }
        }),
        (size(), reg(), any::<i16>(), operand()).prop_map(|(size, base, off, src)| Op::Store {
            size,
            base,
            off,
            src
        }),
        (
            select(vec![Size::W, Size::Dw]),
            select(atomics),
            reg(),
            any::<i16>(),
            writable()
        )
            .prop_map(|(size, (op, fetch), base, off, src)| Op::Atomic {
                size,
                op,
                fetch,
                base,
                off,
                src
            }),
        (narrow, proptest::option::of(reg()), any::<i32>())
            .prop_map(|(size, index, imm)| Op::LoadPacket { size, index, imm }),
    ]
}

fn flow() -> impl Strategy<Value = Op> {
    let conds = vec![
        Cond::Eq,
        Cond::Ne,
        Cond::Set,
        Cond::Gt,
        Cond::Ge,
        Cond::Lt,
        Cond::Le,
        Cond::Sgt,
        Cond::Sge,
        Cond::Slt,
        Cond::Sle,
    ];
    // Targets are made real by `program`.
    prop_oneof![
        any::<prop::sample::Index>().prop_map(|i| Op::Jump {
            target: i.index(1 << 20)
        }),
        (
            width(),
            select(conds),
            reg(),
            operand(),
            any::<prop::sample::Index>()
        )
            .prop_map(|(width, cond, dst, src, i)| {
                Op::JumpIf {
                    width,
                    cond,
                    dst,
                    src,
                    target: i.index(1 << 20),
                }
            }),
        any::<prop::sample::Index>().prop_map(|i| Op::CallLocal {
            target: i.index(1 << 20)
        }),
        any::<u32>().prop_map(|helper| Op::Call { helper }),
        any::<i32>().prop_map(|id| Op::CallBtf { id }),
        reg().prop_map(|reg| Op::CallReg { reg }),
        Just(Op::Exit),
    ]
}

/// A well-formed program: any instructions, targets on instruction starts, `exit` at the end.
fn program() -> impl Strategy<Value = Vec<Op>> {
    vec(prop_oneof![alu(), memory(), flow()], 0..60).prop_map(|mut ops| {
        ops.push(Op::Exit);
        let mut out = Vec::new();
        for op in ops {
            out.push(op);
            if matches!(op, Op::LoadImm64 { .. }) {
                out.push(Op::LoadImm64Hi);
            }
        }
        let starts: Vec<usize> = (0..out.len())
            .filter(|at| out[*at] != Op::LoadImm64Hi)
            .collect();
        for op in &mut out {
            if let Op::Jump { target } | Op::JumpIf { target, .. } | Op::CallLocal { target } = op {
                *target = starts[*target % starts.len()];
            }
        }
        out
    })
}

fn wire(ops: &[Op]) -> Vec<Insn> {
    let mut out = Vec::new();
    for op in ops.iter().filter(|op| **op != Op::LoadImm64Hi) {
        let encoded = encode(op, out.len()).expect("well-formed instructions have an encoding");
        out.extend_from_slice(encoded.as_slice());
    }
    out
}

proptest! {
    #[test]
    fn decoding_an_encoded_program_gives_it_back(ops in program()) {
        prop_assert_eq!(decode(&wire(&ops)), Ok(ops));
    }

    #[test]
    fn assembling_a_disassembled_program_gives_it_back(ops in program()) {
        let insns = wire(&ops);
        let text = disassemble(&insns).expect("well-formed");
        prop_assert_eq!(assemble(&text), Ok(insns), "{}", text);
    }

    /// Any slots: either refused, or every op encodes back to a slot that means the same.
    #[test]
    fn decoding_arbitrary_bytes_never_panics_and_loses_nothing(
        slots in vec(any::<[u8; 8]>(), 1..20),
    ) {
        let insns: Vec<Insn> = slots.into_iter().map(Insn::from_bytes).collect();
        if let Ok(ops) = decode(&insns) {
            prop_assert_eq!(decode(&wire(&ops)), Ok(ops));
        }
    }

    /// One flipped bit of a well-formed program is another program or refused, never the same.
    #[test]
    fn no_bit_of_a_program_is_ignored(
        ops in program(), at in any::<prop::sample::Index>(), bit in 0usize..64,
    ) {
        let mut insns = wire(&ops);
        let at = at.index(insns.len());
        let mut bytes = insns[at].to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        insns[at] = Insn::from_bytes(bytes);
        prop_assert_ne!(decode(&insns), Ok(ops));
    }

    #[test]
    fn assembling_arbitrary_text_never_panics(text in "[ -~\n]{0,80}") {
        let _ = assemble(&text);
    }
}

#[test]
fn every_opcode_is_either_refused_or_encoded_back_to_itself() {
    let mut known = 0;
    for code in 0..=u8::MAX {
        // Operand fields that suit most opcodes: the second pass is for byte-order operations.
        for imm in [0, 16] {
            let insn = Insn {
                code,
                regs: 0,
                off: 0,
                imm,
            };
            let tail = if code == 0x18 {
                vec![Insn::default()]
            } else {
                Vec::new()
            };
            let mut insns = vec![insn];
            insns.extend(tail);
            insns.push(Insn {
                code: 0x95,
                ..Insn::default()
            });
            match decode(&insns) {
                Ok(ops) => {
                    let Ok(back) = encode(&ops[0], 0) else {
                        panic!("{code:#x} does not encode")
                    };
                    let first = match back {
                        Encoded::One([i]) | Encoded::Two([i, _]) => i,
                    };
                    // A 32-bit jump that fits 16 bits is written in the short form.
                    if code != 0x06 {
                        assert_eq!(first, insn, "{code:#x}");
                    }
                    known += 1;
                    break;
                }
                Err(e) if imm == 16 => {
                    let refused = matches!(
                        e.rule,
                        DecodeRule::UnknownOpcode(_)
                            | DecodeRule::Imm64HiAlone
                            | DecodeRule::ReservedImm(16)
                            | DecodeRule::JumpOutside(_)
                    );
                    assert!(refused, "{code:#x}: {e}");
                }
                Err(_) => {}
            }
        }
    }
    let arithmetic = 12 * 2 * 2 + 2 + 3;
    let jumps = 11 * 2 * 2 + 2 + 2 + 1;
    let loads = 1 + 3 + 3 + 4 + 3;
    let stores = 4 + 4 + 2;
    assert_eq!(
        known,
        arithmetic + jumps + loads + stores,
        "opcodes of RFC 9669, callx included"
    );
}
