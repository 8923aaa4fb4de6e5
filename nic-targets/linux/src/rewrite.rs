//! Fits a program to the place where the kernel runs it.
//!
//! Everywhere, map references become file descriptors. In a test run ([`World::TestRun`]) two more
//! things are not the kernel's: `bpf_ktime_get_ns` becomes a load from the `executor` map, because
//! time is the packets' and not the machine's, and `bpf_redirect` becomes a store to it, because a
//! test run tells that a packet was redirected, not where to. On an interface ([`World::Live`])
//! what a program leaves to control (`XDP_PASS`) goes to another program, as the kernel's own stack
//! is not the control plane.

use std::os::fd::RawFd;

use dash_bpf::builder::{R0, R1, R2, R3, R6};
use dash_bpf::decode::{DecodeError, decode};
use dash_bpf::encode::{EncodeError, encode};
use dash_bpf::helper::{self, XdpAction};
use dash_bpf::map::{MapDef, MapKind};
use dash_bpf::op::{AluOp, Cond, Imm64, Op, Size, Width};
use dash_bpf::{Insn, Operand, Reg};
use thiserror::Error;

/// Offset of the clock in the value of the [`executor_map`], a `u64`, ns.
pub const CLOCK: u32 = 0;
/// Offset of the interface a packet was redirected to, a `u32`.
pub const REDIRECTED_TO: u32 = 8;
/// Bytes of its value.
pub const EXECUTOR_VALUE: usize = 16;

/// The map through which the executor and its programs talk.
pub fn executor_map() -> MapDef {
    MapDef {
        name: "executor".to_owned(),
        kind: MapKind::Array,
        key_size: 4,
        value_size: EXECUTOR_VALUE as u32,
        max_entries: 1,
        flags: 0,
        ..MapDef::default()
    }
}

/// Why a program cannot be fitted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum RewriteError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("instruction {pc}: {error}")]
    Encode { pc: usize, error: EncodeError },
    #[error("instruction {pc} names map {map}, which the object does not have")]
    NoMap { pc: usize, map: u32 },
    #[error("instruction {pc}: a jump leads to {target}, outside the program")]
    BadTarget { pc: usize, target: usize },
    #[error(
        "instruction {pc} calls helper {helper} (bpf_redirect_map): a test run does not tell where to"
    )]
    RedirectMap { pc: usize, helper: u32 },
}

/// Indices of the maps a program names, ascending.
pub fn maps_of(insns: &[Insn]) -> Result<Vec<u32>, DecodeError> {
    let mut maps = decode(insns)?
        .iter()
        .filter_map(|op| match op {
            Op::LoadImm64 {
                imm: Imm64::Map(map) | Imm64::MapValue { map, .. },
                ..
            } => Some(*map),
            _ => None,
        })
        .collect::<Vec<_>>();
    maps.sort_unstable();
    maps.dedup();
    Ok(maps)
}

/// Where a program is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// In test runs.
    TestRun {
        /// The [`executor_map`].
        executor: RawFd,
    },
    /// On an interface.
    Live {
        /// Where a packet goes that a program leaves to control: a program array and a slot. The
        /// context must be in r6 then.
        pass: Option<(RawFd, u32)>,
    },
}

fn set(dst: Reg, src: Operand) -> Op {
    Op::Alu {
        width: Width::W64,
        op: AluOp::Mov,
        dst,
        src,
    }
}

/// What stands for `op`, first slot at `at`.
fn replacement(op: Op, at: usize, world: World) -> Option<Vec<Op>> {
    match world {
        World::TestRun { executor } => in_test_run(op, at, executor),
        World::Live { pass } => on_interface(op, at, pass?),
    }
}

/// At an exit every register but r0 is free.
fn on_interface(op: Op, at: usize, (array, slot): (RawFd, u32)) -> Option<Vec<Op>> {
    if op != Op::Exit {
        return None;
    }
    Some(vec![
        Op::JumpIf {
            width: Width::W64,
            cond: Cond::Ne,
            dst: R0,
            src: Operand::Imm(XdpAction::Pass as i32),
            target: at + 7,
        },
        set(R1, Operand::Reg(R6)),
        Op::LoadImm64 {
            dst: R2,
            imm: Imm64::Map(array as u32),
        },
        Op::LoadImm64Hi,
        set(R3, Operand::Imm(slot as i32)),
        Op::Call {
            helper: helper::TAIL_CALL,
        },
        // Reached only when the slot is empty.
        set(R0, Operand::Imm(XdpAction::Pass as i32)),
        Op::Exit,
    ])
}

/// Registers r1 to r5 are free: a call forgets them.
fn in_test_run(op: Op, at: usize, executor: RawFd) -> Option<Vec<Op>> {
    let value = |dst, offset| Op::LoadImm64 {
        dst,
        imm: Imm64::MapValue {
            map: executor as u32,
            offset,
        },
    };
    let mov = |src: XdpAction| set(R0, Operand::Imm(src as i32));
    match op {
        Op::Call {
            helper: helper::KTIME_GET_NS,
        } => Some(vec![
            value(R1, CLOCK),
            Op::LoadImm64Hi,
            Op::Load {
                size: Size::Dw,
                signed: false,
                dst: R0,
                base: R1,
                off: 0,
            },
        ]),
        // As the helper: flags must be 0, or the packet is aborted.
        Op::Call {
            helper: helper::REDIRECT,
        } => Some(vec![
            Op::JumpIf {
                width: Width::W64,
                cond: Cond::Eq,
                dst: R2,
                src: Operand::Imm(0),
                target: at + 3,
            },
            mov(XdpAction::Aborted),
            Op::Jump { target: at + 7 },
            value(R3, REDIRECTED_TO),
            Op::LoadImm64Hi,
            Op::Store {
                size: Size::W,
                base: R3,
                off: 0,
                src: Operand::Reg(R1),
            },
            mov(XdpAction::Redirect),
        ]),
        _ => None,
    }
}

/// Rewrites a program; `fd_of` gives the descriptor of a map by its index in the object.
pub fn rewrite(
    insns: &[Insn],
    fd_of: impl Fn(u32) -> Option<RawFd>,
    world: World,
) -> Result<Vec<Insn>, RewriteError> {
    let ops = decode(insns)?;
    // Where each old slot begins now; one more for the end.
    let mut starts = Vec::with_capacity(ops.len() + 1);
    let mut at = 0;
    for op in &ops {
        starts.push(at);
        at += replacement(*op, at, world).map_or(1, |ops| ops.len());
    }
    starts.push(at);

    let mut code = Vec::with_capacity(at);
    for (pc, op) in ops.into_iter().enumerate() {
        let moved = |target: usize| {
            starts
                .get(target)
                .copied()
                .ok_or(RewriteError::BadTarget { pc, target })
        };
        let fd = |map| {
            fd_of(map)
                .map(|fd| fd as u32)
                .ok_or(RewriteError::NoMap { pc, map })
        };
        let op = match op {
            Op::Call {
                helper: helper @ helper::REDIRECT_MAP,
            } if matches!(world, World::TestRun { .. }) => {
                return Err(RewriteError::RedirectMap { pc, helper });
            }
            Op::Jump { target } => Op::Jump {
                target: moved(target)?,
            },
            Op::CallLocal { target } => Op::CallLocal {
                target: moved(target)?,
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
                target: moved(target)?,
            },
            Op::LoadImm64 {
                dst,
                imm: Imm64::Map(map),
            } => Op::LoadImm64 {
                dst,
                imm: Imm64::Map(fd(map)?),
            },
            Op::LoadImm64 {
                dst,
                imm: Imm64::MapValue { map, offset },
            } => Op::LoadImm64 {
                dst,
                imm: Imm64::MapValue {
                    map: fd(map)?,
                    offset,
                },
            },
            Op::LoadImm64 { dst, imm } => {
                let now = match imm.function(pc) {
                    Some(target) => {
                        let moved = moved(target)?;
                        let error = RewriteError::BadTarget { pc, target };
                        Imm64::of_function(code.len(), moved).ok_or(error)?
                    }
                    None => imm,
                };
                Op::LoadImm64 { dst, imm: now }
            }
            other => other,
        };
        let start = code.len();
        for op in replacement(op, start, world).unwrap_or_else(|| vec![op]) {
            if op != Op::LoadImm64Hi {
                let encoded =
                    encode(&op, code.len()).map_err(|error| RewriteError::Encode { pc, error })?;
                code.extend_from_slice(encoded.as_slice());
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use dash_bpf::Builder;
    use dash_bpf::builder::{R6, R7};

    use super::*;

    const RUN: World = World::TestRun { executor: 9 };

    #[test]
    fn addresses_of_functions_follow_them() {
        let insns = dash_bpf::assemble(
            "r6 = imm64(4, 5, 0) ll
             call 5
             call f
             r0 = 2
             exit
             f: r0 = 0
             exit",
        )
        .unwrap();
        let code = rewrite(&insns, |_| None, RUN).unwrap();
        let ops = decode(&code).unwrap();
        let function = ops.iter().enumerate().find_map(|(pc, op)| match op {
            Op::LoadImm64 { imm, .. } => imm.function(pc),
            _ => None,
        });
        let called = ops.iter().find_map(|op| match op {
            Op::CallLocal { target } => Some(*target),
            _ => None,
        });
        assert_eq!(function, called);
        assert_eq!(called, Some(code.len() - 2));
        assert!(code.len() > insns.len());
    }

    #[test]
    fn jumps_still_lead_where_they_led_when_code_grows_between() {
        let mut b = Builder::new();
        let (top, out) = (b.label(), b.label());
        b.mov(R6, 3);
        b.bind(top);
        b.call(helper::KTIME_GET_NS);
        b.mov(R7, R0);
        b.jump_if(Cond::Eq, R6, 0, out);
        b.alu(AluOp::Sub, R6, 1);
        b.load_map(R1, 0);
        b.jump(top);
        b.bind(out);
        b.mov(R1, 5);
        b.mov(R2, 0);
        b.call(helper::REDIRECT);
        b.exit();
        let code = rewrite(&b.finish().unwrap(), |map| (map == 0).then_some(40), RUN).unwrap();
        let ops = decode(&code).unwrap();
        let top_op = Op::LoadImm64 {
            dst: R1,
            imm: Imm64::MapValue {
                map: 9,
                offset: CLOCK,
            },
        };
        let jumps = ops.iter().filter_map(|op| match op {
            Op::Jump { target } | Op::JumpIf { target, .. } => Some(ops[*target]),
            _ => None,
        });
        let mov = |dst, v| Op::Alu {
            width: Width::W64,
            op: AluOp::Mov,
            dst,
            src: Operand::Imm(v),
        };
        let store_value = Op::LoadImm64 {
            dst: R3,
            imm: Imm64::MapValue {
                map: 9,
                offset: REDIRECTED_TO,
            },
        };
        assert_eq!(
            jumps.collect::<Vec<_>>(),
            [mov(R1, 5), top_op, store_value, Op::Exit]
        );
        assert!(ops.contains(&Op::LoadImm64 {
            dst: R1,
            imm: Imm64::Map(40)
        }));
        assert!(!ops.iter().any(|op| matches!(op, Op::Call { .. })));
    }

    #[test]
    fn a_map_that_is_not_there_is_named() {
        let mut b = Builder::new();
        b.mov(R0, 0);
        b.load_map(R1, 7);
        b.exit();
        let insns = b.finish().unwrap();
        assert_eq!(maps_of(&insns), Ok(vec![7]));
        assert_eq!(
            rewrite(&insns, |_| None, RUN),
            Err(RewriteError::NoMap { pc: 1, map: 7 })
        );
    }

    #[test]
    fn redirect_map_is_refused() {
        let mut b = Builder::new();
        b.call(helper::REDIRECT_MAP);
        b.exit();
        let refused = rewrite(&b.finish().unwrap(), |_| None, RUN);
        assert_eq!(
            refused,
            Err(RewriteError::RedirectMap { pc: 0, helper: 51 })
        );
    }
    #[test]
    fn on_an_interface_only_what_is_passed_changes_its_way() {
        let mut b = Builder::new();
        b.mov(R6, R1);
        b.call(helper::KTIME_GET_NS);
        b.mov(R0, XdpAction::Pass as i32);
        b.exit();
        let insns = b.finish().unwrap();
        let plain = rewrite(&insns, |_| None, World::Live { pass: None }).unwrap();
        assert_eq!(plain, insns);
        let pass = Some((5, 15));
        let ops = decode(&rewrite(&insns, |_| None, World::Live { pass }).unwrap()).unwrap();
        let array = Op::LoadImm64 {
            dst: R2,
            imm: Imm64::Map(5),
        };
        let slot = set(R3, Operand::Imm(15));
        assert!(ops.contains(&array) && ops.contains(&slot), "{ops:?}");
        let exits = ops.iter().filter_map(|op| match op {
            Op::JumpIf { target, .. } => Some(ops[*target]),
            _ => None,
        });
        assert_eq!(exits.collect::<Vec<_>>(), [Op::Exit]);
        assert_eq!(ops.last(), Some(&Op::Exit));
    }
}
