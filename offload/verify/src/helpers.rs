//! Helpers as the judges see them.

use dash_bpf::helper::{Arg, PROGRAMS, PROTOTYPES, Prototype, Returns, UPDATE};
use dash_bpf::{MapDef, MapKind};
use prevail::linux::spec_prototypes::HelperPrototype;
use prevail::spec::ebpf_base::{EbpfArgumentType, EbpfReturnType};

/// Whether programs may write values of this map in place.
pub(crate) fn is_writable(map: &MapDef) -> bool {
    UPDATE.contains(&map.kind) && map.kind != MapKind::LpmTrie && !map.read_only()
}

/// Helpers that the rules before PREVAIL, and PREVAIL, know about.
pub(crate) fn plain() -> impl Iterator<Item = &'static Prototype> {
    PROTOTYPES.iter().filter(|p| is_plain(p))
}

/// The helper of this number, if PREVAIL may be asked about it.
pub(crate) fn find_plain(number: u32) -> Option<&'static Prototype> {
    dash_bpf::helper::find(number).filter(|p| is_plain(p))
}

fn is_plain(prototype: &Prototype) -> bool {
    let arg = |arg: &Arg| {
        matches!(
            arg,
            Arg::Number
                | Arg::Context
                | Arg::Map(_)
                | Arg::Key
                | Arg::Value
                | Arg::ValueOut
                | Arg::Bytes
                | Arg::Size
        )
    };
    let returns = matches!(
        prototype.returns,
        Returns::Number | Returns::Value | Returns::TailCall
    );
    returns && prototype.args.iter().all(arg)
}

/// Map kinds as PREVAIL sees them: its masks of kinds have 64 bits, ours beyond Linux's takes the
/// last.
pub(crate) fn kind_number(kind: MapKind) -> u32 {
    kind.linux().unwrap_or(63)
}

/// PREVAIL's form of a [plain](plain) helper.
pub(crate) fn prevails(helper: &Prototype) -> HelperPrototype {
    let mut argument_type = [EbpfArgumentType::DontCare; 5];
    let mut allowed_map_types = 0;
    for (to, arg) in argument_type.iter_mut().zip(helper.args) {
        *to = match arg {
            Arg::Number => EbpfArgumentType::Anything,
            Arg::Context => EbpfArgumentType::PtrToCtx,
            Arg::Map(kinds) if *kinds == PROGRAMS => EbpfArgumentType::PtrToMapOfPrograms,
            Arg::Map(kinds) => {
                for kind in *kinds {
                    allowed_map_types |= 1 << kind_number(*kind);
                }
                EbpfArgumentType::PtrToMap
            }
            Arg::Key => EbpfArgumentType::PtrToMapKey,
            Arg::Value | Arg::ValueOut => EbpfArgumentType::PtrToMapValue,
            Arg::Bytes => EbpfArgumentType::PtrToReadableMemOrNull,
            Arg::Size => EbpfArgumentType::ConstSizeOrZero,
            _ => EbpfArgumentType::Unsupported,
        };
    }
    HelperPrototype {
        name: helper.name,
        return_type: match helper.returns {
            Returns::Number => EbpfReturnType::Integer,
            Returns::Value => EbpfReturnType::PtrToMapValueOrNull,
            Returns::TailCall => EbpfReturnType::IntegerOrNoReturnIfSucceed,
            Returns::Nothing | Returns::Record => EbpfReturnType::Unsupported,
        },
        argument_type,
        reallocate_packet: helper.moves_packet,
        ctx_descriptor: None,
        unsupported: false,
        might_sleep: false,
        zero_args_mask: 0,
        allowed_map_types,
    }
}
