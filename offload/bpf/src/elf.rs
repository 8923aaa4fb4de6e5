//! Objects as ELF files: what compilers write, libbpf loads and a target can be handed.
//!
//! ELF64 little-endian, machine `EM_BPF`. Programs lie one after the other in section `xdp`
//! (`raw` for bare ones), a global function symbol each. Maps are BTF-defined in section `.maps`,
//! as libbpf 1.0 and later want them; program arrays carry their contents as relocations to
//! program symbols. References to maps are `R_BPF_64_64` relocations. Kinds of maps Linux does not
//! have keep our number: no kernel creates them, [`read`] gives them back.
//!
//! [`read`] also takes what clang writes for XDP programs without global variables and without
//! functions outside the program's own section.

mod btf;
mod read;
mod write;

use thiserror::Error;

pub use btf::BtfError;
pub use read::read;
pub use write::write;

const XDP: &str = "xdp";
const RAW: &str = "raw";
const MAPS: &str = ".maps";
const BTF: &str = ".BTF";
const LICENSE: &str = "license";

/// Why an object has no ELF form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// Names become symbols: not empty, no NUL, each once.
    #[error("name {0:?} is empty, holds a NUL or is used twice")]
    Name(String),
    /// A program is malformed.
    #[error("program {name}: {error}")]
    Malformed {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        error: crate::DecodeError,
    },
    /// A program refers to a map that is not there.
    #[error("program {name}, instruction {pc}: no map {map}")]
    NoMap {
        /// Name of the program.
        name: String,
        /// Slot.
        pc: usize,
        /// Index of the map.
        map: u32,
    },
    /// Addresses of map values have no relocation.
    #[error("program {name}, instruction {pc}: the address of a map value cannot be written")]
    MapValue {
        /// Name of the program.
        name: String,
        /// Slot.
        pc: usize,
    },
    /// Contents of a program array name a map or program that is not there, or come twice.
    #[error("contents of program array {0} do not fit the object")]
    TailCalls(u32),
    /// The ELF writer refused.
    #[error("ELF: {0}")]
    Elf(String),
}

/// Why bytes are not an object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Not an ELF file, or a damaged one.
    #[error("ELF: {0}")]
    Elf(String),
    /// An ELF file for something else.
    #[error("not a little-endian ELF64 relocatable for eBPF")]
    NotBpf,
    /// There is no function symbol in a program section.
    #[error("no program")]
    NoProgram,
    /// A function symbol does not cover whole instructions of its section.
    #[error("program {0} does not lie in its section")]
    ProgramRange(String),
    /// Two programs or two maps have one name.
    #[error("name {0:?} is used twice")]
    Name(String),
    /// A relocation this reader does not resolve: to a variable, or a function elsewhere.
    #[error("section {section}, offset {offset:#x}: relocation to {target:?} is not supported")]
    Relocation {
        /// Name of the section.
        section: String,
        /// Byte offset in it.
        offset: u64,
        /// Name of the symbol.
        target: String,
    },
    /// Maps of the legacy `maps` section.
    #[error("legacy map definitions; only BTF-defined maps are read")]
    LegacyMaps,
    /// The type information is damaged.
    #[error("BTF: {0}")]
    Btf(#[from] BtfError),
    /// A map's definition lacks something or holds what no map has.
    #[error("map {name}: {why}")]
    Map {
        /// Its name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A program is malformed.
    #[error("program {name}: {error}")]
    Malformed {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        error: crate::DecodeError,
    },
}
