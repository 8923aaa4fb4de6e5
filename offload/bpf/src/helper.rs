//! Helper numbers (`enum bpf_func_id` of Linux's `include/uapi/linux/bpf.h`) and XDP codes.

#![expect(missing_docs, reason = "names of enum bpf_func_id")]

mod prototype;

pub use prototype::{Arg, Callback, PROTOTYPES, Prototype, Returns, changes_map, find};
pub use prototype::{PROGRAMS, UPDATE};

pub const MAP_LOOKUP_ELEM: u32 = 1;
pub const MAP_UPDATE_ELEM: u32 = 2;
pub const MAP_DELETE_ELEM: u32 = 3;
pub const KTIME_GET_NS: u32 = 5;
pub const GET_PRANDOM_U32: u32 = 7;
pub const GET_SMP_PROCESSOR_ID: u32 = 8;
pub const TAIL_CALL: u32 = 12;
pub const REDIRECT: u32 = 23;
pub const CSUM_DIFF: u32 = 28;
pub const XDP_ADJUST_HEAD: u32 = 44;
pub const REDIRECT_MAP: u32 = 51;
pub const XDP_ADJUST_META: u32 = 54;
pub const XDP_ADJUST_TAIL: u32 = 65;
pub const MAP_PUSH_ELEM: u32 = 87;
pub const MAP_POP_ELEM: u32 = 88;
pub const MAP_PEEK_ELEM: u32 = 89;
/// Of ours, for the pipeline's programs alone: runs the programs of users that are attached to the
/// packet's ENI and gives their verdict, an `XDP_*` code.
pub const DASH_HOOK: u32 = 250;

pub const TRACE_PRINTK: u32 = 6;
pub const PERF_EVENT_OUTPUT: u32 = 25;
pub const GET_NUMA_NODE_ID: u32 = 42;
pub const FIB_LOOKUP: u32 = 69;
pub const JIFFIES64: u32 = 118;
pub const KTIME_GET_BOOT_NS: u32 = 125;
pub const RINGBUF_OUTPUT: u32 = 130;
pub const RINGBUF_RESERVE: u32 = 131;
pub const RINGBUF_SUBMIT: u32 = 132;
pub const RINGBUF_DISCARD: u32 = 133;
pub const RINGBUF_QUERY: u32 = 134;
pub const KTIME_GET_COARSE_NS: u32 = 160;
pub const FOR_EACH_MAP_ELEM: u32 = 164;
pub const LOOP: u32 = 181;
pub const STRNCMP: u32 = 182;
pub const XDP_GET_BUFF_LEN: u32 = 188;
pub const XDP_LOAD_BYTES: u32 = 189;
pub const XDP_STORE_BYTES: u32 = 190;
pub const MAP_LOOKUP_PERCPU_ELEM: u32 = 195;
pub const KTIME_GET_TAI_NS: u32 = 208;

/// How many registers from r1 a helper reads; `None` for helpers that are not in [`PROTOTYPES`].
pub fn arity(helper: u32) -> Option<usize> {
    find(helper).map(|p| p.args.len())
}

/// Rounds of a `loop`; a call for more fails (`BPF_MAX_LOOPS`).
pub const MAX_ROUNDS: u64 = 1 << 23;

/// How many of those must hold something: `...` may be nothing.
pub fn required(helper: u32) -> Option<usize> {
    find(helper).map(|p| p.args.iter().take_while(|a| **a != Arg::Rest).count())
}

/// Helpers that programs for XDP may call on Linux, by number: what listings call them.
const NAMES: [(u32, &str); 68] = [
    (1, "map_lookup_elem"),
    (2, "map_update_elem"),
    (3, "map_delete_elem"),
    (5, "ktime_get_ns"),
    (6, "trace_printk"),
    (7, "get_prandom_u32"),
    (8, "get_smp_processor_id"),
    (12, "tail_call"),
    (23, "redirect"),
    (25, "perf_event_output"),
    (28, "csum_diff"),
    (42, "get_numa_node_id"),
    (44, "xdp_adjust_head"),
    (51, "redirect_map"),
    (54, "xdp_adjust_meta"),
    (65, "xdp_adjust_tail"),
    (69, "fib_lookup"),
    (84, "sk_lookup_tcp"),
    (85, "sk_lookup_udp"),
    (86, "sk_release"),
    (87, "map_push_elem"),
    (88, "map_pop_elem"),
    (89, "map_peek_elem"),
    (93, "spin_lock"),
    (94, "spin_unlock"),
    (99, "skc_lookup_tcp"),
    (100, "tcp_check_syncookie"),
    (105, "strtol"),
    (106, "strtoul"),
    (110, "tcp_gen_syncookie"),
    (118, "jiffies64"),
    (125, "ktime_get_boot_ns"),
    (130, "ringbuf_output"),
    (131, "ringbuf_reserve"),
    (132, "ringbuf_submit"),
    (133, "ringbuf_discard"),
    (134, "ringbuf_query"),
    (153, "per_cpu_ptr"),
    (154, "this_cpu_ptr"),
    (160, "ktime_get_coarse_ns"),
    (163, "check_mtu"),
    (164, "for_each_map_elem"),
    (165, "snprintf"),
    (169, "timer_init"),
    (170, "timer_set_callback"),
    (171, "timer_start"),
    (172, "timer_cancel"),
    (177, "trace_vprintk"),
    (181, "loop"),
    (182, "strncmp"),
    (188, "xdp_get_buff_len"),
    (189, "xdp_load_bytes"),
    (190, "xdp_store_bytes"),
    (194, "kptr_xchg"),
    (195, "map_lookup_percpu_elem"),
    (197, "dynptr_from_mem"),
    (198, "ringbuf_reserve_dynptr"),
    (199, "ringbuf_submit_dynptr"),
    (200, "ringbuf_discard_dynptr"),
    (201, "dynptr_read"),
    (202, "dynptr_write"),
    (203, "dynptr_data"),
    (204, "tcp_raw_gen_syncookie_ipv4"),
    (205, "tcp_raw_gen_syncookie_ipv6"),
    (206, "tcp_raw_check_syncookie_ipv4"),
    (207, "tcp_raw_check_syncookie_ipv6"),
    (208, "ktime_get_tai_ns"),
    (209, "user_ringbuf_drain"),
];

/// Linux's name of a helper that programs for XDP may call, less `bpf_`.
pub fn name(helper: u32) -> Option<&'static str> {
    let at = NAMES.binary_search_by_key(&helper, |(number, _)| *number);
    at.ok().map(|at| NAMES[at].1)
}

/// `enum xdp_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum XdpAction {
    Aborted = 0,
    Drop = 1,
    Pass = 2,
    Tx = 3,
    Redirect = 4,
}

impl XdpAction {
    /// Anything that is not an action is `Aborted`, as the kernel treats it.
    pub fn from_r0(r0: u32) -> Self {
        match r0 {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            _ => Self::Aborted,
        }
    }
}

/// `struct xdp_md` (32-bit fields; the first three read as full packet pointers).
pub mod xdp_md {
    pub const DATA: i16 = 0;
    pub const DATA_END: i16 = 4;
    pub const DATA_META: i16 = 8;
    pub const INGRESS_IFINDEX: i16 = 12;
    pub const RX_QUEUE_INDEX: i16 = 16;
    pub const EGRESS_IFINDEX: i16 = 20;
    /// Bytes of the whole structure.
    pub const SIZE: i16 = 24;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order_and_agree_on_names() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
        assert!(PROTOTYPES.is_sorted_by(|a, b| a.number < b.number));
        for prototype in &PROTOTYPES {
            // One is ours, and Linux has no name for it.
            if prototype.number != DASH_HOOK {
                assert_eq!(name(prototype.number), Some(prototype.name));
            }
            assert!(prototype.args.len() <= 5);
        }
    }
}
