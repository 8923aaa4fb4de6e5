//! Helpers as compiled code calls them, by Linux's numbers and with Linux's meanings.
//!
//! The functions trust their arguments as the kernel's do: the verifier proved them. The
//! interpreter checks arguments itself and then calls the same functions.

use std::ffi::c_void;

use dash_bpf::helper as nr;
use dash_bpf::helper::XdpAction;
use dash_wire::abi::{HELPER_SLOTS, HelperFn, MapHandle, RunCtx};
use dash_wire::hook::Place;
use dash_wire::tables::{Direction, Meta};
use nic_target::Table;

use crate::generation::Generation;
use crate::tables::errno;

/// Least Ethernet frame that `adjust_head` and `adjust_tail` leave (`ETH_HLEN`).
const ETH_HLEN: usize = 14;
/// Most metadata in front of a packet: what `skb_shared_info` spares (`xdp_metalen_invalid`).
const MOST_META: usize = 252;

/// State of helpers of one worker: what `RunCtx::worker` points to.
#[derive(Debug)]
pub(crate) struct HelperState {
    random: u64,
    /// What the core is bound to; null before it is.
    generation: *const Generation,
    /// A program of users ended the way of the packet of this run.
    ended: bool,
}

impl HelperState {
    /// `bpf_get_prandom_u32` starts from the worker's number, so replays repeat.
    pub(crate) fn new(cpu: u32) -> Self {
        Self {
            random: 0x9e37_79b9_7f4a_7c15 ^ u64::from(cpu) << 32,
            generation: std::ptr::null(),
            ended: false,
        }
    }

    /// The core is bound to this generation, and will not run before it is bound to the next when
    /// this one is gone.
    pub(crate) fn bind(&mut self, generation: &Generation) {
        self.generation = generation;
    }

    /// Whether a program of users ended the way of a packet since this was asked last.
    pub(crate) fn ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    pub(crate) fn address(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    /// xorshift64* (Marsaglia 2003; Vigna 2016).
    fn next(&mut self) -> u32 {
        let mut x = self.random;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random = x;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

/// The table for `RunCtx::helpers`, of helpers that the pipeline's programs call. All but
/// `get_prandom_u32`, which wants our own state behind `RunCtx::worker`, need nothing but the context and what
/// they are given: whoever runs programs with more helpers starts from these.
pub static HELPERS: [HelperFn; HELPER_SLOTS] = {
    let mut table: [HelperFn; HELPER_SLOTS] = [unknown; HELPER_SLOTS];
    table[nr::MAP_LOOKUP_ELEM as usize] = map_lookup;
    table[nr::MAP_UPDATE_ELEM as usize] = map_update;
    table[nr::MAP_DELETE_ELEM as usize] = map_delete;
    table[nr::MAP_PUSH_ELEM as usize] = map_push;
    table[nr::MAP_POP_ELEM as usize] = map_pop;
    table[nr::MAP_PEEK_ELEM as usize] = map_peek;
    table[nr::KTIME_GET_NS as usize] = ktime_get_ns;
    table[nr::GET_PRANDOM_U32 as usize] = get_prandom_u32;
    table[nr::GET_SMP_PROCESSOR_ID as usize] = get_smp_processor_id;
    table[nr::REDIRECT as usize] = redirect;
    table[nr::CSUM_DIFF as usize] = csum_diff;
    table[nr::XDP_ADJUST_HEAD as usize] = adjust_head;
    table[nr::XDP_ADJUST_META as usize] = adjust_meta;
    table[nr::XDP_ADJUST_TAIL as usize] = adjust_tail;
    // TAIL_CALL is compiled away; REDIRECT_MAP has no device maps to look in.
    table
};

/// The same with the one that only the pipeline may call.
pub(crate) static PIPELINE_HELPERS: [HelperFn; HELPER_SLOTS] = {
    let mut table = HELPERS;
    table[nr::DASH_HOOK as usize] = dash_hook;
    table
};

/// A map by the address a program holds.
fn handle(map: u64) -> *const MapHandle {
    std::ptr::with_exposed_provenance(map as usize)
}

fn bytes(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

unsafe extern "C" fn unknown(_: *mut RunCtx, _: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    errno::EINVAL as u64
}

unsafe extern "C" fn map_lookup(_: *mut RunCtx, map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    let map = handle(map);
    // SAFETY: a live map and a readable key, by the verifier's proof of the caller.
    unsafe { ((*map).lookup)(map, bytes(key)) }.expose_provenance() as u64
}

unsafe extern "C" fn map_update(
    _: *mut RunCtx,
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
    _: u64,
) -> u64 {
    let map = handle(map);
    // SAFETY: as in `map_lookup`, and a readable value.
    unsafe { ((*map).update)(map, bytes(key), bytes(value), flags) as u64 }
}

unsafe extern "C" fn map_delete(_: *mut RunCtx, map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    let map = handle(map);
    // SAFETY: as in `map_lookup`.
    unsafe { ((*map).delete)(map, bytes(key)) as u64 }
}

unsafe extern "C" fn map_push(
    _: *mut RunCtx,
    map: u64,
    value: u64,
    flags: u64,
    _: u64,
    _: u64,
) -> u64 {
    let map = handle(map);
    // SAFETY: a live map and a readable value, by the verifier's proof.
    unsafe { ((*map).push)(map, bytes(value), flags) as u64 }
}

unsafe extern "C" fn map_pop(_: *mut RunCtx, map: u64, value: u64, _: u64, _: u64, _: u64) -> u64 {
    let map = handle(map);
    // SAFETY: a live map and a writable value, by the verifier's proof.
    unsafe { ((*map).pop)(map, bytes(value)) as u64 }
}

unsafe extern "C" fn map_peek(_: *mut RunCtx, map: u64, value: u64, _: u64, _: u64, _: u64) -> u64 {
    let map = handle(map);
    // SAFETY: as in `map_pop`.
    unsafe { ((*map).peek)(map, bytes(value)) as u64 }
}

unsafe extern "C" fn ktime_get_ns(ctx: *mut RunCtx, _: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: the context of the run.
    unsafe { (*ctx).now_ns }
}

unsafe extern "C" fn get_prandom_u32(
    ctx: *mut RunCtx,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: `worker` is the `HelperState` of the thread that runs this.
    u64::from(unsafe { (*(*ctx).worker.cast::<HelperState>()).next() })
}

unsafe extern "C" fn get_smp_processor_id(
    ctx: *mut RunCtx,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: the context of the run.
    u64::from(unsafe { (*ctx).cpu })
}

unsafe extern "C" fn redirect(
    ctx: *mut RunCtx,
    ifindex: u64,
    flags: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    if flags != 0 {
        return XdpAction::Aborted as u64;
    }
    // SAFETY: the context of the run.
    unsafe { (*ctx).redirect_ifindex = ifindex as u32 };
    XdpAction::Redirect as u64
}

unsafe extern "C" fn dash_hook(ctx: *mut RunCtx, _: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // SAFETY: `worker` is the `HelperState` of the thread that runs this, and its generation is the
    // one that the core is bound to, which is borrowed while programs run.
    let generation = unsafe { (*(*ctx).worker.cast::<HelperState>()).generation.as_ref() };
    let Some(generation) = generation else {
        return XdpAction::Pass as u64;
    };
    // SAFETY: `arrays` has an entry for every table, and that of `meta` is the packet's row.
    let meta = unsafe { &*(*(*ctx).arrays.add(Table::Meta.index() as usize)).cast::<Meta>() };
    let place = match meta.direction == Direction::Outbound as u8 {
        true => Place::EniOutbound,
        false => Place::EniInbound,
    };
    let about = generation.about(meta, place);
    // SAFETY: the context of the run, whose packet is borrowed for it; the worker holds no reference
    // to it meanwhile, and its number is this thread's alone.
    let action = unsafe { generation.hooks().of_eni(&mut *ctx, &about) };
    if action != XdpAction::Pass {
        // SAFETY: as above.
        unsafe { (*(*ctx).worker.cast::<HelperState>()).ended = true };
    }
    action as u64
}

/// Moves a packet border by a signed 32-bit delta, `None` on overflow.
fn moved(address: usize, delta: u64) -> Option<usize> {
    address.checked_add_signed(delta as i32 as isize)
}

unsafe extern "C" fn adjust_head(
    ctx: *mut RunCtx,
    _: u64,
    delta: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: the context of the run; the worker holds no reference to it meanwhile.
    let ctx = unsafe { &mut *ctx };
    let meta = ctx.data.addr() - ctx.data_meta.addr();
    let fits = moved(ctx.data.addr(), delta).filter(|&data| {
        let least = ctx.frame_start.addr() + meta;
        data >= least
            && data
                .checked_add(ETH_HLEN)
                .is_some_and(|end| end <= ctx.data_end.addr())
    });
    let Some(data) = fits else {
        return errno::EINVAL as u64;
    };
    let data = ctx.frame_start.with_addr(data);
    let to = ctx.frame_start.with_addr(data.addr() - meta);
    // SAFETY: both ranges are inside the frame: the old one is the metadata, the new one begins at
    // or after `frame_start` and ends at the new `data`.
    unsafe { std::ptr::copy(ctx.data_meta, to, meta) };
    (ctx.data, ctx.data_meta) = (data, to);
    0
}

unsafe extern "C" fn adjust_meta(
    ctx: *mut RunCtx,
    _: u64,
    delta: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: the context of the run; the worker holds no reference to it meanwhile.
    let ctx = unsafe { &mut *ctx };
    let meta = moved(ctx.data_meta.addr(), delta);
    let Some(meta) = meta.filter(|m| (ctx.frame_start.addr()..=ctx.data.addr()).contains(m)) else {
        return errno::EINVAL as u64;
    };
    let len = ctx.data.addr() - meta;
    if len % 4 != 0 || len > MOST_META {
        return errno::EACCES as u64;
    }
    ctx.data_meta = ctx.frame_start.with_addr(meta);
    0
}

unsafe extern "C" fn adjust_tail(
    ctx: *mut RunCtx,
    _: u64,
    delta: u64,
    _: u64,
    _: u64,
    _: u64,
) -> u64 {
    // SAFETY: the context of the run; the worker holds no reference to it meanwhile.
    let ctx = unsafe { &mut *ctx };
    let least = ctx.data.addr() + ETH_HLEN;
    let end = moved(ctx.data_end.addr(), delta);
    let Some(end) = end.filter(|e| (least..=ctx.frame_end.addr()).contains(e)) else {
        return errno::EINVAL as u64;
    };
    if let Some(grown) = end.checked_sub(ctx.data_end.addr()) {
        // SAFETY: from the old end up to at most `frame_end`: inside the frame. Zeroed as in Linux,
        // so that nothing of an earlier packet shows.
        unsafe { std::ptr::write_bytes(ctx.data_end, 0, grown) };
    }
    ctx.data_end = ctx.frame_start.with_addr(end);
    0
}

unsafe extern "C" fn csum_diff(
    _: *mut RunCtx,
    from: u64,
    from_size: u64,
    to: u64,
    to_size: u64,
    seed: u64,
) -> u64 {
    let (from_size, to_size) = (from_size as u32 as usize, to_size as u32 as usize);
    if (from_size | to_size) % 4 != 0 {
        return errno::EINVAL as u64;
    }
    // A program may pass null with size 0.
    let slice = |at: u64, size: usize| match size {
        0 => &[][..],
        // SAFETY: `size` readable bytes by the verifier's proof; nothing writes them in this call.
        _ => unsafe { std::slice::from_raw_parts(bytes(at), size) },
    };
    u64::from(checksum_difference(
        slice(from, from_size),
        slice(to, to_size),
        seed as u32,
    ))
}

/// Checksum after `from` was replaced by `to` (RFC 1624, eqn. 3), folded to 16 bits as Linux
/// returns it since 6.13. Sums are of native-endian words. The cases are Linux's, because 0 and
/// 0xffff are one number in two forms and which one comes out depends on the order of steps.
fn checksum_difference(from: &[u8], to: &[u8], seed: u32) -> u32 {
    match (from, to) {
        ([], []) => seed,
        ([], to) => fold16(partial(to, seed)),
        (from, []) => fold16(!partial(from, !seed)),
        (from, to) => fold16(fold32(
            u64::from(partial(to, seed)) + u64::from(!partial(from, 0)),
        )),
    }
}

/// Ones' complement sum of 32-bit words.
fn partial(words: &[u8], seed: u32) -> u32 {
    let words = words.as_chunks::<4>().0.iter();
    fold32(
        words
            .map(|w| u64::from(u32::from_ne_bytes(*w)))
            .sum::<u64>()
            + u64::from(seed),
    )
}

fn fold32(mut sum: u64) -> u32 {
    while sum > 0xffff_ffff {
        sum = (sum & 0xffff_ffff) + (sum >> 32);
    }
    sum as u32
}

fn fold16(mut sum: u32) -> u32 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::checksum_difference;

    /// Ones' complement sum of 16-bit words, folded.
    fn sum(words: &[u16]) -> u32 {
        let mut sum: u32 = words.iter().map(|&w| u32::from(w)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    }

    fn bytes(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    #[test]
    fn difference_equals_a_new_sum() {
        let (old, new) = (
            [0x4500u16, 0x0054, 0x1234, 0xffff],
            [0x4500u16, 0x1054, 0x0000, 0x8001],
        );
        let rest = 0xbeefu16;
        let whole_old = sum(&[old[0], old[1], old[2], old[3], rest]);
        let whole_new = sum(&[new[0], new[1], new[2], new[3], rest]);
        assert_eq!(
            checksum_difference(&bytes(&old), &bytes(&new), whole_old),
            whole_new
        );
        assert_eq!(checksum_difference(&[], &bytes(&new), 0), sum(&new));
        assert_eq!(checksum_difference(&[], &[], 77), 77);
    }
}
