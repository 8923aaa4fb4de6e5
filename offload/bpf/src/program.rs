//! Programs and the objects that hold them with their maps.

use crate::debug::DebugInfo;
use crate::insn::Insn;
use crate::map::MapDef;

/// Hook a program is for: decides its context and its helpers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProgramKind {
    /// `struct xdp_md` context, `XDP_*` return codes.
    #[default]
    Xdp,
    /// r1 = memory, r2 = its length: bare programs (conformance vectors).
    Raw,
}

/// One program: instructions in wire form plus a name. Map references are `lddw` with `src` = 1
/// (the map) or 2 (its value) and the index into [`Object::maps`] as immediate. Functions it calls
/// come after its own instructions, each once.
///
/// The default is a program of no instructions, for `..Program::default()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Program {
    /// C identifier, at most 15 characters where a kernel shall load it.
    pub name: String,
    /// Hook.
    pub kind: ProgramKind,
    /// Section it comes from, where that says more than the kind: `xdp/devmap`, `xdp.frags`.
    pub section: Option<String>,
    /// Instruction slots.
    pub insns: Vec<Insn>,
    /// Where instructions come from; empty when nobody said.
    pub debug: DebugInfo,
}

impl Program {
    /// Name of the section it belongs into.
    pub fn section_name(&self) -> &str {
        match (&self.section, self.kind) {
            (Some(section), _) => section,
            (None, ProgramKind::Xdp) => "xdp",
            (None, ProgramKind::Raw) => "raw",
        }
    }
}

/// Programs that share maps. Program 0 is the entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Object {
    /// Maps, referred to by position.
    pub maps: Vec<MapDef>,
    /// Programs.
    pub programs: Vec<Program>,
    /// Fixed contents of program arrays: for each, the map's index and the program at each slot.
    pub tail_calls: Vec<TailCalls>,
}

/// Fixed contents of one program array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TailCalls {
    /// Index of a [`MapKind::ProgArray`](crate::map::MapKind) map.
    pub map: u32,
    /// Slot `i` holds program `programs[i]`, if any.
    pub programs: Vec<Option<u32>>,
}
