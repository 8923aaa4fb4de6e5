//! What the code generator is told about registers, seen in the instructions.

use dash_bpf::builder::Builder;
use dash_bpf::op::AluOp;
use dash_bpf::{Reg, Size};
use dash_native::unverified::list_unverified;
use dash_native::{Isa, Options};

use crate::world::object;

/// The instructions between two that are the same whatever is between them: the loads of r2 and r3, and the store of
/// the result.
fn between(body: impl FnOnce(&mut Builder)) -> Vec<String> {
    let program = object(vec![], |b| {
        b.load(Size::W, Reg::R2, Reg::R1, 12);
        b.load(Size::W, Reg::R3, Reg::R1, 16);
        b.alu(AluOp::Mul, Reg::R2, 3);
        b.alu(AluOp::Mul, Reg::R3, 5);
        body(b);
        b.exit();
    });
    let (_, listing) = list_unverified(&program, &Options::for_isa(Isa::X86_64)).expect("compiles");
    let lines = listing.asm.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with(';'));
    let code = lines.map(|line| line.split_once(char::is_whitespace).unwrap_or(("", line)).1);
    code.map(|line| line.trim().to_owned()).collect()
}

fn count(code: &[String], operation: &str) -> usize {
    let is = |line: &&String| line.split_whitespace().next() == Some(operation);
    code.iter().filter(is).count()
}

/// r3 = r2 ^ r3 and r2 is used again: the result takes r3's register.
#[test]
fn a_result_takes_the_register_of_the_operand_that_nobody_needs() {
    let copies = |first, second| {
        let code = between(|b| {
            b.mov(Reg::R4, first);
            b.alu(AluOp::Xor, Reg::R4, second);
            b.mov(Reg::R0, Reg::R4);
            b.alu(AluOp::Mul, Reg::R0, Reg::R2);
        });
        code.len()
    };
    assert_eq!(copies(Reg::R2, Reg::R3), copies(Reg::R3, Reg::R2));
}

/// The sum of two halves, with the whole needed for the upper: it is not computed once more for the lower.
#[test]
fn what_both_halves_are_taken_of_is_computed_once() {
    for (half, low) in [(32, None), (16, Some(0xffff)), (8, Some(0xff))] {
        let code = between(|b| {
            b.alu(AluOp::Xor, Reg::R2, -1);
            b.alu(AluOp::Xor, Reg::R3, 0x1234);
            b.alu(AluOp::Add, Reg::R2, Reg::R3);
            b.mov(Reg::R0, Reg::R2);
            b.alu(AluOp::Rsh, Reg::R0, half);
            match low {
                None => {
                    b.alu(AluOp::Lsh, Reg::R2, 32);
                    b.alu(AluOp::Rsh, Reg::R2, 32);
                }
                Some(mask) => b.alu(AluOp::And, Reg::R2, mask),
            }
            b.alu(AluOp::Xor, Reg::R0, Reg::R2);
        });
        let (inverted, keyed) = (count(&code, "not"), count(&code, "xor"));
        assert_eq!((inverted, keyed), (1, 2), "{half}: {code:#?}");
        assert_eq!(count(&code, "and"), 0, "{half}: {code:#?}");
    }
}
