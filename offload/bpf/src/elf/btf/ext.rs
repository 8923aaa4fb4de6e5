//! `.BTF.ext`: which function, which line and which field instructions belong to.

use super::{BtfError, Types, header, word};

/// Bytes of a header with functions and lines.
const HEADER: usize = 24;
/// Bytes of one that has notes for CO-RE too.
const HEADER_CORE: usize = 32;

/// One record: its section, the byte offset of its instruction there, and the words after it.
#[derive(Clone, Copy, Debug)]
pub(in crate::elf) struct Info<'a> {
    pub(in crate::elf) section: &'a str,
    pub(in crate::elf) offset: u32,
    rest: &'a [u8],
}

impl Info<'_> {
    /// Words of the record, the offset not counted.
    pub(in crate::elf) fn word(&self, index: usize) -> Result<u32, BtfError> {
        word(self.rest, index)
    }
}

/// The section's three tables.
#[derive(Debug, Default)]
pub(in crate::elf) struct Ext<'a> {
    /// `insn_off`, type id of the function.
    pub(in crate::elf) functions: Vec<Info<'a>>,
    /// `insn_off`, file, text of the line, line and column in one word.
    pub(in crate::elf) lines: Vec<Info<'a>>,
    /// `insn_off`, type id, access string, what of it is wanted.
    pub(in crate::elf) core: Vec<Info<'a>>,
}

impl<'a> Ext<'a> {
    pub(in crate::elf) fn new(data: &'a [u8], types: &Types<'a>) -> Result<Self, BtfError> {
        let (head, body) = header(data, HEADER)?;
        let table = |index, record| -> Result<Vec<Info<'a>>, BtfError> {
            let part = super::part(body, word(head, index)?, word(head, index + 1)?)?;
            records(part, record, types)
        };
        Ok(Self {
            functions: table(2, 8)?,
            lines: table(4, 16)?,
            core: if head.len() >= HEADER_CORE {
                table(6, 16)?
            } else {
                Vec::new()
            },
        })
    }
}

/// A table: the size of its records, then for each section its name, how many, and they.
fn records<'a>(
    mut rest: &'a [u8],
    least: usize,
    types: &Types<'a>,
) -> Result<Vec<Info<'a>>, BtfError> {
    let mut out = Vec::new();
    if rest.is_empty() {
        return Ok(out);
    }
    let size = word(rest, 0)? as usize;
    if size < least || !size.is_multiple_of(4) {
        return Err(BtfError::Header);
    }
    rest = &rest[4..];
    while !rest.is_empty() {
        let (section, count) = (types.string(word(rest, 0)?)?, word(rest, 1)? as usize);
        let len = count.checked_mul(size).ok_or(BtfError::Truncated)?;
        let (these, tail) = rest[8..].split_at_checked(len).ok_or(BtfError::Truncated)?;
        for record in these.chunks_exact(size) {
            out.push(Info {
                section,
                offset: word(record, 0)?,
                rest: &record[4..],
            });
        }
        rest = tail;
    }
    Ok(out)
}
