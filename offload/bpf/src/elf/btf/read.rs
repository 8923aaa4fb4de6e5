//! Types read: an index over the bytes.

use std::cell::Cell;

use super::{BtfError, Field, MAX_DEPTH, Member, header, kind, part, word};

/// Words of a header without which nothing can be read, in bytes.
const HEADER: usize = 24;
/// What reading one more string counts as, whatever its length.
const STRING: usize = 32;
/// A map's definition has far fewer members.
const MAX_MEMBERS: u32 = 64;

/// One type: its fixed part and where its rest is.
#[derive(Clone, Copy, Debug)]
pub(in crate::elf) struct Type<'a> {
    pub(in crate::elf) name: u32,
    pub(in crate::elf) kind: u32,
    /// Of structures: offsets of members hold sizes of bit fields. Of enumerations: signed.
    pub(in crate::elf) flag: bool,
    pub(in crate::elf) vlen: u32,
    pub(in crate::elf) size_or_type: u32,
    pub(in crate::elf) rest: &'a [u8],
}

impl Type<'_> {
    pub(in crate::elf) fn word(&self, index: usize) -> Result<u32, BtfError> {
        word(self.rest, index)
    }
}

/// Where a variable is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::elf) enum Linkage {
    Static,
    Global,
    /// Defined in another file.
    Extern,
}

/// A variable of a data section: what a map definition is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::elf) struct Variable {
    pub(in crate::elf) name: String,
    pub(in crate::elf) linkage: Linkage,
    /// Byte offset in its section; compilers leave that of global ones to their symbols.
    pub(in crate::elf) offset: u32,
    /// Bytes it takes there.
    pub(in crate::elf) size: u32,
    pub(in crate::elf) members: Vec<Member>,
}

/// Type information: an index over the bytes.
#[derive(Debug, Default)]
pub(in crate::elf) struct Types<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
    /// Bytes of text that may still be read: strings that overlap could multiply a small file.
    text: Cell<usize>,
}

impl<'a> Types<'a> {
    pub(in crate::elf) fn new(data: &'a [u8]) -> Result<Self, BtfError> {
        let (head, body) = header(data, HEADER)?;
        let mut rest = part(body, word(head, 2)?, word(head, 3)?)?;
        let strings = part(body, word(head, 4)?, word(head, 5)?)?;
        let mut types = Vec::new();
        while !rest.is_empty() {
            let (name, info, size_or_type) = (word(rest, 0)?, word(rest, 1)?, word(rest, 2)?);
            let (kind, vlen) = (info >> 24 & 0x1f, info & 0xffff);
            // Bytes after the fixed part, by kind.
            let more = match kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 4,
                kind::PTR | kind::FWD..=kind::FUNC | kind::FLOAT | kind::TYPE_TAG => 0,
                kind::ARRAY => 12,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => vlen as usize * 12,
                kind::ENUM | kind::FUNC_PROTO => vlen as usize * 8,
                other => return Err(BtfError::Kind(other)),
            };
            let (this, tail) = rest
                .split_at_checked(12 + more)
                .ok_or(BtfError::Truncated)?;
            types.push(Type {
                name,
                kind,
                flag: info >> 31 != 0,
                vlen,
                size_or_type,
                rest: &this[12..],
            });
            rest = tail;
        }
        let text = Cell::new(data.len().saturating_mul(16).saturating_add(1 << 16));
        Ok(Self {
            types,
            strings,
            text,
        })
    }

    /// Types in order of their ids, from 1.
    pub(in crate::elf) fn all(&self) -> impl Iterator<Item = (u32, &Type<'a>)> {
        (1..).zip(&self.types)
    }

    pub(in crate::elf) fn get(&self, id: u32) -> Result<&Type<'a>, BtfError> {
        let index = (id as usize)
            .checked_sub(1)
            .ok_or(BtfError::Reference(id))?;
        self.types.get(index).ok_or(BtfError::Reference(id))
    }

    /// Through typedefs and qualifiers: the id of what is meant.
    pub(in crate::elf) fn resolve_id(&self, mut id: u32) -> Result<u32, BtfError> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                kind::TYPEDEF..=kind::RESTRICT | kind::TYPE_TAG => id = found.size_or_type,
                _ => return Ok(id),
            }
        }
        Err(BtfError::Reference(id))
    }

    pub(in crate::elf) fn resolve(&self, id: u32) -> Result<&Type<'a>, BtfError> {
        self.get(self.resolve_id(id)?)
    }

    pub(in crate::elf) fn string(&self, at: u32) -> Result<&'a str, BtfError> {
        let rest = self.strings.get(at as usize..).ok_or(BtfError::Truncated)?;
        let end = rest
            .iter()
            .position(|b| *b == 0)
            .ok_or(BtfError::Truncated)?;
        let left = self.text.get().checked_sub(end + STRING);
        let left = left.ok_or(BtfError::Text)?;
        self.text.set(left);
        std::str::from_utf8(&rest[..end]).map_err(|_| BtfError::String)
    }

    /// `sizeof`.
    pub(in crate::elf) fn size(&self, id: u32) -> Result<u32, BtfError> {
        self.size_at(id, 0)
    }

    fn size_at(&self, id: u32, depth: usize) -> Result<u32, BtfError> {
        let found = self.resolve(id)?;
        match found.kind {
            kind::PTR => Ok(8),
            kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::FLOAT | kind::ENUM64 => {
                Ok(found.size_or_type)
            }
            kind::ARRAY if depth < MAX_DEPTH => {
                let element = self.size_at(found.word(0)?, depth + 1)?;
                let count = found.word(2)?;
                element.checked_mul(count).ok_or(BtfError::Reference(id))
            }
            _ => Err(BtfError::Reference(id)),
        }
    }

    /// Variables of the data section of this name; none without it.
    pub(in crate::elf) fn variables(&self, section: &str) -> Result<Vec<Variable>, BtfError> {
        let mut out = Vec::new();
        for found in self.types.iter().filter(|t| t.kind == kind::DATASEC) {
            if self.string(found.name)? != section {
                continue;
            }
            for entry in 0..found.vlen as usize {
                let id = found.word(entry * 3)?;
                let variable = self.get(id)?;
                if variable.kind != kind::VAR {
                    return Err(BtfError::Reference(id));
                }
                let linkage = match variable.word(0)? {
                    0 => Linkage::Static,
                    1 => Linkage::Global,
                    2 => Linkage::Extern,
                    _ => return Err(BtfError::Reference(id)),
                };
                out.push(Variable {
                    name: self.string(variable.name)?.to_owned(),
                    linkage,
                    offset: found.word(entry * 3 + 1)?,
                    size: found.word(entry * 3 + 2)?,
                    members: self.members(variable.size_or_type, true)?,
                });
            }
        }
        Ok(out)
    }

    /// Members of a map definition. That of inner maps may not hold maps again.
    fn members(&self, id: u32, outer: bool) -> Result<Vec<Member>, BtfError> {
        let structure = self.resolve(id)?;
        if structure.kind != kind::STRUCT || structure.vlen > MAX_MEMBERS {
            return Err(BtfError::Reference(id));
        }
        let mut out = Vec::new();
        for index in 0..structure.vlen as usize {
            let name = self.string(structure.word(index * 3)?)?.to_owned();
            let type_id = structure.word(index * 3 + 1)?;
            let offset = structure.word(index * 3 + 2)? / 8;
            let member = self.resolve(type_id)?;
            let value = match (name.as_str(), member.kind) {
                ("values", kind::ARRAY) if outer => self.values(member.word(0)?)?,
                ("key" | "value", kind::PTR) => Field::Size(self.size(member.size_or_type)?),
                (_, kind::PTR) => {
                    let array = self.resolve(member.size_or_type)?;
                    if array.kind != kind::ARRAY {
                        return Err(BtfError::Reference(member.size_or_type));
                    }
                    Field::Number(array.word(2)?)
                }
                _ => return Err(BtfError::Reference(type_id)),
            };
            out.push(Member {
                name,
                offset,
                value,
            });
        }
        Ok(out)
    }

    /// What an array of pointers to this type holds.
    fn values(&self, element: u32) -> Result<Field, BtfError> {
        let pointer = self.resolve(element)?;
        if pointer.kind != kind::PTR {
            return Err(BtfError::Reference(element));
        }
        let target = self.resolve(pointer.size_or_type)?;
        match target.kind {
            kind::FUNC_PROTO => Ok(Field::Programs),
            kind::STRUCT => Ok(Field::Maps(self.members(pointer.size_or_type, false)?)),
            _ => Err(BtfError::Reference(pointer.size_or_type)),
        }
    }
}
