//! Bytecode that decodes encodes to the same bytes, and its disassembly assembles to them.

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
    assert_eq!(back, insns);
}
