//! One relocatable file taken apart: sections, symbols, relocations, type information. Nothing
//! here trusts the bytes; every index that is kept has been checked.

use object::read::elf::ElfFile64;
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags,
    RelocationTarget, SectionFlags, SymbolFlags, SymbolKind, elf,
};

use super::btf::{Ext, Types};
use super::{BTF, BTF_EXT, LEGACY_MAPS, MAPS, ReadError};

type File<'a> = ElfFile64<'a, LittleEndian>;

/// What is in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Code,
    Maps,
    LegacyMaps,
    /// Global variables that programs may write.
    Data,
    /// Constants.
    Rodata,
    /// Global variables that start as zeros, and take no room in the file.
    Bss,
    License,
    /// Nothing that runs: debug information, versions, tables of the linker.
    Ignored,
    /// Loaded memory of a kind we have nothing for.
    Other,
}

#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) name: &'a str,
    pub(super) content: Content,
    pub(super) align: u64,
    pub(super) size: u64,
    /// `size` bytes; none for [`Content::Bss`].
    pub(super) data: &'a [u8],
    /// In order of offsets.
    pub(super) relocations: Vec<Relocation>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Relocation {
    pub(super) offset: u64,
    pub(super) kind: u32,
    /// Index into [`Unit::symbols`].
    pub(super) symbol: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    Local,
    Weak,
    Strong,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol<'a> {
    pub(super) name: &'a str,
    pub(super) binding: Binding,
    /// Not for the loader: a part of programs.
    pub(super) hidden: bool,
    pub(super) function: bool,
    /// Index into [`Unit::sections`]; `None` when another file defines it.
    pub(super) section: Option<usize>,
    pub(super) value: u64,
    pub(super) size: u64,
}

#[derive(Debug)]
pub(super) struct Unit<'a> {
    pub(super) sections: Vec<Section<'a>>,
    pub(super) symbols: Vec<Symbol<'a>>,
    pub(super) types: Types<'a>,
    pub(super) ext: Ext<'a>,
}

fn damaged(error: object::Error) -> ReadError {
    ReadError::Elf(error.to_string())
}

impl<'a> Unit<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let file = File::parse(bytes).map_err(damaged)?;
        let header = file.elf_header();
        let machine = header.e_machine.get(LittleEndian);
        if machine != elf::EM_BPF || header.e_type.get(LittleEndian) != elf::ET_REL {
            return Err(ReadError::NotBpf);
        }
        // Names are cut out of one table and may overlap: their sum is bounded, not the file's.
        let mut text = bytes.len().saturating_mul(16).saturating_add(1 << 16);
        let mut name = |bytes: &'a [u8]| {
            text = text.checked_sub(bytes.len()).ok_or(ReadError::TooLarge)?;
            std::str::from_utf8(bytes).map_err(|e| ReadError::Elf(e.to_string()))
        };

        let mut sections = Vec::new();
        // Of the file's section numbers, which may skip some, to ours.
        let mut place = vec![None; file.sections().map(|s| s.index().0 + 1).max().unwrap_or(0)];
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags } = section.flags() else {
                continue;
            };
            let name = name(section.name_bytes().map_err(damaged)?)?;
            let content = content(name, sh_flags);
            let (size, data) = (section.size(), section.data().map_err(damaged)?);
            let why = match content {
                Content::Ignored => None,
                Content::Bss => (!data.is_empty()).then_some("holds data"),
                _ => (size != data.len() as u64).then_some("holds no data"),
            };
            if let Some(why) = why {
                let section = name.to_owned();
                return Err(ReadError::Section { section, why });
            }
            place[section.index().0] = Some(sections.len());
            sections.push(Section {
                name,
                content,
                align: section.align().max(1),
                size,
                data,
                relocations: Vec::new(),
            });
        }

        let mut symbols = Vec::new();
        for symbol in file.symbols() {
            // Numbers that the file leaves out, the first one, are filled with a name of nothing.
            while symbols.len() < symbol.index().0 {
                symbols.push(Symbol::none());
            }
            let SymbolFlags::Elf { st_info, st_other } = symbol.flags() else {
                continue;
            };
            let hidden = matches!(st_other & 3, elf::STV_HIDDEN | elf::STV_INTERNAL);
            let section = match symbol.section_index() {
                Some(index) => {
                    let known = place.get(index.0).copied().flatten();
                    Some(known.ok_or_else(|| ReadError::Elf("symbol in no section".to_owned()))?)
                }
                None => None,
            };
            symbols.push(Symbol {
                name: name(symbol.name_bytes().map_err(damaged)?)?,
                binding: match st_info >> 4 {
                    elf::STB_LOCAL => Binding::Local,
                    elf::STB_WEAK => Binding::Weak,
                    _ => Binding::Strong,
                },
                hidden,
                function: symbol.kind() == SymbolKind::Text,
                section,
                value: symbol.address(),
                size: symbol.size(),
            });
        }

        name_functions(&sections, &mut symbols);
        for section in file.sections() {
            let Some(to) = place.get(section.index().0).copied().flatten() else {
                continue;
            };
            if sections[to].content == Content::Ignored {
                continue;
            }
            for (offset, relocation) in section.relocations() {
                let at = |why| ReadError::Place {
                    section: sections[to].name.to_owned(),
                    offset,
                    why,
                };
                let (RelocationTarget::Symbol(symbol), RelocationFlags::Elf { r_type }) =
                    (relocation.target(), relocation.flags())
                else {
                    return Err(at("relocation without a symbol"));
                };
                if symbol.0 >= symbols.len() {
                    return Err(at("relocation to a symbol that is not there"));
                }
                if !relocation.has_implicit_addend() && relocation.addend() != 0 {
                    return Err(at("relocation with an addend of its own"));
                }
                sections[to].relocations.push(Relocation {
                    offset,
                    kind: r_type,
                    symbol: symbol.0,
                });
            }
            sections[to].relocations.sort_by_key(|r| r.offset);
        }

        let bytes_of = |wanted: &str| match file.section_by_name(wanted) {
            Some(section) => section.data().map(Some).map_err(damaged),
            None => Ok(None),
        };
        let types = match bytes_of(BTF)? {
            Some(data) => Types::new(data)?,
            None => Types::default(),
        };
        let ext = match bytes_of(BTF_EXT)? {
            Some(data) => Ext::new(data, &types)?,
            None => Ext::default(),
        };
        Ok(Self {
            sections,
            symbols,
            types,
            ext,
        })
    }

    /// Relocations of a section that lie in this range of bytes.
    pub(super) fn relocations(&self, section: usize, from: u64, to: u64) -> &[Relocation] {
        let all = &self.sections[section].relocations;
        let start = all.partition_point(|r| r.offset < from);
        let end = all.partition_point(|r| r.offset < to);
        all.get(start..end).unwrap_or_default()
    }
}

impl Symbol<'_> {
    fn none() -> Self {
        Self {
            name: "",
            binding: Binding::Local,
            hidden: false,
            function: false,
            section: None,
            value: 0,
            size: 0,
        }
    }
}

/// As libbpf tells sections apart: by name, code by its flag.
/// Old compilers say of no symbol that it is a function, nor how long it is: then those for others are, each
/// up to the next.
fn name_functions(sections: &[Section<'_>], symbols: &mut [Symbol<'_>]) {
    for (index, section) in sections.iter().enumerate() {
        let here = |s: &Symbol<'_>| s.section == Some(index);
        let has_functions = symbols.iter().any(|s| here(s) && s.function);
        if section.content != Content::Code || has_functions {
            continue;
        }
        let named = |s: &Symbol<'_>| here(s) && !s.name.is_empty() && s.binding != Binding::Local;
        let mut starts: Vec<u64> = symbols
            .iter()
            .filter(|s| named(s))
            .map(|s| s.value)
            .collect();
        starts.sort_unstable();
        for symbol in symbols.iter_mut().filter(|s| named(s)) {
            let next = starts.iter().find(|start| **start > symbol.value);
            let end = next.copied().unwrap_or(section.size);
            symbol.function = true;
            symbol.size = end.saturating_sub(symbol.value);
        }
    }
}

fn content(name: &str, flags: u64) -> Content {
    let is = |base: &str| {
        let rest = name.strip_prefix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match name {
        MAPS => Content::Maps,
        LEGACY_MAPS => Content::LegacyMaps,
        "license" => Content::License,
        "version" | ".eh_frame" | ".llvm_addrsig" => Content::Ignored,
        _ if flags & u64::from(elf::SHF_ALLOC) == 0 => Content::Ignored,
        _ if flags & u64::from(elf::SHF_EXECINSTR) != 0 => Content::Code,
        _ if is(".rodata") => Content::Rodata,
        _ if is(".data") => Content::Data,
        _ if is(".bss") => Content::Bss,
        _ => Content::Other,
    }
}
