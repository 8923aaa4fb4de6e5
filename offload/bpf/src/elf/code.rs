//! Functions of files put together to programs.
//!
//! A program is its entry function, then each function that it reaches by calls or by address, once.
//! What nothing reaches is left out.

use std::collections::HashMap;

use object::elf::{R_BPF_64_32, R_BPF_64_64};

use super::co_re::Core;
use super::link::{Linked, Place};
use super::maps::Maps;
use super::source::{Part, Sources};
use super::unit::{Content, Relocation};
use super::{MAX_SLOTS, ReadError};
use crate::debug::{DebugInfo, Function as Named};
use crate::decode::{LDDW, decode};
use crate::insn::Insn;

/// Opcode of calls.
const CALL: u8 = 0x85;
/// Source fields: of a call, a function of the program; of `lddw`, a map, its value, a function.
const LOCAL: u8 = 1;
const MAP: u8 = 1;
const MAP_VALUE: u8 = 2;
const FUNCTION: u8 = 4;

/// A symbol that covers code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    pub(super) place: Place,
    len: u64,
    /// Where the loader looks for programs: visible to it, and not overridden.
    pub(super) visible: bool,
}

/// A program's code, its functions behind it.
#[derive(Debug, Default)]
pub(super) struct Code {
    pub(super) insns: Vec<Insn>,
    pub(super) debug: DebugInfo,
}

/// What makes programs of files.
pub(super) struct Coder<'l, 'a> {
    linked: &'l Linked<'a>,
    maps: &'l Maps,
    sources: Vec<Sources>,
    /// In order of places.
    pub(super) functions: Vec<Function<'a>>,
    by_place: HashMap<Place, usize>,
    /// Slots that programs may still take.
    left: usize,
}

/// An instruction that names a function of another symbol.
struct Reference {
    slot: usize,
    to: Place,
}

impl<'l, 'a> Coder<'l, 'a> {
    pub(super) fn new(
        linked: &'l Linked<'a>,
        maps: &'l Maps,
        target: Option<&Core<'_>>,
    ) -> Result<Self, ReadError> {
        let mut functions = Vec::new();
        let mut sources = Vec::new();
        for (file, unit) in linked.units.iter().enumerate() {
            sources.push(Sources::new(unit, target).map_err(|e| linked.within(file, e))?);
            for (index, symbol) in unit.symbols.iter().enumerate() {
                let Some(section) = symbol.section.filter(|_| symbol.function) else {
                    continue;
                };
                if unit.sections[section].content != Content::Code {
                    continue;
                }
                let local = symbol.binding == super::unit::Binding::Local;
                functions.push(Function {
                    name: symbol.name,
                    place: Place {
                        unit: file,
                        section,
                        offset: symbol.value,
                    },
                    len: symbol.size,
                    visible: !local && !symbol.hidden && linked.wins(file, index),
                });
            }
        }
        functions.sort_by_key(|f| f.place);
        let mut by_place = HashMap::new();
        for (index, function) in functions.iter().enumerate() {
            by_place.entry(function.place).or_insert(index);
        }
        Ok(Self {
            linked,
            maps,
            sources,
            functions,
            by_place,
            left: MAX_SLOTS,
        })
    }

    /// The program that starts with a function.
    pub(super) fn program(&mut self, entry: Function<'a>) -> Result<Code, ReadError> {
        let mut code = Code::default();
        let (mut names, mut lines) = (Vec::new(), Vec::new());
        let mut slots: HashMap<Place, usize> = HashMap::new();
        let mut references = Vec::new();
        let mut todo = vec![entry];
        while let Some(function) = todo.pop() {
            if slots.contains_key(&function.place) {
                continue;
            }
            let start = code.insns.len();
            slots.insert(function.place, start);
            let from = references.len();
            self.append(&function, &mut code.insns, &mut references)?;
            // Depth first, in order of calls, as libbpf lays functions out.
            for reference in references[from..].iter().rev() {
                todo.extend(self.by_place.get(&reference.to).map(|i| self.functions[*i]));
            }
            let part = Part {
                section: self.linked.section(function.place).name,
                from: function.place.offset,
                to: function.place.offset.saturating_add(function.len),
                slot: start as u32,
            };
            let source = &self.sources[function.place.unit];
            names.push(Named {
                slot: start as u32,
                name: function.name.into(),
            });
            names.extend(source.functions(part));
            lines.extend(source.lines(part));
        }
        for Reference { slot, to } in references {
            if let (Some(target), Some(insn)) = (slots.get(&to), code.insns.get_mut(slot)) {
                // Both are below MAX_SLOTS.
                insn.imm = (*target as i64 - slot as i64 - 1) as i32;
            }
        }
        // A lone function is named as its program is.
        if names.len() > 1 || !lines.is_empty() {
            code.debug = DebugInfo::new(names, lines);
        }
        Ok(code)
    }

    /// Puts a function behind what is there, and says what it refers to.
    fn append(
        &mut self,
        function: &Function<'_>,
        insns: &mut Vec<Insn>,
        references: &mut Vec<Reference>,
    ) -> Result<(), ReadError> {
        let Place {
            unit,
            section,
            offset,
        } = function.place;
        let name = || function.name.to_owned();
        let within = |error| self.linked.within(unit, error);
        let range = || {
            let from = usize::try_from(offset).ok()?;
            let to = from.checked_add(usize::try_from(function.len).ok()?)?;
            self.linked.section(function.place).data.get(from..to)
        };
        let (slots, rest) = range().unwrap_or_default().as_chunks::<8>();
        if slots.is_empty() || !rest.is_empty() || offset % 8 != 0 {
            return Err(within(ReadError::FunctionRange(name())));
        }
        let left = self.left.checked_sub(slots.len());
        self.left = left.ok_or(ReadError::TooLarge)?;

        let mut own: Vec<Insn> = slots.iter().map(|slot| Insn::from_bytes(*slot)).collect();
        let end = offset + function.len;
        let mut relocations = self.linked.units[unit]
            .relocations(section, offset, end)
            .iter()
            .peekable();
        let part = Part {
            section: self.linked.section(function.place).name,
            from: offset,
            to: end,
            slot: 0,
        };
        for (slot, fix) in self.sources[unit].fixes(part) {
            let slots = own.get_mut(slot as usize..).unwrap_or_default();
            fix.apply(slots).map_err(|why| {
                within(ReadError::Place {
                    section: part.section.to_owned(),
                    offset: offset + u64::from(slot) * 8,
                    why,
                })
            })?;
        }
        let mut pc = 0;
        while let Some(insn) = own.get(pc).copied() {
            let at = offset + pc as u64 * 8;
            let relocation = relocations.next_if(|r| r.offset == at);
            let next = pc + if insn.code == LDDW { 2 } else { 1 };
            // Whatever lies between instructions, or comes twice, belongs to nothing.
            if let Some(stray) = relocations
                .peek()
                .filter(|r| r.offset < offset + next as u64 * 8)
            {
                let why = "nothing there refers to anything";
                return Err(self.linked.bad_relocation(unit, section, stray, why));
            }
            let to = match (insn.code, relocation) {
                (LDDW, Some(relocation)) => {
                    self.address(function.place, relocation, &mut own[pc..])?
                }
                (CALL, Some(relocation)) => Some(self.callee(function.place, relocation, &insn)?),
                (_, Some(relocation)) => {
                    let why = "nothing there refers to anything";
                    return Err(self.linked.bad_relocation(unit, section, relocation, why));
                }
                (LDDW, None) if matches!(insn.src(), MAP | MAP_VALUE) => {
                    return Err(within(ReadError::Place {
                        section: self.linked.section(function.place).name.to_owned(),
                        offset: at,
                        why: "a map's address without a relocation",
                    }));
                }
                (LDDW, None) if insn.src() == FUNCTION => {
                    let target = pc as i64 + 1 + i64::from(insn.imm);
                    if target < 0 || target >= own.len() as i64 {
                        return Err(within(ReadError::Place {
                            section: self.linked.section(function.place).name.to_owned(),
                            offset: at,
                            why: "a function's address without a relocation",
                        }));
                    }
                    None
                }
                (CALL, None) if insn.src() == LOCAL => {
                    let target = pc as i64 + 1 + i64::from(insn.imm);
                    let inside = target >= 0 && target < own.len() as i64;
                    let to = i64::try_from(offset)
                        .ok()
                        .and_then(|o| u64::try_from(o + target * 8).ok())
                        .map(|offset| Place {
                            offset,
                            ..function.place
                        });
                    match to.filter(|_| !inside) {
                        Some(to) if self.by_place.contains_key(&to) => Some(to),
                        // `decode` says what is wrong with one that leaves its function otherwise.
                        _ => None,
                    }
                }
                _ => None,
            };
            if let Some(to) = to {
                // Until it is known how far away that is: the function itself, which is in reach.
                own[pc].imm = -(pc as i32) - 1;
                references.push(Reference {
                    slot: insns.len() + pc,
                    to,
                });
            }
            pc = next;
        }
        // On its own, so that no jump can leave it, nor control run into the next one.
        decode(&own).map_err(|error| {
            within(ReadError::Malformed {
                name: name(),
                error,
            })
        })?;
        insns.extend_from_slice(&own);
        Ok(())
    }

    /// Resolves an address: of a map, of a variable, or, left to the caller, of a function.
    fn address(
        &self,
        of: Place,
        relocation: &Relocation,
        slots: &mut [Insn],
    ) -> Result<Option<Place>, ReadError> {
        let bad = |why| {
            self.linked
                .bad_relocation(of.unit, of.section, relocation, why)
        };
        let [first, second, ..] = slots else {
            return Err(bad("the instruction is cut off"));
        };
        if relocation.kind != R_BPF_64_64 {
            return Err(bad("an address needs a relocation of type R_BPF_64_64"));
        }
        let symbol = self.linked.target(of.unit, of.section, relocation)?;
        let offset = symbol.offset.checked_add_signed(i64::from(first.imm));
        let place = Place {
            offset: offset.ok_or_else(|| bad("the address is outside its section"))?,
            ..symbol
        };
        let mut set = |src: u8, imm: u32, next: u32| {
            first.regs = first.dst() | src << 4;
            first.imm = imm as i32;
            second.imm = next as i32;
        };
        let content = self.linked.section(place).content;
        match content {
            Content::Maps | Content::LegacyMaps => {
                let map = self.maps.map(place).ok_or_else(|| bad("not a map"))?;
                set(MAP, map, 0);
                Ok(None)
            }
            Content::Data | Content::Rodata | Content::Bss => {
                let value = self.maps.value(place);
                let why = "the address is outside its section";
                let (map, offset) = value.ok_or_else(|| bad(why))?;
                set(MAP_VALUE, map, offset);
                Ok(None)
            }
            Content::Code => {
                if !self.by_place.contains_key(&place) {
                    return Err(bad("not the start of a function"));
                }
                set(FUNCTION, 0, 0);
                Ok(Some(place))
            }
            Content::License | Content::Ignored | Content::Other => {
                Err(bad("its section is none of programs, maps or data"))
            }
        }
    }

    /// Where a call goes.
    fn callee(&self, of: Place, relocation: &Relocation, insn: &Insn) -> Result<Place, ReadError> {
        let bad = |why| {
            self.linked
                .bad_relocation(of.unit, of.section, relocation, why)
        };
        if relocation.kind != R_BPF_64_32 || insn.src() != LOCAL {
            return Err(bad("a call needs a relocation of type R_BPF_64_32"));
        }
        let symbol = self.linked.target(of.unit, of.section, relocation)?;
        // The immediate is in slots, and -1 for the symbol itself.
        let by = (i64::from(insn.imm) + 1) * 8;
        let place = symbol
            .offset
            .checked_add_signed(by)
            .map(|offset| Place { offset, ..symbol });
        let place = place.filter(|place| self.by_place.contains_key(place));
        place.ok_or_else(|| bad("not the start of a function"))
    }
}
