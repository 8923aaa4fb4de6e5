//! What comes out of the compiler, and the choices that go in.

/// Instruction set to compile for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isa {
    /// The machine the compiler runs on, using the extensions it has: fastest, not portable.
    #[default]
    Host,
    /// Any x86-64 (System V calling convention).
    X86_64,
    /// Any 64-bit Arm (AAPCS64 calling convention).
    Aarch64,
    /// RV64GC, what Linux distributions are built for (LP64D calling convention).
    Riscv64,
}

/// Instruction set machine code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// x86-64.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
}

/// Choices of one compilation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// Instruction set.
    pub isa: Isa,
    /// Keep stack slots whose address nobody else sees in registers. Off, every stack access goes
    /// to memory: the plain twin that tests compare with.
    pub promote_stack: bool,
    /// Which programs the function runs.
    pub part: Part,
    /// A map, of an object of XDP programs, in which the caller looks a key up ahead
    /// ([`dash_wire::abi::RunCtx::found_value`]): a look-up that nothing written precedes takes that result
    /// when its key is at the same address. Only with [`Part::Path`].
    pub found: Option<u32>,
    /// A hash map with 8-byte keys whose rows stay what and where they are between two runs
    /// until the caller clears [`dash_wire::abi::RunCtx::memo`]: look-ups are answered from there if they can.
    pub memo: Option<u32>,
    /// Keep indexes into array maps inside the array also where the processor only guesses that they
    /// are (Spectre variant 1): for programs of others. A conditional move a look-up.
    pub mask_indexes: bool,
    /// The object's hash maps are those of [`dash_wire::abi::HashLayout`]: look-ups in plain ones with keys of up to
    /// 64 bytes are inlined.
    pub hash_maps: bool,
    /// Count the instructions of the program that run, and end a run that took more than
    /// [`dash_wire::abi::RunCtx::fuel`] says, as `XDP_ABORTED`. That is looked at where a run could go on for
    /// long: at jumps backwards, local calls, tail calls, and when a function returns that a helper called. A second line
    /// behind the proof that the program ends; for XDP programs alone.
    pub fuel: bool,
}

/// Part of an object's chain of tail calls. A chain is cut so that a worker can run the first part
/// for a whole burst, fetch what the second will need, and then run that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Part {
    /// From program 0 to the end.
    #[default]
    Whole,
    /// From program 0; a tail call to this program returns [`dash_wire::abi::CONTINUE`] instead.
    Before(u32),
    /// These two programs, the first of them on entry, with the context that the part before left; a
    /// tail call to another program returns [`dash_wire::abi::CONTINUE`] and its number.
    ///
    /// What most packets run, as a function of its own: no register holds what others need.
    Path(u32, u32),
    /// This program alone. Where tail calls lead is known when they are made: the helper of that number gets
    /// them all, and where it returns 0 the function returns too, for the caller to go on with the program
    /// the helper named ([`dash_wire::abi::RunCtx::resume`]).
    Alone(u32),
    /// What that path leaves: from the program whose number is in
    /// [`dash_wire::abi::RunCtx::resume`] to the end. `XDP_ABORTED` for a number that the path never returns.
    Resume(u32, u32),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            isa: Isa::Host,
            promote_stack: true,
            part: Part::Whole,
            found: None,
            memo: None,
            mask_indexes: false,
            hash_maps: false,
            fuel: false,
        }
    }
}

impl Options {
    /// Defaults for an instruction set.
    pub fn for_isa(isa: Isa) -> Self {
        Self {
            isa,
            ..Self::default()
        }
    }
}

/// Position-independent machine code of one object: one function, no relocations.
///
/// For objects of XDP programs the function is a [`dash_wire::abi::EntryFn`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeCode {
    /// Machine code with its constants.
    pub code: Vec<u8>,
    /// Byte offset of the function in `code`.
    pub entry_offset: usize,
    /// Alignment in bytes that `code` needs in memory.
    pub align: usize,
    /// Instruction set of `code`.
    pub machine: Machine,
}
