//! Type information (BTF): what map definitions, functions and lines are made of
//! (`Documentation/bpf/btf.rst` of Linux; libbpf's `bpf_helpers.h` macros).

mod ext;
mod read;
mod write;

use thiserror::Error;

pub(super) use ext::{Ext, Info};
pub(super) use read::{Linkage, Types, Variable};
pub(super) use write::Writer;

const MAGIC: u16 = 0xeb9f;
/// Chains of typedefs and nested arrays deeper than this are refused.
pub(super) const MAX_DEPTH: usize = 32;

/// Kinds of types, by BTF's own numbers.
#[expect(dead_code, reason = "the table of kinds is whole, read or not")]
pub(super) mod kind {
    pub(crate) const INT: u32 = 1;
    pub(crate) const PTR: u32 = 2;
    pub(crate) const ARRAY: u32 = 3;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const UNION: u32 = 5;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const FWD: u32 = 7;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const VOLATILE: u32 = 9;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const RESTRICT: u32 = 11;
    pub(crate) const FUNC: u32 = 12;
    pub(crate) const FUNC_PROTO: u32 = 13;
    pub(crate) const VAR: u32 = 14;
    pub(crate) const DATASEC: u32 = 15;
    pub(crate) const FLOAT: u32 = 16;
    pub(crate) const DECL_TAG: u32 = 17;
    pub(crate) const TYPE_TAG: u32 = 18;
    pub(crate) const ENUM64: u32 = 19;
}

/// Why type information cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    /// The header is not one.
    #[error("bad header")]
    Header,
    /// A type, record or string lies outside the data.
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
    /// Strings that overlap make more text than the file can mean.
    #[error("more text than the file has room for")]
    Text,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// `__uint`: pointer to an array of this many.
    Number(u32),
    /// `__type`: pointer to a type of this many bytes.
    Size(u32),
    /// `__array`: contents follow the structure, pointers to programs.
    Programs,
    /// `__array` of maps, all defined like this.
    Maps(Vec<Member>),
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

/// Header of both sections: what comes after it, and its words.
fn header(data: &[u8], least: usize) -> Result<(&[u8], &[u8]), BtfError> {
    let magic = data.first_chunk::<2>().map(|b| u16::from_le_bytes(*b));
    let len = word(data, 1)? as usize;
    if magic != Some(MAGIC) || len < least {
        return Err(BtfError::Header);
    }
    data.split_at_checked(len).ok_or(BtfError::Header)
}
