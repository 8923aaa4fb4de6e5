//! Bytecode that decodes encodes to the same bytes, but for far jumps to where near ones reach; and its
//! disassembly assembles.

use dash_bpf::{Insn, Op, decode, disassemble, encode};

pub(crate) fn run(data: &[u8]) {
    let insns: Vec<Insn> = data
        .as_chunks()
        .0
        .iter()
        .map(|slot| Insn::from_bytes(*slot))
        .collect();
    let Ok(ops) = decode(&insns) else {
        // Refused, and said so the same way.
        assert!(disassemble(&insns).is_err());
        return;
    };
    assert!(disassemble(&insns).is_ok());
    let mut back = Vec::new();
    for (pc, op) in ops.iter().enumerate() {
        if *op != Op::LoadImm64Hi {
            let encoded = encode(op, pc).expect("a decoded instruction has a wire form");
            back.extend_from_slice(encoded.as_slice());
        }
    }
    // Fields that an instruction does not use are refused by the decoder, so nothing gets lost.
    let insns: Vec<Insn> = insns.into_iter().map(nearest).collect();
    assert_eq!(back, insns);
}

/// `gotol` as `goto`, where that reaches: both are one instruction once decoded.
fn nearest(insn: Insn) -> Insn {
    const GOTOL: u8 = 0x06;
    const GOTO: u8 = 0x05;
    match i16::try_from(insn.imm) {
        Ok(off) if insn.code == GOTOL => Insn {
            code: GOTO,
            off,
            imm: 0,
            ..insn
        },
        _ => insn,
    }
}
