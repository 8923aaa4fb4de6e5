//! Prototypes of the helpers there are, and every other one that Linux gives XDP programs, with why it is
//! refused. `dashctl feature probe` prints this.

use dash_bpf::{MapKind, helper};

use super::number as nr;

/// What a helper takes in one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A number.
    Number,
    /// The context.
    Context,
    /// A map.
    Map,
    /// Pointer to a key of the map before it, read.
    Key,
    /// Pointer to a value of the map before it, read.
    Value,
    /// Pointer to a value of the map before it, written.
    ValueOut,
    /// Pointer to bytes, read; the next argument is their number. Null when that is 0.
    Read,
    /// Pointer to bytes, written; the next argument is their number.
    Write,
    /// Pointer to bytes, read and written; the next argument is their number.
    Change,
    /// Number of the bytes of the argument before it.
    Size,
    /// Pointer to a string that ends with NUL, in memory programs cannot write.
    Text,
    /// A record of a ring buffer that was reserved, which ends by it.
    Record,
}

/// What a helper leaves in r0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// A number.
    Number,
    /// Pointer to a value of the map in r1, or to a map, or null.
    Value,
    /// Pointer to as many bytes of a ring buffer as r2 says, or null.
    Record,
    /// Nothing when it succeeds: another program goes on.
    TailCall,
}

/// A helper that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Linux's number (`enum bpf_func_id`).
    pub number: u32,
    /// What it takes in r1 and on.
    pub args: &'static [Arg],
    /// What it gives.
    pub returns: Returns,
}

impl Helper {
    /// Linux's name, less `bpf_`.
    pub fn name(&self) -> &'static str {
        helper::name(self.number).unwrap_or("?")
    }
}

const fn plain(number: u32, args: &'static [Arg]) -> Helper {
    Helper {
        number,
        args,
        returns: Returns::Number,
    }
}

use Arg::{Change, Context, Key, Map, Number, Read, Record, Size, Text, Value, ValueOut, Write};

/// Every helper there is, by number.
pub static HELPERS: [Helper; 30] = [
    Helper {
        number: nr::MAP_LOOKUP_ELEM,
        args: &[Map, Key],
        returns: Returns::Value,
    },
    plain(nr::MAP_UPDATE_ELEM, &[Map, Key, Value, Number]),
    plain(nr::MAP_DELETE_ELEM, &[Map, Key]),
    plain(nr::KTIME_GET_NS, &[]),
    plain(nr::TRACE_PRINTK, &[Read, Size, Number, Number, Number]),
    plain(nr::GET_PRANDOM_U32, &[]),
    plain(nr::GET_SMP_PROCESSOR_ID, &[]),
    Helper {
        number: nr::TAIL_CALL,
        args: &[Context, Map, Number],
        returns: Returns::TailCall,
    },
    plain(nr::REDIRECT, &[Number, Number]),
    plain(nr::CSUM_DIFF, &[Read, Size, Read, Size, Number]),
    plain(nr::XDP_ADJUST_HEAD, &[Context, Number]),
    plain(nr::REDIRECT_MAP, &[Map, Number, Number]),
    plain(nr::XDP_ADJUST_META, &[Context, Number]),
    plain(nr::XDP_ADJUST_TAIL, &[Context, Number]),
    plain(nr::FIB_LOOKUP, &[Context, Change, Size, Number]),
    plain(nr::MAP_PUSH_ELEM, &[Map, Value, Number]),
    plain(nr::MAP_POP_ELEM, &[Map, ValueOut]),
    plain(nr::MAP_PEEK_ELEM, &[Map, ValueOut]),
    plain(nr::KTIME_GET_BOOT_NS, &[]),
    plain(nr::RINGBUF_OUTPUT, &[Map, Read, Size, Number]),
    Helper {
        number: nr::RINGBUF_RESERVE,
        args: &[Map, Number, Number],
        returns: Returns::Record,
    },
    plain(nr::RINGBUF_SUBMIT, &[Record, Number]),
    plain(nr::RINGBUF_DISCARD, &[Record, Number]),
    plain(nr::RINGBUF_QUERY, &[Map, Number]),
    plain(nr::KTIME_GET_COARSE_NS, &[]),
    plain(nr::STRNCMP, &[Read, Size, Text]),
    plain(nr::XDP_GET_BUFF_LEN, &[Context]),
    plain(nr::XDP_LOAD_BYTES, &[Context, Number, Write, Size]),
    plain(nr::XDP_STORE_BYTES, &[Context, Number, Read, Size]),
    Helper {
        number: nr::MAP_LOOKUP_PERCPU_ELEM,
        args: &[Map, Key, Number],
        returns: Returns::Value,
    },
];

/// The helper of this number.
pub fn find(number: u32) -> Option<&'static Helper> {
    HELPERS.iter().find(|helper| helper.number == number)
}

/// Why a helper of Linux's is not there.
const REFUSED: &[(u32, &str)] = &[
    (
        nr::LOOP,
        "callbacks are not compiled yet; loops with a bound are",
    ),
    (nr::FOR_EACH_MAP_ELEM, "callbacks are not compiled yet"),
    (
        25,
        "perf event arrays: ring buffers do the same without copies per CPU",
    ),
    (42, "no memory nodes are shown to programs"),
    (118, "there are no jiffies: ktime_get_ns"),
    (208, "packets carry one clock: ktime_get_ns"),
    (163, "ports say their MTU by fib_lookup"),
    (
        165,
        "trace_printk and ring buffers carry what it would print",
    ),
    (177, "trace_printk takes up to three arguments"),
    (105, "not needed on packets"),
    (106, "not needed on packets"),
    (153, "values per CPU are maps: map_lookup_percpu_elem"),
    (154, "values per CPU are maps: map_lookup_elem"),
    (209, "programs take no messages from outside but by maps"),
    (194, "there are no objects of a kernel to keep"),
];

/// Why groups of Linux's helpers are not there.
fn group(name: &str) -> &'static str {
    if name.starts_with("sk") || name.contains("syncookie") {
        "there is no kernel's socket to find"
    } else if name.contains("dynptr") {
        "dynamic pointers are not proven yet"
    } else if name.contains("spin") {
        "a worker must not wait for another: values are atomic by word"
    } else if name.starts_with("timer") {
        "programs run on packets only"
    } else {
        "not there"
    }
}

/// Helpers of Linux's XDP programs that are not there: number, name, why.
pub fn refused() -> impl Iterator<Item = (u32, &'static str, &'static str)> {
    (0..=u32::from(u8::MAX))
        .filter(|&number| find(number).is_none())
        .filter_map(|number| {
            let name = helper::name(number)?;
            let why = REFUSED.iter().find(|(of, _)| *of == number);
            Some((
                number,
                name,
                why.map_or_else(|| group(name), |(_, why)| why),
            ))
        })
}

/// Kinds of maps, whether they are there, and what is to know of them.
pub fn map_kinds() -> impl Iterator<Item = (MapKind, bool, &'static str)> {
    MapKind::ALL.into_iter().map(|kind| {
        let (there, note) = match kind {
            MapKind::PerfEventArray => (false, "ring buffers instead"),
            MapKind::CpuMap => (false, "a frame stays with its worker"),
            MapKind::DevMapHash => (false, "device maps by index"),
            MapKind::Acl => (false, "the pipeline's own"),
            MapKind::RingBuf => (true, "readers poll; finishing a record wakes nobody"),
            MapKind::LpmTrie => (true, "bits behind a prefix's length are kept as zeros"),
            MapKind::ProgArray => (true, "holds programs of its own object"),
            MapKind::DevMap => (true, "no broadcast, no program per port"),
            MapKind::XskMap => (true, "numbers that the target gives a meaning"),
            MapKind::LruHash | MapKind::LruPercpuHash => (true, "a clock over the whole map"),
            _ => (true, ""),
        };
        (kind, there, note)
    })
}
