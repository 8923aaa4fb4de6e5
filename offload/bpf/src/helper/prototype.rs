//! What helpers take and give: one table, read by the verifier, the interpreter and the compiler.
//! Numbers and meanings are Linux's (`bpf-helpers(7)`).
//!
//! Whoever runs programs need not have every helper of this table, but must refuse to load programs
//! that call one it lacks, and those it has must do what the table says of them: the verifier's proof rests
//! on it.

use super::*;
use crate::map::MapKind;

/// What a helper takes in one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number.
    Number,
    /// A number, or nothing at all: arguments that C passes as `...`.
    Rest,
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
    /// Pointer to bytes, written in full whatever the helper returns; the size is in the next register.
    BytesOut,
    /// Pointer to bytes, read and written; the size is in the next register.
    BytesInOut,
    /// Size of the bytes before it.
    Size,
    /// Size of the bytes before it, not 0.
    SizeNotZero,
    /// Pointer to text that ends with a zero byte, in a map that nobody writes.
    Text,
    /// How many bytes of a ring buffer's record: a constant.
    RecordSize,
    /// A record that [`Returns::Record`] gave, where it starts; it is gone afterwards.
    Record,
    /// A function of the program that the helper calls.
    Callback(Callback),
    /// What the function before it is called with: a pointer to the stack, or a number.
    CallbackContext,
}

/// What a function that a helper calls back is given. It returns 0 to go on or 1 to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// The round's number, below the helper's first argument; and the context of the call.
    Round,
    /// The map, pointers to a key and its value, and the context of the call.
    Element,
}

/// What a helper leaves in r0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// A number.
    Number,
    /// Nothing that may be read.
    Nothing,
    /// Pointer to a value of the map in r1, or null. What maps of maps hold are maps.
    Value,
    /// Pointer to a record of a ring buffer, as long as asked for, or null. It must be given back.
    Record,
    /// Nothing when it succeeds: the program is gone.
    TailCall,
}

/// One helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// Its number.
    pub number: u32,
    /// Linux's name, less `bpf_`.
    pub name: &'static str,
    /// From r1 on.
    pub args: &'static [Arg],
    /// In r0.
    pub returns: Returns,
    /// Moves packet bytes: every packet pointer is void afterwards.
    pub moves_packet: bool,
}

const LOOKUP: &[MapKind] = &[
    MapKind::Hash,
    MapKind::Array,
    MapKind::PercpuHash,
    MapKind::PercpuArray,
    MapKind::LruHash,
    MapKind::LruPercpuHash,
    MapKind::LpmTrie,
    MapKind::ArrayOfMaps,
    MapKind::HashOfMaps,
    // Read-only: the port's number, and of a socket the number it has in its map.
    MapKind::DevMap,
    MapKind::DevMapHash,
    MapKind::XskMap,
    MapKind::Acl,
];
/// Kinds whose values programs may write, in place and by helpers.
pub const UPDATE: &[MapKind] = &[
    MapKind::Hash,
    MapKind::Array,
    MapKind::PercpuHash,
    MapKind::PercpuArray,
    MapKind::LruHash,
    MapKind::LruPercpuHash,
    MapKind::LpmTrie,
];
const DELETE: &[MapKind] = &[
    MapKind::Hash,
    MapKind::PercpuHash,
    MapKind::LruHash,
    MapKind::LruPercpuHash,
    MapKind::LpmTrie,
];
const EACH: &[MapKind] = &[
    MapKind::Hash,
    MapKind::Array,
    MapKind::PercpuHash,
    MapKind::PercpuArray,
    MapKind::LruHash,
    MapKind::LruPercpuHash,
];
const PERCPU: &[MapKind] = &[
    MapKind::PercpuHash,
    MapKind::PercpuArray,
    MapKind::LruPercpuHash,
];
const QUEUES: &[MapKind] = &[MapKind::Queue, MapKind::Stack];
const TARGETS: &[MapKind] = &[
    MapKind::DevMap,
    MapKind::DevMapHash,
    MapKind::CpuMap,
    MapKind::XskMap,
];
const EVENTS: &[MapKind] = &[MapKind::PerfEventArray];
const RINGS: &[MapKind] = &[MapKind::RingBuf];
/// Kinds that tail calls go through.
pub const PROGRAMS: &[MapKind] = &[MapKind::ProgArray];

const fn plain(number: u32, name: &'static str, args: &'static [Arg]) -> Prototype {
    Prototype {
        number,
        name,
        args,
        returns: Returns::Number,
        moves_packet: false,
    }
}

const fn giving(
    returns: Returns,
    number: u32,
    name: &'static str,
    args: &'static [Arg],
) -> Prototype {
    Prototype {
        returns,
        ..plain(number, name, args)
    }
}

const fn moving(number: u32, name: &'static str) -> Prototype {
    Prototype {
        moves_packet: true,
        ..plain(number, name, &[Arg::Context, Arg::Number])
    }
}

/// Every helper that can be verified, by number.
pub static PROTOTYPES: [Prototype; 37] = {
    use Arg::*;
    [
        giving(
            Returns::Value,
            MAP_LOOKUP_ELEM,
            "map_lookup_elem",
            &[Map(LOOKUP), Key],
        ),
        plain(
            MAP_UPDATE_ELEM,
            "map_update_elem",
            &[Map(UPDATE), Key, Value, Number],
        ),
        plain(MAP_DELETE_ELEM, "map_delete_elem", &[Map(DELETE), Key]),
        plain(KTIME_GET_NS, "ktime_get_ns", &[]),
        plain(
            TRACE_PRINTK,
            "trace_printk",
            &[Bytes, SizeNotZero, Rest, Rest, Rest],
        ),
        plain(GET_PRANDOM_U32, "get_prandom_u32", &[]),
        plain(GET_SMP_PROCESSOR_ID, "get_smp_processor_id", &[]),
        giving(
            Returns::TailCall,
            TAIL_CALL,
            "tail_call",
            &[Context, Map(PROGRAMS), Number],
        ),
        plain(REDIRECT, "redirect", &[Number, Number]),
        plain(
            PERF_EVENT_OUTPUT,
            "perf_event_output",
            &[Context, Map(EVENTS), Number, Bytes, Size],
        ),
        plain(CSUM_DIFF, "csum_diff", &[Bytes, Size, Bytes, Size, Number]),
        plain(GET_NUMA_NODE_ID, "get_numa_node_id", &[]),
        moving(XDP_ADJUST_HEAD, "xdp_adjust_head"),
        plain(
            REDIRECT_MAP,
            "redirect_map",
            &[Map(TARGETS), Number, Number],
        ),
        moving(XDP_ADJUST_META, "xdp_adjust_meta"),
        moving(XDP_ADJUST_TAIL, "xdp_adjust_tail"),
        plain(
            FIB_LOOKUP,
            "fib_lookup",
            &[Context, BytesInOut, SizeNotZero, Number],
        ),
        plain(
            MAP_PUSH_ELEM,
            "map_push_elem",
            &[Map(QUEUES), Value, Number],
        ),
        plain(MAP_POP_ELEM, "map_pop_elem", &[Map(QUEUES), ValueOut]),
        plain(MAP_PEEK_ELEM, "map_peek_elem", &[Map(QUEUES), ValueOut]),
        plain(JIFFIES64, "jiffies64", &[]),
        plain(KTIME_GET_BOOT_NS, "ktime_get_boot_ns", &[]),
        plain(
            RINGBUF_OUTPUT,
            "ringbuf_output",
            &[Map(RINGS), Bytes, Size, Number],
        ),
        giving(
            Returns::Record,
            RINGBUF_RESERVE,
            "ringbuf_reserve",
            &[Map(RINGS), RecordSize, Number],
        ),
        giving(
            Returns::Nothing,
            RINGBUF_SUBMIT,
            "ringbuf_submit",
            &[Record, Number],
        ),
        giving(
            Returns::Nothing,
            RINGBUF_DISCARD,
            "ringbuf_discard",
            &[Record, Number],
        ),
        plain(RINGBUF_QUERY, "ringbuf_query", &[Map(RINGS), Number]),
        plain(KTIME_GET_COARSE_NS, "ktime_get_coarse_ns", &[]),
        plain(
            FOR_EACH_MAP_ELEM,
            "for_each_map_elem",
            &[
                Map(EACH),
                Callback(self::Callback::Element),
                CallbackContext,
                Number,
            ],
        ),
        plain(
            LOOP,
            "loop",
            &[
                Number,
                Callback(self::Callback::Round),
                CallbackContext,
                Number,
            ],
        ),
        plain(STRNCMP, "strncmp", &[Bytes, SizeNotZero, Text]),
        plain(XDP_GET_BUFF_LEN, "xdp_get_buff_len", &[Context]),
        plain(
            XDP_LOAD_BYTES,
            "xdp_load_bytes",
            &[Context, Number, BytesOut, SizeNotZero],
        ),
        plain(
            XDP_STORE_BYTES,
            "xdp_store_bytes",
            &[Context, Number, Bytes, SizeNotZero],
        ),
        giving(
            Returns::Value,
            MAP_LOOKUP_PERCPU_ELEM,
            "map_lookup_percpu_elem",
            &[Map(PERCPU), Key, Number],
        ),
        plain(KTIME_GET_TAI_NS, "ktime_get_tai_ns", &[]),
        // Programs of users move packets as they like.
        moving(DASH_HOOK, "dash_hook"),
    ]
};

/// The helper of this number.
pub fn find(number: u32) -> Option<&'static Prototype> {
    let at = PROTOTYPES.binary_search_by_key(&number, |p| p.number);
    at.ok().map(|at| &PROTOTYPES[at])
}

/// Whether the helper changes what is in the map it is given.
pub fn changes_map(number: u32) -> bool {
    matches!(
        number,
        MAP_UPDATE_ELEM | MAP_DELETE_ELEM | MAP_PUSH_ELEM | MAP_POP_ELEM
    )
}
