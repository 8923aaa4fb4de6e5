//! Bursts in two phases, so that memory is on its way before it is needed.
//!
//! ```text
//!  each packet:  parse (`entry`) --CONTINUE--> hash of its flow key, ask for the index bucket
//!  each of them: ask for the slab entry the bucket leads to
//!  each without: ask for the memory of a new connection, and where its other key goes
//!  each of them: look the key up, of which `rest` is told; policy, rewrite (`rest`)
//! ```
//!
//! Each packet has a *place*: its own context, so that `rest` sees what `entry` did, and its own
//! `meta` row. Programs find that row as element 0 of the array `meta`, whose address in
//! `RunCtx::arrays` is changed from place to place.
//!
//! What programs write before the look-up are counters, which are sums, `meta`, and first fragments,
//! which nothing touches after it; so the outcome is that of running packets whole, one after the
//! other ([`Bound::run`], the twin that benches/tests compare this with).

use std::cell::UnsafeCell;

use dash_wire::abi::{CONTINUE, EntryFn, RunCtx};
use dash_wire::hook::{DashMeta, Place as DashPlace};
use dash_wire::tables::Meta;
use nic_target::{Frame, Table, Verdict};

use super::reply::reply;
use super::{Bound, Datapath, about_leaving, verdict};
use crate::code::Rest;
use crate::exec::{Code, Engine};
use crate::helpers::PIPELINE_HELPERS;
use crate::prefetch::prefetch;
use crate::tables::core_set::CoreTables;
use crate::tables::flow_index::Ahead;

/// Most packets of a burst.
pub const BURST: usize = 32;
/// Packets whose headers are asked for ahead of the one that is parsed.
const AHEAD: usize = 4;
/// Bytes of a cache line, of the processors we know.
const LINE: usize = 64;

/// What became of a packet of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was run.
    Done(Verdict),
    /// It was parsed, and its flow is this worker's: the frame goes there, with
    /// [`parsed`](Bound::parsed).
    Foreign(u32),
    /// No code is installed, or none that can do this.
    NotRun,
}

/// A `meta` row in lines of its own.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Row(UnsafeCell<Meta>);

/// What the packets of a burst need.
#[derive(Debug)]
pub(super) struct Places {
    /// Fields that no packet changes are set by `renew`.
    contexts: Box<[RunCtx; BURST]>,
    rows: Box<[Row; BURST]>,
    /// Look-ups of flows.
    ahead: Box<[Ahead; BURST]>,
    /// Places whose second part is to run.
    open: Box<[u8; BURST]>,
    fates: Box<[Fate; BURST]>,
}

impl Places {
    /// Contexts are not usable before they were renewed.
    pub(super) fn new() -> Self {
        let context = || RunCtx {
            data: std::ptr::null_mut(),
            data_end: std::ptr::null_mut(),
            data_meta: std::ptr::null_mut(),
            ingress_ifindex: 0,
            rx_queue_index: 0,
            egress_ifindex: 0,
            redirect_ifindex: u32::MAX,
            frame_start: std::ptr::null_mut(),
            frame_end: std::ptr::null_mut(),
            now_ns: 0,
            arrays: std::ptr::null(),
            maps: std::ptr::null(),
            helpers: PIPELINE_HELPERS.as_ptr(),
            worker: std::ptr::null_mut(),
            cpu: 0,
            resume: 0,
            found_key: std::ptr::null(),
            found_value: std::ptr::null_mut(),
            memo: std::ptr::null_mut(),
            fuel: 0,
        };
        Self {
            contexts: Box::new(std::array::from_fn(|_| context())),
            rows: Box::new(std::array::from_fn(|_| Row::default())),
            ahead: Box::new([Ahead::default(); BURST]),
            open: Box::new([0; BURST]),
            fates: Box::new([Fate::NotRun; BURST]),
        }
    }
}

impl Datapath {
    /// Sets what all packets have in common until the next generation.
    pub(super) fn renew_places(&mut self) {
        let (maps, worker) = (self.maps.as_ptr(), self.helpers.address());
        let memo = self.memo.as_mut_ptr();
        for ctx in self.places.contexts.iter_mut() {
            (ctx.maps, ctx.worker, ctx.cpu, ctx.memo) = (maps, worker, self.cpu, memo);
        }
    }
}

impl Bound<'_> {
    /// Runs the first packets of a burst, [`BURST`] at most, at the core's clock; gives how many.
    /// What became of them is [`fate`](Self::fate), and frames hold the result.
    pub fn run_burst(&mut self, frames: &mut [Frame]) -> usize {
        let n = frames.len().min(BURST);
        let frames = &mut frames[..n];
        let native = match self.generation.code().map(|code| &**code) {
            Some(Code::Native(pages)) if self.core.engine == Engine::Native => pages,
            _ => {
                for (place, frame) in frames.iter_mut().enumerate() {
                    let fate = self.run(frame).map_or(Fate::NotRun, Fate::Done);
                    self.core.places.fates[place] = fate;
                }
                return n;
            }
        };
        let (entry, rest) = (native.entry(), native.rest());
        if self.generation.hooks().at_ports() {
            self.run_parts::<true>(entry, rest, frames);
        } else {
            self.run_parts::<false>(entry, rest, frames);
        }
        n
    }

    /// Both parts. `HOOKED`: programs of users are attached to ports; the code for none is as if
    /// there were no such thing.
    #[inline(always)]
    fn run_parts<const HOOKED: bool>(
        &mut self,
        entry: EntryFn,
        rest: Option<Rest>,
        frames: &mut [Frame],
    ) {
        let open = self.parse::<HOOKED>(entry, rest.is_some(), frames);
        if let Some(rest) = rest {
            self.finish::<HOOKED>(rest, frames, open);
        }
    }

    /// Runs the second part of packets that other workers parsed: what they left is
    /// [put](Self::put_parsed) in the places of `frames`. Else as [`run_burst`](Self::run_burst).
    pub fn resume_burst(&mut self, frames: &mut [Frame]) -> usize {
        let n = frames.len().min(BURST);
        let rest = match self.generation.code().map(|code| &**code) {
            Some(Code::Native(pages)) if self.core.engine == Engine::Native => pages.rest(),
            _ => None,
        };
        let Some(rest) = rest else {
            self.core.places.fates[..n].fill(Fate::NotRun);
            return n;
        };
        for (place, frame) in frames[..n].iter_mut().enumerate() {
            let core = &mut *self.core;
            set(&mut core.places.contexts[place], frame, core.now_ns);
            // SAFETY: no program runs, and only this thread knows the row.
            let key = unsafe { &(*core.places.rows[place].0.get()).key };
            let hash = core.tables.flow_hash(key);
            core.places.ahead[place] = core.tables.prefetch_bucket(hash);
            core.places.open[place] = place as u8;
        }
        if self.generation.hooks().at_ports() {
            self.finish::<true>(rest, &mut frames[..n], n);
        } else {
            self.finish::<false>(rest, &mut frames[..n], n);
        }
        n
    }

    /// What became of a packet of the last burst.
    #[inline]
    pub fn fate(&self, place: usize) -> Fate {
        self.core.places.fates[place]
    }

    /// The port by which the first `n` packets of the last burst leave, when it is one and they all do.
    #[inline]
    pub fn all_leave_by(&self, n: usize) -> Option<u16> {
        let (first, rest) = self.core.places.fates[..n].split_first()?;
        match first {
            Fate::Done(Verdict::Send(port)) if rest.iter().all(|fate| fate == first) => Some(*port),
            _ => None,
        }
    }

    /// What parsing left of a packet of the last burst.
    pub fn parsed(&self, place: usize) -> Meta {
        // SAFETY: no program runs, and only this thread knows the row.
        unsafe { *self.core.places.rows[place].0.get() }
    }

    /// What another worker's parsing left of the packet in this place.
    pub fn put_parsed(&mut self, place: usize, meta: &Meta) {
        // SAFETY: as in `parsed`.
        unsafe { *self.core.places.rows[place].0.get() = *meta };
    }

    /// Parses; gives how many places wait for their second part.
    fn parse<const HOOKED: bool>(
        &mut self,
        entry: EntryFn,
        in_two: bool,
        frames: &mut [Frame],
    ) -> usize {
        let generation = self.generation;
        let core = &mut *self.core;
        let arrays = core.arrays.as_mut_ptr();
        let places = &mut core.places;
        // Every place below is one of the arrays', as the compiler now sees.
        let n = frames.len().min(BURST);
        let frames = &mut frames[..n];
        frames.iter().take(AHEAD).for_each(fetch_headers);
        let mut open = 0;
        for place in 0..frames.len() {
            if let Some(ahead) = frames.get(place + AHEAD) {
                fetch_headers(ahead);
            }
            let (frame, ctx) = (&mut frames[place], &mut places.contexts[place]);
            let port = frame.port;
            if HOOKED {
                let hooks = generation.hooks();
                let (tables, now) = (&mut core.tables, core.now_ns);
                if let Some(verdict) = hooks.enter(ctx, frame, now, tables) {
                    let about = |_: &CoreTables| DashMeta::unknown(DashPlace::Egress);
                    let verdict = hooks.leave(ctx, frame, now, tables, verdict, about);
                    places.fates[place] = Fate::Done(verdict);
                    continue;
                }
            }
            set(ctx, frame, core.now_ns);
            ctx.arrays = arrays;
            let row = places.rows[place].0.get();
            // SAFETY: `arrays` has an entry for every table.
            unsafe { *arrays.add(Table::Meta.index() as usize) = row.cast() };
            // SAFETY: the code was verified with these maps (`NativeImage::in_parts`, `check_maps`);
            // the context points to the frame, borrowed here, to the core's tables, borrowed
            // through `core`, and to those of the generation, borrowed by `self`; the row is as
            // long as an element of `meta`; arrays, maps and helpers have as many entries as
            // `dash_wire::abi` says.
            let r0 = unsafe { entry(ctx) };
            if r0 != CONTINUE || !in_two {
                let mut verdict = verdict(ctx, frame, port, r0);
                if HOOKED {
                    let (tables, now) = (&mut core.tables, core.now_ns);
                    // SAFETY: the program has returned, and only this thread knows the row.
                    let meta = unsafe { &*row };
                    // Code that is not cut went all the way, unless a program of users ended it.
                    let whole = !in_two && !core.helpers.ended();
                    let about =
                        |tables: &CoreTables| about_leaving(generation, tables, meta, whole);
                    let hooks = generation.hooks();
                    verdict = hooks.leave(ctx, frame, now, tables, verdict, about);
                }
                places.fates[place] = Fate::Done(verdict);
                continue;
            }
            // SAFETY: the program has returned, and only this thread knows the row.
            let key = unsafe { &(*row).key };
            if let Some(owners) = &core.owners {
                let owner = owners.of(key);
                if owner != owners.me() {
                    // The frame as it now is, decapsulated, is what the owner goes on with.
                    let (start, end) = bounds(ctx);
                    places.fates[place] = match frame.set_bounds(start, end) {
                        true => Fate::Foreign(owner),
                        false => Fate::Done(Verdict::Aborted),
                    };
                    continue;
                }
            }
            let hash = core.tables.flow_hash(key);
            places.ahead[place] = core.tables.prefetch_bucket(hash);
            places.open[open] = place as u8;
            open += 1;
        }
        open
    }

    /// Runs the second part of the first `open` places that wait for it.
    fn finish<const HOOKED: bool>(&mut self, rest: Rest, frames: &mut [Frame], open: usize) {
        let generation = self.generation;
        let core = &mut *self.core;
        let arrays = core.arrays.as_mut_ptr();
        let places = &mut core.places;
        let open = &places.open[..open];
        let (mut new, mut first) = ([0; BURST], 0);
        for &place in open {
            if !core
                .tables
                .prefetch_entry(&mut places.ahead[usize::from(place) % BURST])
            {
                new[first] = place;
                first += 1;
            }
        }
        for (nth, &place) in new[..first].iter().enumerate() {
            // SAFETY: no program runs, and only this thread knows the row.
            let key = unsafe { &(*places.rows[usize::from(place) % BURST].0.get()).key };
            let back = core.tables.flow_hash(&reply(key));
            core.tables.prefetch_bucket(back);
            core.tables.prefetch_new(nth);
        }
        for &place in open {
            let place = usize::from(place) % BURST;
            let (frame, ctx) = (&mut frames[place], &mut places.contexts[place]);
            let port = frame.port;
            ctx.arrays = arrays;
            let row = places.rows[place].0.get();
            // SAFETY: as in `parse`.
            unsafe { *arrays.add(Table::Meta.index() as usize) = row.cast() };
            // SAFETY: no program runs, and only this thread knows the row.
            let key = unsafe { &(*row).key };
            // Now, as the packets before this one may have made or ended its flow.
            ctx.found_key = std::ptr::from_ref(key).cast();
            ctx.found_value = core.tables.find_ahead(key, &places.ahead[place]).cast();
            // SAFETY: as in `parse`; the row and the frame are as `entry` left them, here or, in
            // copy, on another core, which is what `rest` needs (`NativeImage::in_parts`); and what was
            // found is what the program's look-up would give, as nothing ran in between.
            let r0 = unsafe { rest.run(ctx) };
            let mut verdict = verdict(ctx, frame, port, r0);
            if HOOKED {
                let (tables, now) = (&mut core.tables, core.now_ns);
                // SAFETY: the program has returned, and only this thread knows the row.
                let meta = unsafe { &*row };
                let about = |tables: &CoreTables| about_leaving(generation, tables, meta, true);
                let hooks = generation.hooks();
                verdict = hooks.leave(ctx, frame, now, tables, verdict, about);
            }
            places.fates[place] = Fate::Done(verdict);
            // One lost is a flow that never ages.
            if core.tables.flow_events.len() * 2 >= core.events_capacity {
                core.ager.take_events(&core.tables);
            }
        }
    }
}

/// Asks for what parsing reads: outer and inner headers.
#[inline(always)]
fn fetch_headers(frame: &Frame) {
    let start = frame.data().as_ptr();
    prefetch(start);
    prefetch(start.wrapping_add(LINE));
}

/// Points a context at a packet.
#[inline(always)]
pub(crate) fn set(ctx: &mut RunCtx, frame: &mut Frame, now_ns: u64) {
    ctx.ingress_ifindex = u32::from(frame.port);
    // No port: what a program means that says REDIRECT without having called the helper.
    ctx.redirect_ifindex = u32::MAX;
    let (buf, start, end) = frame.parts_mut();
    let len = buf.len();
    let base = buf.as_mut_ptr();
    base.expose_provenance();
    // `Frame` keeps `start <= end <= len`, so these are inside the buffer.
    ctx.data = base.wrapping_add(start);
    ctx.data_end = base.wrapping_add(end);
    ctx.data_meta = ctx.data;
    ctx.frame_start = base;
    ctx.frame_end = base.wrapping_add(len);
    ctx.now_ns = now_ns;
}

/// The packet's bounds in its buffer.
#[inline(always)]
pub(crate) fn bounds(ctx: &RunCtx) -> (usize, usize) {
    let base = ctx.frame_start.addr();
    (
        ctx.data.addr().wrapping_sub(base),
        ctx.data_end.addr().wrapping_sub(base),
    )
}
