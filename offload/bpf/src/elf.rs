//! Objects as ELF files: what compilers write, libbpf loads and a target can be handed.
//!
//! ELF64 little-endian, machine `EM_BPF`, relocatable. What is read:
//!
//! - **Programs**: global functions in sections named as libbpf names them for XDP (`xdp`, `xdp/...`,
//!   `xdp.frags`, `xdp/devmap`, and, as older ones, whatever starts with `xdp`) or `raw`; where no
//!   section but `.text` has code, its global functions, as bare programs.
//! - **Functions** that programs call or hand to helpers, wherever they are: appended to each program
//!   that reaches them, once.
//! - **Maps**: BTF-defined in `.maps`, with fixed contents of program arrays and of maps of maps; of
//!   the legacy `maps` section; and one array of one value for each of `.data`, `.rodata`, `.bss` and
//!   their like, with its contents.
//! - **Lines and functions** of the source, from `.BTF.ext`.
//! - **CO-RE relocations**, where the types of whoever runs the programs are [given](Options::target);
//!   otherwise layouts are those the files were compiled with.
//!
//! Several files are linked as `bpftool gen object` does: strong over weak, each name defined once,
//! externs resolved, data sections put one after the other.
//!
//! Kinds of maps Linux does not have keep our number: no kernel creates them, [`read`] gives them
//! back. [`write()`] writes what [`read`] reads.

mod btf;
mod co_re;
mod code;
mod data;
mod link;
mod maps;
mod read;
mod source;
mod unit;
mod write;

use thiserror::Error;

pub use btf::BtfError;
pub use read::{Loaded, Options, Skipped, link, load, load_with, read};
pub use write::write;

const XDP: &str = "xdp";
const RAW: &str = "raw";
const TEXT: &str = ".text";
const MAPS: &str = ".maps";
const LEGACY_MAPS: &str = "maps";
const BTF: &str = ".BTF";
const BTF_EXT: &str = ".BTF.ext";
const LICENSE: &str = "license";

/// Most slots of all programs of an object together: 2^20, as many as the kernel looks at in one.
pub const MAX_SLOTS: usize = 1 << 20;

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
    /// A program's section is no section of programs, or not one for its kind.
    #[error("program {name}: section {section:?} is not one for it")]
    Section {
        /// Name of the program.
        name: String,
        /// Its section.
        section: String,
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
    /// Data sections are referred to by their values, other maps only as maps.
    #[error("program {name}, instruction {pc}: this address of a map or value cannot be written")]
    MapValue {
        /// Name of the program.
        name: String,
        /// Slot.
        pc: usize,
    },
    /// Only data sections come with contents: arrays of one value, named as such a section.
    #[error("contents of map {0:?} cannot be written")]
    Contents(String),
    /// A map of maps names a map that is not there, or one that holds maps itself.
    #[error("inner maps of map {0:?} do not fit the object")]
    Inner(String),
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
    /// No section holds a program of a kind we know.
    #[error("no program{}", others(.skipped))]
    NoProgram {
        /// Sections of programs of other kinds.
        skipped: Vec<String>,
    },
    /// A function's symbol does not cover whole instructions of its section.
    #[error("function {0} does not lie in its section")]
    FunctionRange(String),
    /// Two programs or two maps have one name.
    #[error("name {0:?} is used twice")]
    Name(String),
    /// Two files define a name, neither of them weakly.
    #[error("{name:?} is defined by file {first} and file {second}")]
    Duplicate {
        /// The name.
        name: String,
        /// Number of the file that came first, from 0.
        first: usize,
        /// Number of the other.
        second: usize,
    },
    /// Two files define a name, but not as the same thing.
    #[error("{name:?} of file {first} and of file {second} differ: {why}")]
    Conflict {
        /// The name.
        name: String,
        /// Number of the file that came first, from 0.
        first: usize,
        /// Number of the other.
        second: usize,
        /// In what.
        why: &'static str,
    },
    /// No file defines a name that is used.
    #[error("section {section}, offset {offset:#x}: {name:?} is not defined")]
    Undefined {
        /// Section that uses it.
        section: String,
        /// Byte offset in it.
        offset: u64,
        /// The name.
        name: String,
    },
    /// A relocation of a kind or to a place that has no meaning there.
    #[error("section {section}, offset {offset:#x}: reference to {target:?}: {why}")]
    Relocation {
        /// Name of the section.
        section: String,
        /// Byte offset in it.
        offset: u64,
        /// Name of the symbol, or of its section where it has none.
        target: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Something is wrong with a section.
    #[error("section {section}: {why}")]
    Section {
        /// Its name.
        section: String,
        /// What.
        why: &'static str,
    },
    /// Something is wrong at a place in a section.
    #[error("section {section}, offset {offset:#x}: {why}")]
    Place {
        /// Name of the section.
        section: String,
        /// Byte offset in it.
        offset: u64,
        /// What.
        why: &'static str,
    },
    /// Programs with all their functions, or names, are too much for memory.
    #[error("programs or names are too large: {MAX_SLOTS} instruction slots an object")]
    TooLarge,
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
    /// A function is malformed; slots are counted from its start.
    #[error("function {name}: {error}")]
    Malformed {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        error: crate::DecodeError,
    },
    /// One of several files cannot be read.
    #[error("file {file}: {error}")]
    File {
        /// Its number, from 0.
        file: usize,
        /// Why.
        #[source]
        error: Box<ReadError>,
    },
}

fn others(skipped: &[String]) -> String {
    if skipped.is_empty() {
        return String::new();
    }
    format!("; sections for other hooks: {}", skipped.join(", "))
}
