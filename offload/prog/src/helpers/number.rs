//! Numbers of helpers, beyond those that the pipeline's programs call.

pub(super) use dash_bpf::helper::*;

pub(super) const TRACE_PRINTK: u32 = 6;
pub(super) const FIB_LOOKUP: u32 = 69;
pub(super) const KTIME_GET_BOOT_NS: u32 = 125;
pub(super) const RINGBUF_OUTPUT: u32 = 130;
pub(super) const RINGBUF_RESERVE: u32 = 131;
pub(super) const RINGBUF_SUBMIT: u32 = 132;
pub(super) const RINGBUF_DISCARD: u32 = 133;
pub(super) const RINGBUF_QUERY: u32 = 134;
pub(super) const KTIME_GET_COARSE_NS: u32 = 160;
pub(super) const FOR_EACH_MAP_ELEM: u32 = 164;
pub(super) const LOOP: u32 = 181;
pub(super) const STRNCMP: u32 = 182;
pub(super) const XDP_GET_BUFF_LEN: u32 = 188;
pub(super) const XDP_LOAD_BYTES: u32 = 189;
pub(super) const XDP_STORE_BYTES: u32 = 190;
pub(super) const MAP_LOOKUP_PERCPU_ELEM: u32 = 195;
