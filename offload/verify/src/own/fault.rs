//! What our verifier refuses, and what it would need.

use dash_bpf::MapKind;
use dash_bpf::interp::MAX_FRAMES;
use thiserror::Error;

/// Why an instruction is refused, with what would be needed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the message says it")]
pub enum Fault {
    #[error(
        "r{0} may hold nothing that can be read: on some path it is not written, or lost in a call"
    )]
    Uninitialised(usize),
    #[error(
        "r{0} may be a pointer that a call made invalid, or of another kind on another path: it can be copied \
         and no more"
    )]
    Invalid(usize),
    #[error("r{reg} is {is}: memory is reached through pointers only")]
    NotAPointer { reg: usize, is: String },
    #[error("r{0} may be null: compare it with 0 first")]
    MaybeNull(usize),
    #[error("here r{0} is the context on one path and other memory on another")]
    MixedPointer(usize),
    #[error("context access is not a whole 4-byte field, loaded unsigned, at a constant offset")]
    ContextField,
    #[error("the context is read-only")]
    ContextWrite,
    #[error("r{reg}: access may start {before} bytes before the packet's part it points into")]
    PacketStart { reg: usize, before: i64 },
    #[error(
        "r{reg}: access ends {to} bytes after the pointer's base, of which {proven} are proven to be \
         in the packet: compare with data_end first"
    )]
    PacketEnd { reg: usize, to: i64, proven: i64 },
    #[error("r{reg}: access to bytes [{from}, {to}) of a map value of {size}: bound the offset")]
    ElementBounds {
        reg: usize,
        from: i64,
        to: i64,
        size: u32,
    },
    #[error("r{reg}: access to bytes [{from}, {to}) of {size}: bound the offset")]
    MemoryBounds {
        reg: usize,
        from: i64,
        to: i64,
        size: u32,
    },
    #[error("a key that a helper shows is not for writing")]
    ReadOnlyMemory,
    #[error(
        "record#{record} of a ring buffer is not given back on this path: submit or discard it first"
    )]
    NotGivenBack { record: u32 },
    #[error(
        "a record of a ring buffer is out and nothing points to it any more on some path: submit or discard \
         it before"
    )]
    Lost,
    #[error("r0 is {is} where a function returns to the helper that called it, not 0 or 1")]
    CallbackReturn { is: String },
    #[error("bytes [{from}, {to}) are outside the stack frame [-512, 0)")]
    OutsideFrame { from: i64, to: i64 },
    #[error("stack bytes [{from}, {to}) may be uninitialised: write them first")]
    UninitialisedStack { from: i64, to: i64 },
    #[error("stack bytes [{from}, {to}) hold a pointer, which is no number and has no parts")]
    PartOfPointer { from: i64, to: i64 },
    #[error("a pointer is stored whole, at a constant offset that is a multiple of 8")]
    Spill,
    #[error("an address would leave the program: pointers are stored on the stack only")]
    Leak,
    #[error("atomic access is not on the stack or in a map value")]
    AtomicRegion,
    #[error("atomic access is not provably aligned to {0} bytes")]
    Misaligned(usize),
    #[error("programs may not write this map")]
    ReadOnlyMap,
    #[error("the object has no map {0}")]
    NoMap(u32),
    #[error("the address of a value can be taken of arrays of one element only, inside it")]
    ValueAddress,
    #[error("64-bit immediate of an unsupported kind")]
    Immediate,
    #[error("r{reg} is {is}: of pointers only 64-bit sums and differences with numbers are taken")]
    Arithmetic { reg: usize, is: String },
    #[error("r{0} may move more than 2^29 bytes from where it started")]
    Far(usize),
    #[error("{a} and {b} cannot be compared this way: their addresses must not be known")]
    Comparison { a: String, b: String },
    #[error("immediate shift of {0} is not below the width")]
    Shift(i32),
    #[error("legacy packet access is not available to XDP programs")]
    PacketAccess,
    #[error("call by BTF id is not supported")]
    BtfCall,
    #[error("callx of a register that is not one constant")]
    VariableCall,
    #[error("no helper {number}{}", named(*.name))]
    UnknownHelper {
        number: u64,
        name: Option<&'static str>,
    },
    #[error("helper {helper}: argument {argument} is {is}, not {expected}")]
    Argument {
        helper: &'static str,
        argument: usize,
        expected: &'static str,
        is: String,
    },
    #[error("helper {helper}: map of kind {kind:?} is not allowed")]
    MapKind { helper: &'static str, kind: MapKind },
    #[error("local calls nest deeper than {MAX_FRAMES} frames, or without end")]
    Depth,
    #[error("{bytes} bytes of stack in a chain of calls are more than {limit}")]
    StackTotal { bytes: i64, limit: i64 },
    #[error("tail call from inside a local call")]
    TailCallInCallee,
    #[error("r0 is {is} at exit, not a number")]
    Return { is: String },
    #[error(
        "the function that starts here shares instructions with another: jumps stay inside one"
    )]
    Shared,
    #[error("instruction is unreachable")]
    Unreachable,
    #[error("this loop is not proven to end: its head is reached again with nothing changed")]
    Endless,
    #[error("too complex: more than {limit} {what}")]
    TooComplex { what: &'static str, limit: u64 },
}

fn named(helper: Option<&str>) -> String {
    helper.map_or_else(String::new, |name| format!(" ({name}) for programs here"))
}

/// A refused instruction and what was known before it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fault}{}", tail(.known))]
pub struct Objection {
    /// Slot of the instruction.
    pub pc: usize,
    /// What is wrong.
    #[source]
    pub fault: Fault,
    /// Registers and stack on the path, or on the paths, that led there.
    pub known: String,
}

fn tail(known: &str) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!("; known there:{known}")
    }
}
