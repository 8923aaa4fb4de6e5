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

/// How many registers from r1 a helper reads; `None` for helpers that are not ours.
pub fn arity(helper: u32) -> Option<usize> {
    Some(match helper {
        KTIME_GET_NS | GET_PRANDOM_U32 | GET_SMP_PROCESSOR_ID => 0,
        MAP_LOOKUP_ELEM | MAP_DELETE_ELEM | REDIRECT | XDP_ADJUST_HEAD | XDP_ADJUST_META
        | XDP_ADJUST_TAIL | MAP_POP_ELEM | MAP_PEEK_ELEM => 2,
        TAIL_CALL | REDIRECT_MAP | MAP_PUSH_ELEM => 3,
        MAP_UPDATE_ELEM => 4,
        CSUM_DIFF => 5,
        _ => return None,
    })
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
