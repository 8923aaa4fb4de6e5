//! PREVAIL's view of our machine: helpers, maps, context.

use dash_bpf::helper::{PROTOTYPES, xdp_md};
use dash_bpf::{MapDef, MapKind};
use prevail::elf_loader::UnmarshalError;
use prevail::linux::linux_platform::conformance_groups;
use prevail::linux::spec_prototypes::HelperPrototype;
use prevail::platform::EbpfPlatform;
use prevail::spec::config::EbpfVerifierOptions;
use prevail::spec::ebpf_base::EbpfCtxDescriptor;
use prevail::spec::type_descriptors::{
    EbpfMapDescriptor, EbpfMapType, EbpfMapValueType, EbpfProgramType, ProgramInfo,
};

use crate::helpers::{kind_number, plain, prevails};

/// `BPF_PROG_TYPE_XDP`.
const PROG_TYPE_XDP: u64 = 6;

/// `struct xdp_md`.
static XDP: EbpfCtxDescriptor = EbpfCtxDescriptor {
    size: xdp_md::SIZE as i32,
    data: xdp_md::DATA as i32,
    end: xdp_md::DATA_END as i32,
    meta: xdp_md::DATA_META as i32,
};

/// Instruction groups accepted: all but legacy packet access, which XDP never had.
const GROUPS: u32 = conformance_groups::DEFAULT_GROUPS | conformance_groups::CALLX;

/// Number of a map where PREVAIL wants a file descriptor: 0 is its null.
pub(crate) fn map_fd(index: u32) -> u32 {
    index + 1
}

/// Our machine for one object's maps.
pub(crate) struct Platform {
    maps: Vec<EbpfMapDescriptor>,
    prototypes: Vec<(u32, HelperPrototype)>,
    unknown: HelperPrototype,
}

impl Platform {
    pub(crate) fn new(maps: &[MapDef]) -> Self {
        let maps = maps
            .iter()
            .zip(0..)
            .map(|(map, index)| EbpfMapDescriptor {
                original_fd: map_fd(index) as i32,
                map_type: kind_number(map.kind),
                key_size: map.key_size,
                value_size: map.value_size,
                max_entries: map.max_entries,
                inner_map_fd: -1,
                name: map.name.clone(),
                is_inner_map_template: false,
            })
            .collect();
        let mut unknown = prevails(&PROTOTYPES[0]);
        unknown.unsupported = true;
        Self {
            maps,
            prototypes: plain().map(|h| (h.number, prevails(h))).collect(),
            unknown,
        }
    }

    pub(crate) fn program_info(&self) -> ProgramInfo {
        ProgramInfo {
            map_descriptors: self.maps.clone(),
            program_type: self.get_program_type("xdp", ""),
            supported_conformance_groups: GROUPS,
            ..ProgramInfo::default()
        }
    }
}

impl EbpfPlatform for Platform {
    fn get_program_type(&self, _: &str, _: &str) -> EbpfProgramType {
        EbpfProgramType {
            name: "xdp".to_owned(),
            ctx_descriptor: Some(&XDP),
            platform_specific_data: PROG_TYPE_XDP,
            section_prefixes: vec!["xdp".to_owned()],
            is_privileged: false,
            is_sleepable: false,
        }
    }

    /// PREVAIL asks `is_helper_usable` first; the trait wants a reference all the same.
    fn get_helper_prototype(&self, n: i32) -> &HelperPrototype {
        self.try_get_helper_prototype(n).unwrap_or(&self.unknown)
    }

    fn try_get_helper_prototype(&self, n: i32) -> Option<&HelperPrototype> {
        let n = u32::try_from(n).ok()?;
        self.prototypes
            .iter()
            .find(|(number, _)| *number == n)
            .map(|(_, p)| p)
    }

    fn is_helper_usable(&self, n: i32) -> bool {
        self.try_get_helper_prototype(n).is_some()
    }

    fn map_record_size(&self) -> usize {
        0
    }

    /// Maps come from the object, not from an ELF section.
    fn parse_maps_section(
        &mut self,
        _: &mut Vec<EbpfMapDescriptor>,
        _: &[u8],
        _: usize,
        _: usize,
        _: &EbpfVerifierOptions,
    ) {
    }

    fn resolve_inner_map_references(
        &self,
        _: &mut Vec<EbpfMapDescriptor>,
    ) -> Result<(), UnmarshalError> {
        Ok(())
    }

    fn get_map_descriptor(&self, map_fd: i32) -> Option<&EbpfMapDescriptor> {
        self.maps.iter().find(|m| m.original_fd == map_fd)
    }

    fn get_map_type(&self, number: u32) -> EbpfMapType {
        let is = |kind| number == kind_number(kind);
        EbpfMapType {
            platform_specific_type: number,
            name: format!("map type {number}"),
            is_array: is(MapKind::Array) || is(MapKind::PercpuArray) || is(MapKind::ProgArray),
            value_type: if is(MapKind::ProgArray) {
                EbpfMapValueType::Program
            } else {
                EbpfMapValueType::Any
            },
        }
    }

    fn supported_conformance_groups(&self) -> u32 {
        GROUPS
    }
}
