//! The helpers programs may call: one table, read by our own rules and turned into PREVAIL's
//! prototypes. Numbers and meanings are Linux's (`bpf-helpers(7)`).

use dash_bpf::helper;
use dash_bpf::{MapDef, MapKind};
use prevail::linux::spec_prototypes::HelperPrototype;
use prevail::spec::ebpf_base::{EbpfArgumentType, EbpfReturnType};

/// What a helper takes in one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arg {
    /// A number.
    Number,
    /// The context, unmoved.
    Context,
    /// A map of one of these kinds.
    Map(&'static [MapKind]),
    /// Pointer to a key of the map before it, read.
    Key,
    /// Pointer to a value of the map before it, read.
    Value,
    /// Pointer to a value of the map before it, written in full whatever the helper returns.
    ValueOut,
    /// Pointer to bytes, read; the size is in the next register. Null when that is 0.
    Bytes,
    /// Size of the [`Arg::Bytes`] before it.
    Size,
}

/// What a helper leaves in r0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Returns {
    Number,
    /// Pointer to a value of the map in r1, or null.
    Value,
    /// Nothing when it succeeds: the program is gone.
    TailCall,
}

/// One helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Helper {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) args: &'static [Arg],
    pub(crate) returns: Returns,
    /// Moves packet bytes: every packet pointer is void afterwards.
    pub(crate) moves_packet: bool,
}

const LOOKUP: &[MapKind] = &[
    MapKind::Hash,
    MapKind::Array,
    MapKind::PercpuHash,
    MapKind::PercpuArray,
    MapKind::LruHash,
    MapKind::LpmTrie,
    MapKind::Acl,
];
const UPDATE: &[MapKind] = &[
    MapKind::Hash,
    MapKind::Array,
    MapKind::PercpuHash,
    MapKind::PercpuArray,
    MapKind::LruHash,
];
const DELETE: &[MapKind] = &[MapKind::Hash, MapKind::PercpuHash, MapKind::LruHash];
const QUEUES: &[MapKind] = &[MapKind::Queue, MapKind::Stack];
const REDIRECT: &[MapKind] = &[MapKind::DevMap, MapKind::XskMap];
const PROGRAMS: &[MapKind] = &[MapKind::ProgArray];

const fn plain(number: u32, name: &'static str, args: &'static [Arg]) -> Helper {
    Helper {
        number,
        name,
        args,
        returns: Returns::Number,
        moves_packet: false,
    }
}

const fn moving(number: u32, name: &'static str) -> Helper {
    let args = &[Arg::Context, Arg::Number];
    Helper {
        number,
        name,
        args,
        returns: Returns::Number,
        moves_packet: true,
    }
}

/// Every helper there is.
pub(crate) static HELPERS: [Helper; 17] = [
    Helper {
        number: helper::MAP_LOOKUP_ELEM,
        name: "map_lookup_elem",
        args: &[Arg::Map(LOOKUP), Arg::Key],
        returns: Returns::Value,
        moves_packet: false,
    },
    plain(
        helper::MAP_UPDATE_ELEM,
        "map_update_elem",
        &[Arg::Map(UPDATE), Arg::Key, Arg::Value, Arg::Number],
    ),
    plain(
        helper::MAP_DELETE_ELEM,
        "map_delete_elem",
        &[Arg::Map(DELETE), Arg::Key],
    ),
    plain(helper::KTIME_GET_NS, "ktime_get_ns", &[]),
    plain(helper::GET_PRANDOM_U32, "get_prandom_u32", &[]),
    plain(helper::GET_SMP_PROCESSOR_ID, "get_smp_processor_id", &[]),
    Helper {
        number: helper::TAIL_CALL,
        name: "tail_call",
        args: &[Arg::Context, Arg::Map(PROGRAMS), Arg::Number],
        returns: Returns::TailCall,
        moves_packet: false,
    },
    plain(helper::REDIRECT, "redirect", &[Arg::Number, Arg::Number]),
    plain(
        helper::CSUM_DIFF,
        "csum_diff",
        &[Arg::Bytes, Arg::Size, Arg::Bytes, Arg::Size, Arg::Number],
    ),
    moving(helper::XDP_ADJUST_HEAD, "xdp_adjust_head"),
    plain(
        helper::REDIRECT_MAP,
        "redirect_map",
        &[Arg::Map(REDIRECT), Arg::Number, Arg::Number],
    ),
    moving(helper::XDP_ADJUST_META, "xdp_adjust_meta"),
    moving(helper::XDP_ADJUST_TAIL, "xdp_adjust_tail"),
    plain(
        helper::MAP_PUSH_ELEM,
        "map_push_elem",
        &[Arg::Map(QUEUES), Arg::Value, Arg::Number],
    ),
    plain(
        helper::MAP_POP_ELEM,
        "map_pop_elem",
        &[Arg::Map(QUEUES), Arg::ValueOut],
    ),
    plain(
        helper::MAP_PEEK_ELEM,
        "map_peek_elem",
        &[Arg::Map(QUEUES), Arg::ValueOut],
    ),
    // Programs of users move packets as they like.
    moving(helper::DASH_HOOK, "dash_hook"),
];

/// The helper of this number.
pub(crate) fn find(number: u32) -> Option<&'static Helper> {
    HELPERS.iter().find(|h| h.number == number)
}

/// Whether programs may write values of this map in place.
pub(crate) fn is_writable(map: &MapDef) -> bool {
    UPDATE.contains(&map.kind) && !map.read_only()
}

/// Whether the helper changes what is in the map it is given.
pub(crate) fn changes_map(number: u32) -> bool {
    matches!(
        number,
        helper::MAP_UPDATE_ELEM
            | helper::MAP_DELETE_ELEM
            | helper::MAP_PUSH_ELEM
            | helper::MAP_POP_ELEM
    )
}

/// Map kinds as PREVAIL sees them: its masks of kinds have 64 bits, ours beyond Linux's takes the
/// last.
pub(crate) fn kind_number(kind: MapKind) -> u32 {
    kind.linux().unwrap_or(63)
}

impl Helper {
    /// PREVAIL's form.
    pub(crate) fn prototype(&self) -> HelperPrototype {
        let mut argument_type = [EbpfArgumentType::DontCare; 5];
        let mut allowed_map_types = 0;
        for (to, arg) in argument_type.iter_mut().zip(self.args) {
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
            };
        }
        HelperPrototype {
            name: self.name,
            return_type: match self.returns {
                Returns::Number => EbpfReturnType::Integer,
                Returns::Value => EbpfReturnType::PtrToMapValueOrNull,
                Returns::TailCall => EbpfReturnType::IntegerOrNoReturnIfSucceed,
            },
            argument_type,
            reallocate_packet: self.moves_packet,
            ctx_descriptor: None,
            unsupported: false,
            might_sleep: false,
            zero_args_mask: 0,
            allowed_map_types,
        }
    }
}
