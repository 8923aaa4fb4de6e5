//! Types, functions and lines written.

use std::collections::HashMap;

use super::{Field, Linkage, MAGIC, Member, Variable, kind};
use crate::debug::DebugInfo;

/// Bytes of the headers of both sections.
const HEADER: usize = 24;
/// Encoding of a signed integer of 32 bits.
const INT: u32 = 1 << 24 | 32;
/// Largest line and column that one word holds.
const MAX_LINE: u32 = (1 << 22) - 1;
const MAX_COLUMN: u32 = (1 << 10) - 1;

/// Writes type information.
#[derive(Debug, Default)]
pub(in crate::elf) struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    known: HashMap<String, u32>,
    count: u32,
    /// `int`, `int (*)(void)` and the latter's function type, once something needs them.
    basic: Option<Basic>,
    functions: Table,
    lines: Table,
}

#[derive(Clone, Copy, Debug)]
struct Basic {
    int: u32,
    proto: u32,
    pointer: u32,
}

/// Records of `.BTF.ext` by section, in order of sections.
#[derive(Debug, Default)]
struct Table(Vec<(u32, Vec<u8>)>);

impl Table {
    fn push(&mut self, section: u32, words: &[u32]) {
        let at = match self.0.iter().position(|(name, _)| *name == section) {
            Some(at) => at,
            None => {
                self.0.push((section, Vec::new()));
                self.0.len() - 1
            }
        };
        self.0[at]
            .1
            .extend(words.iter().flat_map(|w| w.to_le_bytes()));
    }

    fn finish(&self, record: u32) -> Vec<u8> {
        let mut out = record.to_le_bytes().to_vec();
        for (section, bytes) in &self.0 {
            out.extend_from_slice(&section.to_le_bytes());
            out.extend_from_slice(&(bytes.len() as u32 / record).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        out
    }
}

fn file(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = MAGIC.to_le_bytes().to_vec();
    out.extend_from_slice(&[1, 0]); // version, flags
    out.extend_from_slice(&(HEADER as u32).to_le_bytes());
    let mut from = 0u32;
    for part in parts {
        out.extend_from_slice(&from.to_le_bytes());
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        from += part.len() as u32;
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

impl Writer {
    fn string(&mut self, text: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if text.is_empty() {
            return 0;
        }
        if let Some(at) = self.known.get(text) {
            return *at;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        self.known.insert(text.to_owned(), at);
        at
    }

    fn push(&mut self, name: &str, kind: u32, vlen: u32, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        for word in [name, kind << 24 | vlen, size_or_type].iter().chain(rest) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn basic(&mut self) -> Basic {
        if let Some(basic) = self.basic {
            return basic;
        }
        let int = self.push("int", kind::INT, 0, 4, &[INT]);
        let proto = self.push("", kind::FUNC_PROTO, 0, int, &[]);
        let pointer = self.push("", kind::PTR, 0, proto, &[]);
        *self.basic.insert(Basic {
            int,
            proto,
            pointer,
        })
    }

    /// A structure with a map definition's members.
    fn structure(&mut self, members: &[Member]) -> u32 {
        let basic = self.basic();
        let mut words = Vec::new();
        let mut size = 0;
        for member in members {
            let type_id = match &member.value {
                Field::Number(n) | Field::Size(n) => {
                    let array = self.push("", kind::ARRAY, 0, 0, &[basic.int, basic.int, *n]);
                    size += 8;
                    self.push("", kind::PTR, 0, array, &[])
                }
                Field::Programs => self.push("", kind::ARRAY, 0, 0, &[basic.pointer, basic.int, 0]),
                Field::Maps(inner) => {
                    let inner = self.structure(inner);
                    let pointer = self.push("", kind::PTR, 0, inner, &[]);
                    self.push("", kind::ARRAY, 0, 0, &[pointer, basic.int, 0])
                }
            };
            words.extend([self.string(&member.name), type_id, member.offset * 8]);
        }
        self.push("", kind::STRUCT, members.len() as u32, size, &words)
    }

    /// A data section of map definitions.
    pub(in crate::elf) fn maps(&mut self, section: &str, variables: &[Variable]) {
        let mut entries = Vec::new();
        for variable in variables {
            let structure = self.structure(&variable.members);
            let linkage = match variable.linkage {
                Linkage::Static => 0,
                Linkage::Global => 1,
                Linkage::Extern => 2,
            };
            let id = self.push(&variable.name, kind::VAR, 0, structure, &[linkage]);
            entries.extend([id, variable.offset, variable.size]);
        }
        let size = variables.iter().map(|v| v.size).sum();
        self.push(
            section,
            kind::DATASEC,
            variables.len() as u32,
            size,
            &entries,
        );
    }

    /// What is known of a program whose first byte is at `offset` of a section.
    pub(in crate::elf) fn debug(&mut self, section: &str, offset: u64, debug: &DebugInfo) {
        let section = self.string(section);
        let at = |slot: u32| offset as u32 + slot * 8;
        for function in debug.functions() {
            let proto = self.basic().proto;
            let global = 1;
            let id = self.push(&function.name, kind::FUNC, global, proto, &[]);
            self.functions.push(section, &[at(function.slot), id]);
        }
        for line in debug.lines() {
            let place = line.line.min(MAX_LINE) << 10 | line.column.min(MAX_COLUMN);
            let (file, text) = (self.string(&line.file), self.string(&line.text));
            self.lines
                .push(section, &[at(line.slot), file, text, place]);
        }
    }

    /// Both sections, or what there is of them.
    pub(in crate::elf) fn finish(self) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let types = (self.count != 0).then(|| file(&[&self.types, &self.strings]));
        let known = !self.functions.0.is_empty() || !self.lines.0.is_empty();
        let ext = known.then(|| file(&[&self.functions.finish(8), &self.lines.finish(16)]));
        (types, ext)
    }
}
