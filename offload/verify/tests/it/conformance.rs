//! The public conformance programs, where a file of them is given: what PREVAIL accepts, ours
//! accepts, and what ours accepts gives the suite's result in the checking interpreter.

use dash_bpf::interp::{CTX_BASE, CallFault, Env, HelperResult, Interp, MemFault, StackView};
use dash_bpf::op::{Op, Operand, Reg, Size};
use dash_bpf::{Insn, decode, encode};
use dash_verify::{Judge, Reason, Refusal, Verifier, VerifyError};

use crate::support::{by, object};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hex digits are ASCII");
        u8::from_str_radix(pair, 16).expect("two hex digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// Nothing but the stack: helpers are not run.
struct Nothing;

impl Env for Nothing {
    fn load(&mut self, _: u64, _: Size) -> Result<u64, MemFault> {
        Err(MemFault::Unmapped)
    }

    fn store(&mut self, _: u64, _: Size, _: u64) -> Result<(), MemFault> {
        Err(MemFault::Unmapped)
    }

    fn map_address(&mut self, _: u32) -> Result<u64, MemFault> {
        Err(MemFault::NoMap)
    }

    fn call(
        &mut self,
        _: u32,
        _: [u64; 5],
        _: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        Ok(HelperResult::Unwind(0))
    }
}

/// The suite's programs get memory in r1 and its length in r2. Here the memory is the lower end of
/// the stack, written by a prologue.
fn with_memory(memory: &[u8], program: &[Insn]) -> Vec<Insn> {
    const LOWEST: i16 = -512;
    let mut ops: Vec<Op> = (LOWEST..)
        .zip(memory)
        .map(|(off, byte)| Op::Store {
            size: Size::B,
            base: Reg::R10,
            off,
            src: Operand::Imm(i32::from(*byte)),
        })
        .collect();
    let alu = |op, dst, src| Op::Alu {
        width: dash_bpf::Width::W64,
        op,
        dst,
        src,
    };
    use dash_bpf::op::AluOp::{Add, Mov};
    if memory.is_empty() {
        ops.push(alu(Mov, Reg::R1, Operand::Imm(0)));
    } else {
        ops.push(alu(Mov, Reg::R1, Operand::Reg(Reg::R10)));
        ops.push(alu(Add, Reg::R1, Operand::Imm(LOWEST.into())));
    }
    ops.push(alu(Mov, Reg::R2, Operand::Imm(memory.len() as i32)));
    let mut insns = Vec::new();
    for op in &ops {
        let encoded = encode(op, insns.len()).expect("it has a form");
        insns.extend_from_slice(encoded.as_slice());
    }
    insns.extend_from_slice(program);
    insns
}

/// `DASHWIRE_CONFORMANCE` names a JSON array of `{name, program, memory, result}`, all hex.
#[test]
fn what_prevail_accepts_of_the_conformance_programs_ours_accepts() {
    let Ok(path) = std::env::var("DASHWIRE_CONFORMANCE") else {
        eprintln!("SKIP: DASHWIRE_CONFORMANCE names no file of conformance programs");
        return;
    };
    let text = std::fs::read_to_string(&path).expect("file of conformance programs");
    let cases: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let cases = cases.as_array().expect("an array");
    let (mut ours, mut prevails) = (0, 0);
    let mut wrong = Vec::new();
    for case in cases {
        let field = |name: &str| case[name].as_str();
        let name = field("name").expect("name");
        let program: Vec<Insn> = hex(field("program").expect("program"))
            .chunks(8)
            .map(|slot| Insn::from_bytes(slot.try_into().expect("8 bytes")))
            .collect();
        let memory = field("memory").map(hex).unwrap_or_default();
        let mut object = object(name, "exit");
        object.programs[0].insns = with_memory(&memory, &program);
        let verdict = |judge| Verifier::new(by(judge)).verify(&object);
        let prevail = verdict(Judge::Prevail);
        prevails += usize::from(prevail.is_ok());
        match (verdict(Judge::Own), prevail) {
            (Ok(_), prevail) => {
                ours += 1;
                if let Err(e) = prevail {
                    eprintln!("only ours accepts {name}: {e}");
                }
            }
            (Err(e), Ok(_)) => wrong.push(format!("{name}: only PREVAIL accepts: {e}")),
            (Err(e), Err(_)) => {
                // Shifts are refused as Linux refuses them.
                let VerifyError::Program { reason, .. } = &e else {
                    panic!("{name}: {e}");
                };
                let shift = matches!(reason, Reason::Own(o) if matches!(o.fault, dash_verify::Fault::Shift(_)))
                    || matches!(
                        reason,
                        Reason::Rule {
                            rule: Refusal::Shift(_),
                            ..
                        }
                    );
                eprintln!(
                    "refused, {}: {name}: {e}",
                    if shift { "shift" } else { "other" }
                );
                continue;
            }
        }
        let ops = decode(&object.programs[0].insns).expect("judged");
        let calls = |op: &Op| matches!(op, Op::Call { .. } | Op::CallReg { .. });
        if ops.iter().any(calls) {
            continue;
        }
        let expected = field("result").expect("result").trim_start_matches("0x");
        let expected = u64::from_str_radix(expected, 16).expect("hex result");
        let result = Interp::new(10_000_000).run(&[&ops[..]], 0, &[CTX_BASE], &mut Nothing);
        if result != Ok(expected) {
            wrong.push(format!("{name}: expected {expected:#x}, got {result:x?}"));
        }
    }
    let all = cases.len();
    eprintln!("of {all} programs ours accepts {ours}, PREVAIL {prevails}");
    assert!(wrong.is_empty() && all > 0, "{}", wrong.join("\n"));
}
