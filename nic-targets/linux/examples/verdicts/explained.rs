//! Why the kernel refuses what we accept, where that is no hole: by its words, and where words alone could hide one,
//! by what the program does or by asking the kernel again.

use dash_bpf::op::{AluOp, Cond, Imm64, Op, Operand, Width};
use dash_bpf::{Insn, MapDef, Program, decode, encode, helper};
use dash_verify::{Limits, examine};

/// What shows that a reason is the one listed.
enum Shown {
    /// The kernel's words.
    Words,
    /// And such an instruction in the program.
    Has(fn(&Op) -> bool),
    /// And the program as a whole.
    Is(fn(&[Op]) -> bool),
    /// The kernel accepts the program once it is told what it did not know.
    Told(fn(&Program, &[MapDef]) -> Option<Vec<Insn>>),
}

/// What the kernel says, what shows what it means, and why that is no hole.
const EXPLAINED: [(&str, Shown, &str); 17] = [
    (
        "misaligned stack access",
        Shown::Words,
        "the kernel follows stored registers by 8-byte slots; we follow bytes, and engines read bytes",
    ),
    (
        "offset is outside of the packet",
        Shown::Words,
        "the kernel forgets an earlier check once an unknown number is added; we add its bounds",
    ),
    (
        "R0 !read_ok",
        Shown::Has(|op| calls(op, helper::TAIL_CALL)),
        "r0 after a tail call that failed: our engines define it, the kernel does not",
    ),
    (
        "invalid bpf_context access off=20",
        Shown::Words,
        "egress_ifindex: the kernel has it for programs of device maps only, which this load does not ask",
    ),
    (
        "with unbounded min value is not allowed",
        Shown::Has(|op| divides(op).is_some()),
        "the kernel knows nothing of quotients and remainders by a constant; we do",
    ),
    (
        "infinite loop detected",
        Shown::Told(halves_of_quotients),
        "the kernel does not know that the upper half of a quotient or remainder of 32 bits is 0, and so not that a \
         loop is never entered: with the number moved onto itself it accepts the program",
    ),
    (
        "infinite loop detected",
        Shown::Is(divides_round_by_round),
        "the kernel knows nothing of quotients, and so not that a loop ends that divides what it compares in each \
         round; we walk its rounds",
    ),
    (
        "expected=map_ptr",
        Shown::Told(halves_of_quotients),
        "the kernel does not know the upper half of a quotient, as above, and so not that a call is never reached",
    ),
    (
        "!read_ok",
        Shown::Told(halves_of_quotients),
        "the same, and so not that a place where nothing was written is never reached",
    ),
    (
        "on map_value_or_null prohibited",
        Shown::Told(tests_for_null),
        "the kernel takes no order of an address and 0 for a test for null: with == or != it accepts the program",
    ),
    (
        "min value is negative, either use unsigned or 'var &= const'",
        Shown::Told(differences),
        "the kernel knows nothing of the difference of two pointers into one packet; we do where both are counted \
         from one place: with that number in its place it accepts the program",
    ),
    (
        "jump out of range from insn",
        Shown::Has(|op| matches!(op, Op::CallLocal { .. })),
        "the kernel wants each function in one piece, and looks no further; we want each instruction in one \
         function, wherever it lies",
    ),
    (
        "cannot call GPL-restricted function",
        Shown::Words,
        "tracing helpers are for programs under the GPL there; this is about licenses",
    ),
    (
        "does not point to a readonly map",
        Shown::Words,
        "the kernel wants a map of constants frozen against its loader too, which this load does not do",
    ),
    (
        "invalid func unknown#250",
        Shown::Has(|op| calls(op, 250)),
        "the hook of our pipeline, which the kernel does not have; users' programs that call it are not loaded",
    ),
    (
        "missing btf func_info",
        Shown::Has(|op| {
            matches!(
                op,
                Op::LoadImm64 {
                    imm: Imm64::Other { .. },
                    ..
                }
            )
        }),
        "functions that helpers call need type information there, which mutants have not: the kernel does not look \
         at the program at all",
    ),
    (
        "div by zero",
        Shown::Has(|op| matches!(divides(op), Some((_, Operand::Imm(0))))),
        "by the constant 0: our engines give what RFC 9669 says",
    ),
];

fn calls(op: &Op, number: u32) -> bool {
    matches!(op, Op::Call { helper } if *helper == number) || matches!(op, Op::CallReg { .. })
}

/// The width of a division or remainder, and what by.
fn divides(op: &Op) -> Option<(Width, Operand)> {
    match op {
        Op::Alu {
            width,
            op: AluOp::Div | AluOp::Sdiv | AluOp::Mod | AluOp::Smod,
            src,
            ..
        } => Some((*width, *src)),
        _ => None,
    }
}

/// Whether what a jump back compares is divided in what it jumps over.
fn divides_round_by_round(ops: &[Op]) -> bool {
    ops.iter().enumerate().any(|(pc, op)| match op {
        Op::JumpIf { dst, target, .. } if *target <= pc => {
            let round = ops.get(*target..pc).unwrap_or(&[]);
            round.iter().any(|op| {
                let is_it = matches!(op, Op::Alu { dst: to, .. } if to == dst);
                is_it && matches!(divides(op), Some((_, Operand::Imm(_))))
            })
        }
        _ => false,
    })
}

/// Why the kernel's reason is no hole of ours; `kernel` asks it again.
pub(crate) fn explain(
    reason: &str,
    program: &Program,
    maps: &[MapDef],
    kernel: impl Fn(&[Insn]) -> Result<(), String>,
) -> Option<(&'static str, &'static str)> {
    let found = EXPLAINED.iter().find(|(words, shown, _)| {
        reason.contains(words)
            && match shown {
                Shown::Words => true,
                Shown::Has(is) => decode(&program.insns).is_ok_and(|ops| ops.iter().any(is)),
                Shown::Is(so) => decode(&program.insns).is_ok_and(|ops| so(&ops)),
                Shown::Told(tell) => {
                    tell(program, maps).is_some_and(|insns| kernel(&insns).is_ok())
                }
            }
    });
    found.map(|(words, _, why)| (*words, *why))
}

/// The program with each quotient and remainder of 32 bits moved onto itself, which changes nothing.
fn halves_of_quotients(program: &Program, _: &[MapDef]) -> Option<Vec<Insn>> {
    let ops = decode(&program.insns).ok()?;
    let halves = |op: &Op| match (divides(op), op) {
        (Some((Width::W32, _)), Op::Alu { dst, .. }) => Some(*dst),
        _ => None,
    };
    // Where each instruction is then.
    let mut at = Vec::with_capacity(ops.len() + 1);
    let mut end = 0;
    for op in &ops {
        at.push(end);
        end += 1 + usize::from(halves(op).is_some());
    }
    at.push(end);
    let mut told = Vec::with_capacity(end);
    for op in &ops {
        let moved = match *op {
            Op::LoadImm64Hi => continue,
            Op::Jump { target } => Op::Jump {
                target: *at.get(target)?,
            },
            Op::CallLocal { target } => Op::CallLocal {
                target: *at.get(target)?,
            },
            Op::JumpIf {
                width,
                cond,
                dst,
                src,
                target,
            } => Op::JumpIf {
                width,
                cond,
                dst,
                src,
                target: *at.get(target)?,
            },
            other => other,
        };
        told.extend_from_slice(encode(&moved, told.len()).ok()?.as_slice());
        if let Some(dst) = halves(op) {
            let onto_itself = Op::Alu {
                width: Width::W32,
                op: AluOp::Mov,
                dst,
                src: Operand::Reg(dst),
            };
            told.extend_from_slice(encode(&onto_itself, told.len()).ok()?.as_slice());
        }
    }
    (told.len() > program.insns.len()).then_some(told)
}

/// The program with orders of a register and 0 as the equality they are for addresses.
fn tests_for_null(program: &Program, _: &[MapDef]) -> Option<Vec<Insn>> {
    let ops = decode(&program.insns).ok()?;
    let mut told = program.insns.clone();
    for (pc, op) in ops.iter().enumerate() {
        let Op::JumpIf {
            width: Width::W64,
            cond: cond @ (Cond::Gt | Cond::Le),
            dst,
            src: Operand::Imm(0),
            target,
        } = *op
        else {
            continue;
        };
        let test = Op::JumpIf {
            width: Width::W64,
            cond: if cond == Cond::Gt { Cond::Ne } else { Cond::Eq },
            dst,
            src: Operand::Imm(0),
            target,
        };
        told[pc] = *encode(&test, pc).ok()?.as_slice().first()?;
    }
    (told != program.insns).then_some(told)
}

/// The program with differences of registers that we know, whatever path led there, as the numbers they are.
fn differences(program: &Program, maps: &[MapDef]) -> Option<Vec<Insn>> {
    let ops = decode(&program.insns).ok()?;
    let mut log = Vec::new();
    examine(program, maps, &Limits::default(), Some(&mut log)).ok()?;
    let mut told = program.insns.clone();
    for (pc, op) in ops.iter().enumerate() {
        let Op::Alu {
            width: Width::W64,
            op: AluOp::Sub,
            dst,
            src: Operand::Reg(_),
        } = op
        else {
            continue;
        };
        let register = format!(" r{}=number(", dst.index());
        let mut after = log.iter().filter(|seen| seen.pc == pc + 1).map(|seen| {
            let (_, rest) = seen.known.split_once(&register)?;
            let (text, _) = rest.split_once(')')?;
            match text.strip_prefix("0x") {
                Some(hex) => i32::from_str_radix(hex, 16).ok(),
                None => text.parse().ok(),
            }
        });
        let first = after.next().flatten();
        if let Some(number) = first
            && after.all(|other| other == first)
        {
            let known = Op::Alu {
                width: Width::W64,
                op: AluOp::Mov,
                dst: *dst,
                src: Operand::Imm(number),
            };
            told[pc] = *encode(&known, pc).ok()?.as_slice().first()?;
        }
    }
    (told != program.insns).then_some(told)
}
