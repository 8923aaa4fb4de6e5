//! What there is of what Linux gives XDP programs, and why the rest is not there. `dashctl feature probe`
//! prints this. What helpers take and give is [`dash_bpf::helper::PROTOTYPES`]'s to say.

use dash_bpf::helper::{PROTOTYPES, Prototype};
use dash_bpf::{MapKind, helper};

/// Every helper there is, by number.
pub fn helpers() -> impl Iterator<Item = &'static Prototype> {
    PROTOTYPES.iter().filter(|p| super::is_there(p.number))
}

/// The helper of this number, if it is there.
pub fn find(number: u32) -> Option<&'static Prototype> {
    helper::find(number).filter(|p| super::is_there(p.number))
}

/// Why a helper of Linux's is not there.
const REFUSED: &[(u32, &str)] = &[
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
        let (there, note) = map_kind(kind);
        (kind, there, note)
    })
}

/// Whether maps of a kind are there, and what is to know of them.
pub fn map_kind(kind: MapKind) -> (bool, &'static str) {
    match kind {
        MapKind::PerfEventArray => (
            true,
            "64 KiB for each worker, open from the start; readers poll",
        ),
        MapKind::CpuMap => (
            false,
            "a frame stays with the worker that received it: nothing is queued for another",
        ),
        MapKind::Acl => (false, "the pipeline's own classifier, no kind of Linux's"),
        MapKind::RingBuf => (true, "readers poll; finishing a record wakes nobody"),
        MapKind::LpmTrie => (true, "bits behind a prefix's length are kept as zeros"),
        MapKind::ProgArray => (true, "holds programs of its own object"),
        MapKind::DevMap | MapKind::DevMapHash => (
            true,
            "no broadcast: a frame is one buffer and goes one way, so redirect_map aborts; no program per port",
        ),
        MapKind::XskMap => (
            true,
            "numbers that the target gives a meaning; a look-up reads one",
        ),
        MapKind::LruHash | MapKind::LruPercpuHash => (true, "a clock over the whole map"),
        _ => (true, ""),
    }
}
