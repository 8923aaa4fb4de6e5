//! The part of BTF map definitions are made of
//! (`Documentation/bpf/btf.rst` of Linux; libbpf's `bpf_helpers.h` macros).

use thiserror::Error;

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
/// Chains of typedefs and nested arrays deeper than this are refused.
const MAX_DEPTH: usize = 32;

/// Why type information cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// The header is not one.
    #[error("bad header")]
    Header,
    /// A type or string lies outside the data.
    #[error("data ends early")]
    Truncated,
    /// A type of unknown kind: its length is unknown too.
    #[error("unknown kind {0}")]
    Kind(u32),
    /// A type refers to one that is not there, or not of the kind needed.
    #[error("type {0} is not what is referred to")]
    Reference(u32),
    /// A string is not UTF-8.
    #[error("bad string")]
    String,
}

/// A variable of a data section: what a map definition is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    /// Byte offset in its section.
    pub(super) offset: u32,
    /// Bytes it takes there.
    pub(super) size: u32,
    pub(super) members: Vec<Member>,
}

/// A member of a map definition's structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Byte offset in the structure.
    pub(super) offset: u32,
    pub(super) value: Field,
}

/// What a member says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// `__uint`: pointer to an array of this many.
    Number(u32),
    /// `__type`: pointer to a type of this many bytes.
    Size(u32),
    /// `__array`: contents follow the structure.
    Values,
}

/// Writes type information.
#[derive(Debug)]
pub(super) struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
            count: 0,
        }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
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

    /// All types of one data section of map definitions, and the file form.
    pub(super) fn finish(mut self, section: &str, variables: &[Variable]) -> Vec<u8> {
        // encoding "signed" in bits 24.., 32 bits wide
        let int = self.push("int", KIND_INT, 0, 4, &[1 << 24 | 32]);
        let function = self.push("", KIND_FUNC_PROTO, 0, int, &[]);
        let pointer = self.push("", KIND_PTR, 0, function, &[]);
        let values = self.push("", KIND_ARRAY, 0, 0, &[pointer, int, 0]);
        let mut entries = Vec::new();
        for variable in variables {
            let mut members = Vec::new();
            let mut size = 0;
            for member in &variable.members {
                let type_id = match member.value {
                    Field::Number(n) | Field::Size(n) => {
                        let array = self.push("", KIND_ARRAY, 0, 0, &[int, int, n]);
                        size += 8;
                        self.push("", KIND_PTR, 0, array, &[])
                    }
                    Field::Values => values,
                };
                members.extend([self.string(&member.name), type_id, member.offset * 8]);
            }
            let count = variable.members.len() as u32;
            let structure = self.push("", KIND_STRUCT, count, size, &members);
            let global = 1;
            let id = self.push(&variable.name, KIND_VAR, 0, structure, &[global]);
            entries.extend([id, variable.offset, variable.size]);
        }
        let size = variables.iter().map(|v| v.size).sum();
        self.push(
            section,
            KIND_DATASEC,
            variables.len() as u32,
            size,
            &entries,
        );

        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[1, 0]); // version, flags
        for word in [HEADER as u32, 0, types, types, strings] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }
}

/// One type: its fixed part and where its rest is.
#[derive(Clone, Copy, Debug)]
struct Type<'a> {
    name: u32,
    kind: u32,
    vlen: u32,
    size_or_type: u32,
    rest: &'a [u8],
}

/// Type information read: an index over the bytes.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
}

fn word(bytes: &[u8], index: usize) -> Result<u32, BtfError> {
    let at = index.checked_mul(4).ok_or(BtfError::Truncated)?;
    let four = bytes.get(at..).and_then(|b| b.first_chunk::<4>());
    four.map(|b| u32::from_le_bytes(*b))
        .ok_or(BtfError::Truncated)
}

fn part(bytes: &[u8], from: u32, len: u32) -> Result<&[u8], BtfError> {
    let from = from as usize;
    let to = from.checked_add(len as usize).ok_or(BtfError::Truncated)?;
    bytes.get(from..to).ok_or(BtfError::Truncated)
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Result<Self, BtfError> {
        let magic = data.first_chunk::<2>().map(|b| u16::from_le_bytes(*b));
        let header = word(data, 1)?;
        if magic != Some(MAGIC) || (header as usize) < HEADER {
            return Err(BtfError::Header);
        }
        let body = data.get(header as usize..).ok_or(BtfError::Header)?;
        let mut rest = part(body, word(data, 2)?, word(data, 3)?)?;
        let strings = part(body, word(data, 4)?, word(data, 5)?)?;
        let mut types = Vec::new();
        while !rest.is_empty() {
            let (name, info, size_or_type) = (word(rest, 0)?, word(rest, 1)?, word(rest, 2)?);
            let (kind, vlen) = (info >> 24 & 0x1f, info & 0xffff);
            // Bytes after the fixed part, by kind: numbers of BTF's own table.
            let more = match kind {
                KIND_INT | KIND_VAR | 17 => 4,
                KIND_PTR | 7..=12 | 16 | 18 => 0,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | 19 => vlen as usize * 12,
                6 | KIND_FUNC_PROTO => vlen as usize * 8,
                other => return Err(BtfError::Kind(other)),
            };
            let (this, tail) = rest
                .split_at_checked(12 + more)
                .ok_or(BtfError::Truncated)?;
            types.push(Type {
                name,
                kind,
                vlen,
                size_or_type,
                rest: &this[12..],
            });
            rest = tail;
        }
        Ok(Self { types, strings })
    }

    fn get(&self, id: u32) -> Result<&Type<'a>, BtfError> {
        let index = (id as usize)
            .checked_sub(1)
            .ok_or(BtfError::Reference(id))?;
        self.types.get(index).ok_or(BtfError::Reference(id))
    }

    /// Through typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Result<&Type<'a>, BtfError> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                8..=11 | 18 => id = found.size_or_type,
                _ => return Ok(found),
            }
        }
        Err(BtfError::Reference(id))
    }

    fn string(&self, at: u32) -> Result<String, BtfError> {
        let rest = self.strings.get(at as usize..).ok_or(BtfError::Truncated)?;
        let end = rest
            .iter()
            .position(|b| *b == 0)
            .ok_or(BtfError::Truncated)?;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| BtfError::String)?;
        Ok(text.to_owned())
    }

    /// `sizeof`.
    fn size(&self, id: u32, depth: usize) -> Result<u32, BtfError> {
        let found = self.resolve(id)?;
        match found.kind {
            KIND_PTR => Ok(8),
            KIND_INT | KIND_STRUCT | KIND_UNION | 6 | 16 | 19 => Ok(found.size_or_type),
            KIND_ARRAY if depth < MAX_DEPTH => {
                let element = self.size(word(found.rest, 0)?, depth + 1)?;
                let count = word(found.rest, 2)?;
                element.checked_mul(count).ok_or(BtfError::Reference(id))
            }
            _ => Err(BtfError::Reference(id)),
        }
    }

    /// Variables of the data section of this name; none without it.
    pub(super) fn variables(&self, section: &str) -> Result<Vec<Variable>, BtfError> {
        let mut out = Vec::new();
        for found in self.types.iter().filter(|t| t.kind == KIND_DATASEC) {
            if self.string(found.name)? != section {
                continue;
            }
            for entry in 0..found.vlen as usize {
                let id = word(found.rest, entry * 3)?;
                let variable = self.get(id)?;
                if variable.kind != KIND_VAR {
                    return Err(BtfError::Reference(id));
                }
                out.push(Variable {
                    name: self.string(variable.name)?,
                    offset: word(found.rest, entry * 3 + 1)?,
                    size: word(found.rest, entry * 3 + 2)?,
                    members: self.members(variable.size_or_type)?,
                });
            }
        }
        Ok(out)
    }

    fn members(&self, id: u32) -> Result<Vec<Member>, BtfError> {
        let structure = self.resolve(id)?;
        if structure.kind != KIND_STRUCT {
            return Err(BtfError::Reference(id));
        }
        let mut out = Vec::new();
        for index in 0..structure.vlen as usize {
            let name = self.string(word(structure.rest, index * 3)?)?;
            let type_id = word(structure.rest, index * 3 + 1)?;
            let offset = word(structure.rest, index * 3 + 2)? / 8;
            let member = self.resolve(type_id)?;
            let value = match (name.as_str(), member.kind) {
                ("values", KIND_ARRAY) => Field::Values,
                ("key" | "value", KIND_PTR) => Field::Size(self.size(member.size_or_type, 0)?),
                (_, KIND_PTR) => {
                    let array = self.resolve(member.size_or_type)?;
                    if array.kind != KIND_ARRAY {
                        return Err(BtfError::Reference(member.size_or_type));
                    }
                    Field::Number(word(array.rest, 2)?)
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
}
