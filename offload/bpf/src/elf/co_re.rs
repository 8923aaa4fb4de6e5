//! CO-RE: instructions that hold a field's offset, a type's size and the like, set right for whoever
//! runs them.
//!
//! The compiler notes which instructions those are and what they stand for: a type of the file, a way
//! into it by member and index, and what of it is wanted. The type of the same name is looked up in
//! the target's BTF, the way is gone again by names, and what is found there goes into the
//! instruction. What the target does not have makes an instruction that no verifier lets run, as in
//! libbpf: programs ask first whether it is there. (`Documentation/bpf/btf.rst` and
//! `llvm_reloc.rst` of Linux.)

use std::collections::HashMap;

use super::btf::{BtfError, MAX_DEPTH, Types, kind};
use crate::decode::{LDDW, SOURCE_REG, class};
use crate::insn::Insn;

/// `enum bpf_core_relo_kind`.
mod wanted {
    pub(super) const FIELD_OFFSET: u32 = 0;
    pub(super) const FIELD_SIZE: u32 = 1;
    pub(super) const FIELD_EXISTS: u32 = 2;
    pub(super) const FIELD_SIGNED: u32 = 3;
    pub(super) const FIELD_LEFT_SHIFT: u32 = 4;
    pub(super) const FIELD_RIGHT_SHIFT: u32 = 5;
    pub(super) const TYPE_ID_LOCAL: u32 = 6;
    pub(super) const TYPE_ID_TARGET: u32 = 7;
    pub(super) const TYPE_EXISTS: u32 = 8;
    pub(super) const TYPE_SIZE: u32 = 9;
    pub(super) const ENUM_EXISTS: u32 = 10;
    pub(super) const ENUM_VALUE: u32 = 11;
}

/// The call that stands where something is missing; libbpf's number, so that logs are alike.
const POISON: Insn = Insn {
    code: 0x85,
    regs: 0,
    off: 0,
    imm: 0x0bad_2310,
};

/// Why a note cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Btf(BtfError),
    Why(&'static str),
}

impl From<BtfError> for Fault {
    fn from(error: BtfError) -> Self {
        Self::Btf(error)
    }
}

type Found<T> = Result<T, Fault>;

/// What goes into an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    /// The target has nothing of the kind.
    Missing,
    /// This value.
    Value(u64),
    /// This offset of a field, whose size was `from` bytes and is `to`. Loads and stores can follow
    /// if the field is not `signed`.
    Offset {
        value: u64,
        from: u32,
        to: u32,
        signed: bool,
    },
}

/// The types of whoever runs the programs.
#[derive(Debug)]
pub(super) struct Core<'t> {
    types: Types<'t>,
    by_name: HashMap<&'t str, Vec<u32>>,
}

/// A field by the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    /// Its type.
    id: u32,
    /// Bits from the start of the root.
    offset: u64,
    bit_field: bool,
}

/// A step of the way that the target has to go too.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    /// To the member of this name, whose type here is this one.
    Member(&'a str, u32),
    /// To this element.
    Index(u32),
}

/// Names may differ behind three underscores: variants of one type.
fn essential(name: &str) -> &str {
    name.split_once("___").map_or(name, |(base, _)| base)
}

fn composite(kind: u32) -> bool {
    matches!(kind, kind::STRUCT | kind::UNION)
}

/// Kinds that may stand for each other.
fn alike(one: u32, other: u32) -> bool {
    let plain = |k| if k == kind::ENUM64 { kind::ENUM } else { k };
    plain(one) == plain(other)
}

/// (name, type, offset in bits, whether it is a bit field) of a member.
fn member<'a>(types: &Types<'a>, of: u32, index: u32) -> Found<(&'a str, u32, u64, bool)> {
    let outside = Fault::Why("the type has no such member");
    let structure = types.get(of)?;
    if !composite(structure.kind) || index >= structure.vlen {
        return Err(outside);
    }
    let at = index as usize * 3;
    let (name, id) = (types.string(structure.word(at)?)?, structure.word(at + 1)?);
    let offset = structure.word(at + 2)?;
    Ok(match structure.flag {
        true => (name, id, u64::from(offset & 0xff_ffff), offset >> 24 != 0),
        false => (name, id, u64::from(offset), false),
    })
}

/// The element of an array, `index` of it from `field`.
fn element(types: &Types<'_>, field: Field, index: u32) -> Found<Field> {
    let array = types.resolve(field.id)?;
    if array.kind != kind::ARRAY {
        return Err(Fault::Why("an index into what is no array"));
    }
    let id = array.word(0)?;
    let by = u64::from(types.size(id)?) * 8 * u64::from(index);
    let offset = field.offset.checked_add(by);
    Ok(Field {
        id,
        offset: offset.ok_or(Fault::Why("the offset is too large"))?,
        bit_field: false,
    })
}

fn signed(types: &Types<'_>, id: u32) -> Found<bool> {
    let found = types.resolve(id)?;
    Ok(match found.kind {
        kind::INT => found.word(0)? >> 24 & 1 != 0,
        kind::ENUM | kind::ENUM64 => found.flag,
        _ => false,
    })
}

/// Value of an enumerator by its index, and its name.
fn enumerator<'a>(types: &Types<'a>, id: u32, index: u32) -> Found<(&'a str, u64)> {
    let found = types.resolve(id)?;
    if !matches!(found.kind, kind::ENUM | kind::ENUM64) || index >= found.vlen {
        return Err(Fault::Why("the type has no such enumerator"));
    }
    let words = if found.kind == kind::ENUM { 2 } else { 3 };
    let at = index as usize * words;
    let (name, low) = (types.string(found.word(at)?)?, found.word(at + 1)?);
    let value = match (found.kind, found.flag) {
        (kind::ENUM, true) => i64::from(low as i32) as u64,
        (kind::ENUM, false) => u64::from(low),
        _ => u64::from(found.word(at + 2)?) << 32 | u64::from(low),
    };
    Ok((name, value))
}

/// The way an access string goes: the field it ends at, and the steps with names or indices.
fn way<'a>(types: &Types<'a>, root: u32, access: &str) -> Found<(Field, Vec<Step<'a>>)> {
    let bad = Fault::Why("the access string is none");
    let mut indices = access.split(':').map(|i| i.parse::<u32>().map_err(|_| bad));
    let first = indices.next().ok_or(bad)??;
    let mut field = Field {
        id: root,
        offset: u64::from(types.size(root)?) * 8 * u64::from(first),
        bit_field: false,
    };
    let mut steps = vec![Step::Index(first)];
    for index in indices {
        let index = index?;
        if steps.len() > 2 * MAX_DEPTH {
            return Err(Fault::Why("the access string is too long"));
        }
        let at = types.resolve_id(field.id)?;
        if composite(types.get(at)?.kind) {
            let (name, id, offset, bit_field) = member(types, at, index)?;
            if !name.is_empty() {
                steps.push(Step::Member(name, id));
            }
            field = Field {
                id,
                offset: field.offset.saturating_add(offset),
                bit_field,
            };
        } else {
            field = element(types, field, index)?;
            steps.push(Step::Index(index));
        }
    }
    Ok((field, steps))
}

impl<'t> Core<'t> {
    pub(super) fn new(btf: &'t [u8]) -> Result<Self, BtfError> {
        let types = Types::new(btf)?;
        let mut by_name: HashMap<&str, Vec<u32>> = HashMap::new();
        for (id, found) in types.all() {
            let named = composite(found.kind)
                || matches!(
                    found.kind,
                    kind::INT | kind::ENUM | kind::ENUM64 | kind::TYPEDEF | kind::FLOAT
                );
            if named && found.name != 0 {
                by_name
                    .entry(essential(types.string(found.name)?))
                    .or_default()
                    .push(id);
            }
        }
        Ok(Self { types, by_name })
    }

    /// What one note asks for: of a type of the file, by a way into it.
    pub(super) fn resolve(
        &self,
        local: &Types<'_>,
        root: u32,
        access: &str,
        what: u32,
    ) -> Found<Fix> {
        if what == wanted::TYPE_ID_LOCAL {
            return Ok(Fix::Value(u64::from(root)));
        }
        let of = local.get(root)?;
        let name = essential(local.string(of.name)?);
        if name.is_empty() {
            return Err(Fault::Why("a type without a name"));
        }
        let mut fix = None;
        for candidate in self.by_name.get(name).into_iter().flatten() {
            if !alike(self.types.get(*candidate)?.kind, of.kind) {
                continue;
            }
            let found = self.candidate(local, root, access, what, *candidate)?;
            match (found, fix) {
                (Some(found), Some(before)) if found != before => {
                    return Err(Fault::Why("types of the target that differ have that name"));
                }
                (Some(found), _) => fix = Some(found),
                (None, _) => {}
            }
        }
        let asks = matches!(
            what,
            wanted::FIELD_EXISTS | wanted::TYPE_EXISTS | wanted::ENUM_EXISTS
        );
        Ok(fix.unwrap_or(if asks { Fix::Value(0) } else { Fix::Missing }))
    }

    /// What it is by one type of the target; `None` when that one does not fit.
    fn candidate(
        &self,
        local: &Types<'_>,
        root: u32,
        access: &str,
        what: u32,
        target: u32,
    ) -> Found<Option<Fix>> {
        match what {
            wanted::FIELD_OFFSET..=wanted::FIELD_RIGHT_SHIFT => {
                let (from, steps) = way(local, root, access)?;
                let Some(to) = self.follow(local, &steps, target)? else {
                    return Ok(None);
                };
                self.field(local, from, to, what).map(Some)
            }
            wanted::TYPE_ID_TARGET..=wanted::TYPE_SIZE => {
                let (one, other) = (local.resolve(root)?, self.types.resolve(target)?);
                if !alike(one.kind, other.kind) {
                    return Ok(None);
                }
                Ok(Some(Fix::Value(match what {
                    wanted::TYPE_ID_TARGET => u64::from(target),
                    wanted::TYPE_EXISTS => 1,
                    _ => u64::from(self.types.size(target)?),
                })))
            }
            wanted::ENUM_EXISTS | wanted::ENUM_VALUE => {
                let index = access.parse();
                let index = index.map_err(|_| Fault::Why("the access string is none"))?;
                let (name, _) = enumerator(local, root, index)?;
                for index in 0..self.types.resolve(target)?.vlen {
                    let (other, value) = enumerator(&self.types, target, index)?;
                    if essential(other) == essential(name) {
                        let exists = what == wanted::ENUM_EXISTS;
                        return Ok(Some(Fix::Value(if exists { 1 } else { value })));
                    }
                }
                Ok(None)
            }
            _ => Err(Fault::Why("a relocation of unknown kind")),
        }
    }

    fn field(&self, local: &Types<'_>, from: Field, to: Field, what: u32) -> Found<Fix> {
        if what == wanted::FIELD_EXISTS {
            return Ok(Fix::Value(1));
        }
        if from.bit_field || to.bit_field || !to.offset.is_multiple_of(8) {
            return Err(Fault::Why("bit fields are not relocated"));
        }
        let size = |types: &Types<'_>, id| types.size(id).unwrap_or(0);
        let (before, after) = (size(local, from.id), size(&self.types, to.id));
        let is_signed = signed(&self.types, to.id)?;
        Ok(match what {
            wanted::FIELD_OFFSET => Fix::Offset {
                value: to.offset / 8,
                from: before,
                to: after,
                signed: is_signed || signed(local, from.id)?,
            },
            wanted::FIELD_SIZE => Fix::Value(u64::from(after)),
            wanted::FIELD_SIGNED => Fix::Value(u64::from(is_signed)),
            // Both shifts bring a value that was loaded as 64 bits back to its own.
            wanted::FIELD_LEFT_SHIFT | wanted::FIELD_RIGHT_SHIFT => {
                Fix::Value(64u64.saturating_sub(u64::from(after) * 8))
            }
            _ => return Err(Fault::Why("a relocation of unknown kind")),
        })
    }

    /// Goes the steps in a type of the target; `None` when it has no such way.
    fn follow(&self, local: &Types<'_>, steps: &[Step<'_>], root: u32) -> Found<Option<Field>> {
        let mut field = Field {
            id: root,
            offset: 0,
            bit_field: false,
        };
        for (number, step) in steps.iter().enumerate() {
            field = match *step {
                Step::Index(index) if number == 0 => Field {
                    offset: u64::from(self.types.size(root)?) * 8 * u64::from(index),
                    ..field
                },
                Step::Index(index) => {
                    let array = self.types.resolve(field.id)?;
                    // One element more may lie behind an array that is the last member.
                    if array.kind != kind::ARRAY || array.word(2)? != 0 && index >= array.word(2)? {
                        return Ok(None);
                    }
                    element(&self.types, field, index)?
                }
                Step::Member(name, id) => match self.member(field, name, 0)? {
                    Some(found) if self.fits(local, id, found.id, 0)? => found,
                    _ => return Ok(None),
                },
            };
        }
        Ok(Some(field))
    }

    /// A member by its name, in members without one too.
    fn member(&self, of: Field, name: &str, depth: usize) -> Found<Option<Field>> {
        let id = self.types.resolve_id(of.id)?;
        let structure = self.types.get(id)?;
        if !composite(structure.kind) || depth > MAX_DEPTH {
            return Ok(None);
        }
        for index in 0..structure.vlen {
            let (found, id, offset, bit_field) = member(&self.types, id, index)?;
            let field = Field {
                id,
                offset: of.offset.saturating_add(offset),
                bit_field,
            };
            if essential(found) == essential(name) && !found.is_empty() {
                return Ok(Some(field));
            }
            if found.is_empty()
                && let Some(inner) = self.member(field, name, depth + 1)?
            {
                return Ok(Some(inner));
            }
        }
        Ok(None)
    }

    /// Whether what was compiled for one type can read the other.
    fn fits(&self, local: &Types<'_>, from: u32, to: u32, depth: usize) -> Found<bool> {
        let (one, other) = (local.resolve(from)?, self.types.resolve(to)?);
        if composite(one.kind) && composite(other.kind) {
            return Ok(true);
        }
        if !alike(one.kind, other.kind) || depth > MAX_DEPTH {
            return Ok(false);
        }
        Ok(match one.kind {
            kind::PTR | kind::FLOAT | kind::INT => true,
            kind::ENUM | kind::ENUM64 | kind::FWD => {
                let name = essential(local.string(one.name)?);
                let other = essential(self.types.string(other.name)?);
                name.is_empty() || other.is_empty() || name == other
            }
            kind::ARRAY => self.fits(local, one.word(0)?, other.word(0)?, depth + 1)?,
            _ => false,
        })
    }
}

impl Fix {
    /// Puts it into the instruction that `slots` start with.
    pub(super) fn apply(self, slots: &mut [Insn]) -> Result<(), &'static str> {
        const KIND: &str = "no instruction that holds such a value";
        let [first, rest @ ..] = slots else {
            return Err(KIND);
        };
        let (value, resize) = match self {
            Self::Missing => {
                if first.code == LDDW {
                    *rest.first_mut().ok_or(KIND)? = POISON;
                }
                *first = POISON;
                return Ok(());
            }
            Self::Value(value) => (value, None),
            Self::Offset {
                value,
                from,
                to,
                signed,
            } => (value, (from != to).then_some((to, signed))),
        };
        match first.code & 7 {
            _ if first.code == LDDW => {
                let second = rest.first_mut().ok_or(KIND)?;
                (first.imm, second.imm) = (value as u32 as i32, (value >> 32) as u32 as i32);
            }
            class::ALU | class::ALU64 if first.code & SOURCE_REG == 0 => {
                // Enumerators below zero are as good as those above 2^31.
                let narrow = i32::try_from(value as i64).or_else(|_| {
                    let bits = u32::try_from(value);
                    bits.map(|bits| bits as i32)
                });
                first.imm = narrow.map_err(|_| "the value does not fit 32 bits")?;
            }
            class::LDX | class::ST | class::STX => {
                first.off = i16::try_from(value).map_err(|_| "the offset does not fit 16 bits")?;
                match resize {
                    None => {}
                    Some((_, true)) => return Err("a signed field of another size"),
                    Some((size, false)) => {
                        let bits = match size {
                            1 => 0x10,
                            2 => 0x08,
                            4 => 0x00,
                            8 => 0x18,
                            _ => return Err("a field that no load is for"),
                        };
                        first.code = first.code & !0x18 | bits;
                    }
                }
            }
            _ => return Err(KIND),
        }
        Ok(())
    }
}
