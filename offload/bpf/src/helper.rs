//! Helper numbers (`enum bpf_func_id` of Linux's `include/uapi/linux/bpf.h`) and XDP codes.

#![expect(missing_docs, reason = "names of enum bpf_func_id")]

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

/// How many registers from r1 a helper reads; `None` for helpers that are not ours.
pub fn arity(helper: u32) -> Option<usize> {
    Some(match helper {
        KTIME_GET_NS | GET_PRANDOM_U32 | GET_SMP_PROCESSOR_ID => 0,
        MAP_LOOKUP_ELEM | MAP_DELETE_ELEM | REDIRECT | XDP_ADJUST_HEAD | XDP_ADJUST_META
        | XDP_ADJUST_TAIL | MAP_POP_ELEM | MAP_PEEK_ELEM | DASH_HOOK => 2,
        TAIL_CALL | REDIRECT_MAP | MAP_PUSH_ELEM => 3,
        MAP_UPDATE_ELEM => 4,
        CSUM_DIFF => 5,
        _ => return None,
    })
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
