//! Why an object could not be compiled, and where.

use dash_bpf::DecodeError;
use thiserror::Error;

/// One instruction of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Name of the program.
    pub program: String,
    /// Instruction slot.
    pub pc: usize,
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "program `{}`, instruction {}", self.program, self.pc)
    }
}

/// Why an object could not be compiled.
#[derive(Debug, Error)]
pub enum NativeError {
    /// The object has no program 0.
    #[error("the object has no programs")]
    NoPrograms,
    /// A program is not well-formed bytecode.
    #[error("program `{program}`: {source}")]
    Decode {
        /// Its name.
        program: String,
        /// The broken rule.
        source: DecodeError,
    },
    /// An instruction cannot be compiled.
    #[error("{site}: {reason}")]
    At {
        /// Where.
        site: Site,
        /// Why.
        reason: Reason,
    },
    /// Tail calls lead back to a program that is already running.
    #[error("tail calls form a cycle through program `{program}`")]
    TailCallCycle {
        /// A program on the cycle.
        program: String,
    },
    /// A chain of tail calls is longer than Linux's limit (`MAX_TAIL_CALL_CNT`).
    #[error("a chain of {length} tail calls exceeds the limit of {limit}")]
    TailCallDepth {
        /// Tail calls in the longest chain.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// Expanding local functions in place made the object too large.
    #[error("more than {limit} instructions after expanding local functions")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The code generator cannot make code for this machine.
    #[error("no code generator for {isa}: {why}")]
    Target {
        /// Name of the instruction set.
        isa: &'static str,
        /// What it said.
        why: String,
    },
    /// The code generator failed: a bug here or there, not in the program.
    #[error("code generation failed: {0}")]
    Codegen(String),
    /// Code would have to be relocated when loaded, which its users do not do.
    #[error("code needs {0} relocations")]
    Relocations(usize),
}

/// Why one instruction cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// The instruction is part of RFC 9669 but not of what this compiler runs.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The helper's number is outside the helper table.
    #[error("helper {0} does not exist")]
    UnknownHelper(u32),
    /// A map index is outside the object.
    #[error("the object has no map {0}")]
    UnknownMap(u32),
    /// A store to the context, or a load that matches no field of `struct xdp_md`.
    #[error("context access at offset {offset} of {size} bytes")]
    CtxAccess {
        /// Byte offset into `struct xdp_md`.
        offset: i64,
        /// Bytes accessed.
        size: usize,
    },
    /// A pointer may be the context or something else, so its loads cannot be translated.
    #[error("an access through a pointer that may or may not be the context")]
    CtxProvenance,
    /// The map whose look-ups are to be remembered is no hash map with keys of 8 bytes.
    #[error("map {0} has no look-ups that could be remembered")]
    MemoMap(u32),
    /// A map's address was used as a pointer to memory.
    #[error("access to the memory of map object {0}")]
    MapDereference(u32),
    /// An access, or memory handed to a helper, reaches outside the 512-byte stack frame.
    #[error("{size} bytes at r10{offset:+} are outside the stack frame")]
    StackBounds {
        /// Byte offset from r10.
        offset: i64,
        /// Bytes.
        size: usize,
    },
    /// A helper is to call a function, and which one is not known when compiling.
    #[error(
        "the function that this helper calls is not the same on all ways, or comes from memory"
    )]
    CallBack,
    /// Local functions call each other in a circle.
    #[error("recursive call")]
    Recursion,
    /// Local calls nest deeper than Linux allows.
    #[error("local calls nest deeper than {0} frames")]
    CallDepth(usize),
    /// The program array or the slot of a tail call is not a constant, or the array's contents
    /// are not fixed in the object.
    #[error("tail call whose target is not known when compiling")]
    TailCallTarget,
    /// The first argument of a tail call is not the context.
    #[error("tail call without the context in r1")]
    TailCallCtx,
    /// A program array holds a program the object does not have.
    #[error("tail call to program {0}, which the object does not have")]
    TailCallProgram(u32),
    /// A tail call inside a local function, whose caller would have to be abandoned.
    #[error("tail call inside a local function")]
    TailCallNested,
    /// Control flow leaves the program; the decoder refuses such programs.
    #[error("control flow leaves the program")]
    FlowOutside,
}
