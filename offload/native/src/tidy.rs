//! Two choices that the code generator leaves to who makes its IR: which operand a result takes the register of, and
//! where arithmetic of 64 bits is done again in fewer.
//!
//! x86-64's instructions overwrite their first operand, and the code generator takes the first as it is written. Where
//! that one is needed later and the second is not, a copy is saved by writing them the other way round.
//!
//! The low half of a sum is the sum of low halves, and the optimiser prefers that, as if nothing else needed the
//! sum. Where something does, as the folds of a checksum do, all that leads to it is computed twice. There the halves
//! are taken of a pair ([`opaque`]), which it does not look into and which costs nothing. Masks of one or two bytes are
//! taken so, too: they become extensions, which need no copy.
//!
//! Both are guesses about registers; what is computed stays the same.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{
    Block, DataFlowGraph, Function, Inst, InstBuilder, InstructionData, Opcode, Type, Value,
    ValueDef, types,
};

/// Rewrites a function whose blocks are complete.
pub(crate) fn tidy(func: &mut Function) {
    func.dfg.resolve_all_aliases();
    let uses = uses(func);
    // First, as the other adds instructions.
    order(func, &uses);
    widths(func, &uses);
}

/// Who reads a value, extensions and reductions of it included.
#[derive(Clone, Copy, Default)]
struct Uses {
    /// The last one, counted along the layout from 1; 0 for none.
    last: u32,
    /// Where the first one is.
    block: Option<Block>,
    /// There are others in other blocks.
    scattered: bool,
    /// Some need more than the low half.
    wide: bool,
    /// Some only compare.
    tested: bool,
}

type AllUses = SecondaryMap<Value, Uses>;

/// The constant that a value is.
fn constant(dfg: &DataFlowGraph, value: Value) -> Option<u64> {
    match dfg.insts[dfg.value_def(value).inst()?] {
        InstructionData::UnaryImm {
            opcode: Opcode::Iconst,
            imm,
        } => Some(imm.bits() as u64),
        _ => None,
    }
}

/// What a value is made of by nothing but extensions and reductions, which are registers taken as they are or cost as
/// much as a copy.
fn root(dfg: &DataFlowGraph, mut value: Value) -> Value {
    while let Some(inst) = dfg.value_def(value).inst() {
        match dfg.insts[inst].opcode() {
            Opcode::Ireduce | Opcode::Uextend | Opcode::Iconcat => value = dfg.inst_args(inst)[0],
            _ => break,
        }
    }
    value
}

/// How many low bits of its first operand an instruction looks at, of 64.
fn looks_at(dfg: &DataFlowGraph, inst: Inst) -> u64 {
    let args = dfg.inst_args(inst);
    match (dfg.insts[inst].opcode(), args) {
        (Opcode::Ishl, &[_, by]) => constant(dfg, by).map_or(64, |by| 64 - by % 64),
        (Opcode::Band, &[_, mask]) => {
            constant(dfg, mask).map_or(64, |mask| 64 - u64::from(mask.leading_zeros()))
        }
        _ => 64,
    }
}

fn uses(func: &Function) -> AllUses {
    let (dfg, layout) = (&func.dfg, &func.layout);
    let mut uses = AllUses::new();
    uses.resize(dfg.num_values());
    let mut at = 0;
    for block in layout.blocks() {
        for inst in layout.block_insts(block) {
            at += 1;
            let opcode = dfg.insts[inst].opcode();
            if matches!(opcode, Opcode::Ireduce | Opcode::Uextend | Opcode::Iconcat) {
                continue;
            }
            for (n, value) in dfg.inst_values(inst).enumerate() {
                let whole = dfg.value_type(value) == types::I64;
                let narrow = !whole || n == 0 && looks_at(dfg, inst) <= 32;
                let uses = &mut uses[root(dfg, value)];
                uses.last = at;
                uses.scattered |= uses.block.is_some_and(|known| known != block);
                uses.block.get_or_insert(block);
                uses.wide |= !narrow;
                uses.tested |= matches!(opcode, Opcode::Brif | Opcode::Icmp);
            }
        }
    }
    uses
}

/// Arithmetic whose low bits depend on its operands' low bits alone: what the optimiser narrows.
fn narrows(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Iadd
            | Opcode::Isub
            | Opcode::Imul
            | Opcode::Band
            | Opcode::Bor
            | Opcode::Bxor
            | Opcode::Bnot
            | Opcode::Ineg
    )
}

fn defined_by(dfg: &DataFlowGraph, value: Value) -> Option<Opcode> {
    let inst = dfg.value_def(value).inst()?;
    Some(dfg.insts[inst].opcode())
}

/// A value's low bits, and no way for the optimiser to compute them again in fewer.
fn opaque(pos: &mut FuncCursor<'_>, ty: Type, value: Value) -> Value {
    let pair = pos.ins().iconcat(value, value);
    pos.ins().ireduce(ty, pair)
}

/// What an instruction that takes low bits of a value becomes.
enum Low {
    /// A reduction of something else.
    Reduced(Value),
    /// An extension of so much of a value.
    Extended(Type, Value),
}

fn low(dfg: &DataFlowGraph, uses: &AllUses, inst: Inst) -> Option<Low> {
    let shared = |value: Value| {
        let arithmetic = defined_by(dfg, value).is_some_and(narrows);
        arithmetic && uses[value].wide && dfg.value_type(value) == types::I64
    };
    match (dfg.insts[inst].opcode(), dfg.inst_args(inst)) {
        (Opcode::Ireduce, &[value]) => shared(value).then_some(Low::Reduced(value)),
        (Opcode::Ushr, &[shifted, by]) if constant(dfg, by)? == 32 => {
            let up = dfg.value_def(shifted).inst()?;
            match (dfg.insts[up].opcode(), dfg.inst_args(up)) {
                (Opcode::Ishl, &[value, by]) if constant(dfg, by)? == 32 => {
                    shared(value).then_some(Low::Extended(types::I32, value))
                }
                _ => None,
            }
        }
        (Opcode::Band, &[value, mask]) => {
            let ty = match constant(dfg, mask)? {
                0xff => types::I8,
                0xffff => types::I16,
                _ => return None,
            };
            if uses[dfg.first_result(inst)].tested {
                return None;
            }
            masked(dfg, value).map(|value| Low::Extended(ty, value))
        }
        _ => None,
    }
}

/// The register that a mask of low bits can be taken of.
fn masked(dfg: &DataFlowGraph, value: Value) -> Option<Value> {
    let value = match (defined_by(dfg, value)?, dfg.value_def(value).inst()) {
        (Opcode::Ireduce, Some(inst)) => dfg.inst_args(inst)[0],
        _ => value,
    };
    if dfg.value_type(value) != types::I64 {
        return None;
    }
    let inst = dfg.value_def(value).inst()?;
    let (opcode, source) = match (dfg.insts[inst].opcode(), dfg.inst_args(inst)) {
        (Opcode::Uextend, &[narrow]) => {
            let inst = dfg.value_def(narrow).inst()?;
            (dfg.insts[inst].opcode(), inst)
        }
        (opcode, _) => (opcode, inst),
    };
    // An inversion and a mask are one instruction, and what is extended anew is no register yet.
    let inverts = || {
        let args = dfg.inst_args(source);
        let ones = |value: &Value| matches!(constant(dfg, *value), Some(0xffff_ffff | u64::MAX));
        args.last().is_some_and(ones)
    };
    let plain = match opcode {
        Opcode::Bxor => !inverts(),
        Opcode::Ishl | Opcode::Ushr => true,
        opcode => narrows(opcode) && opcode != Opcode::Bnot,
    };
    plain.then_some(value)
}

fn widths(func: &mut Function, uses: &AllUses) {
    let mut pos = FuncCursor::new(func);
    while pos.next_block().is_some() {
        while let Some(inst) = pos.next_inst() {
            let Some(low) = low(&pos.func.dfg, uses, inst) else {
                continue;
            };
            match low {
                Low::Reduced(value) => {
                    let pair = pos.ins().iconcat(value, value);
                    pos.func.dfg.inst_args_mut(inst)[0] = pair;
                }
                Low::Extended(from, value) => {
                    let low = opaque(&mut pos, from, value);
                    pos.func.dfg.insts[inst] = InstructionData::Unary {
                        opcode: Opcode::Uextend,
                        arg: low,
                    };
                }
            }
        }
    }
}

/// Whether control ever goes back along the layout.
fn loops(func: &Function) -> bool {
    let (dfg, layout) = (&func.dfg, &func.layout);
    let mut seen = SecondaryMap::<Block, bool>::new();
    layout.blocks().any(|block| {
        seen[block] = true;
        let last = layout.last_inst(block).map(|inst| &dfg.insts[inst]);
        last.is_some_and(|branch| {
            let to = branch.branch_destination(&dfg.jump_tables, &dfg.exception_tables);
            to.iter().any(|to| seen[to.block(&dfg.value_lists)])
        })
    })
}

fn order(func: &mut Function, uses: &AllUses) {
    let loops = loops(func);
    let Function { stencil, .. } = func;
    let (dfg, layout) = (&mut stencil.dfg, &stencil.layout);
    // Whether nobody needs a value after its use at a place.
    let dies = |dfg: &DataFlowGraph, value: Value, at: u32, block: Block| {
        let uses = &uses[value];
        let here = !loops
            || match dfg.value_def(value) {
                ValueDef::Result(inst, _) => layout.inst_block(inst) == Some(block),
                ValueDef::Param(defined, _) => defined == block,
                ValueDef::Union(..) => false,
            };
        uses.last == at && !uses.scattered && here
    };
    let mut at = 0;
    for block in layout.blocks() {
        for inst in layout.block_insts(block) {
            at += 1;
            let commutes = matches!(
                dfg.insts[inst].opcode(),
                Opcode::Iadd | Opcode::Band | Opcode::Bor | Opcode::Bxor | Opcode::Imul
            );
            let &[first, second] = dfg.inst_args(inst) else {
                continue;
            };
            if !commutes || constant(dfg, second).is_some() {
                continue;
            }
            let [first, second] = [first, second].map(|value| root(dfg, value));
            if first != second && !dies(dfg, first, at, block) && dies(dfg, second, at, block) {
                dfg.inst_args_mut(inst).swap(0, 1);
            }
        }
    }
}
