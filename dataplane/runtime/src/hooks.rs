//! Programs of users in the pipeline: where they run, in which order, and what their verdicts do.
//!
//! ```text
//!  Port --rx--> [ingress] --> rx, decap --> [eni outbound | eni inbound] --> flow, policy, apply --> [egress] --tx--> Port
//! ```
//!
//! At each [`Point`] programs run one after another by sequence number while they say XDP_PASS. What
//! else they say ends the packet's way, as on Linux: XDP_DROP drops, XDP_TX sends it back out of the
//! port it came from, XDP_REDIRECT out of the port named, and all else is XDP_ABORTED, a drop
//! that is counted apart. At egress only XDP_PASS sends, as with programs of a device map: XDP_TX and
//! XDP_REDIRECT are XDP_ABORTED there. A packet that a program sends from ingress or an ENI meets the
//! programs of the port it leaves by. Ports' programs see every packet, ENIs' programs every packet
//! of the ENI that could be decapsulated, whether its flow is known or not.
//!
//! All chains together are [`Hooks`]: immutable, part of a generation, replaced whole between two
//! bursts, and freed by control when no worker sees them any more. What programs count is in
//! [`Link`]s, which outlive generations: a lane for each worker, written by that worker alone.
//!
//! Cost. A burst without programs at ports takes one test; ENIs' programs are asked by code that is
//! compiled for it (`hook;`), so there is nothing in other code.

use std::cell::UnsafeCell;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use dash_bpf::helper::XdpAction;
use dash_wire::abi::RunCtx;
use dash_wire::hook::{DashMeta, Place};
use dash_wire::stats::PortStat;
use dash_wire::tables::Direction;
use nic_target::{Frame, Verdict};

use crate::datapath::{bounds, set};
use crate::tables::core_set::CoreTables;
use crate::worker::rings::Count;

/// One worker's way to run one program.
pub trait HookRunner: Debug + Send {
    /// Runs on the packet of a context, which it may change, and whose borders it may move. All else in the context is
    /// the pipeline's.
    ///
    /// # Safety
    /// The packet's pointers in the context lead into the buffer `frame_start..frame_end`, in order, and
    /// nobody else uses that. Who implements it leaves them so.
    unsafe fn run_in(&mut self, ctx: &mut RunCtx, about: &DashMeta) -> HookVerdict;
}

/// The same on a packet that is a slice of memory, for what knows no contexts.
pub trait PacketRunner: Debug + Send {
    /// Runs on a packet, which it may change and move in its memory.
    fn run(&mut self, packet: &mut HookPacket<'_>, about: &DashMeta) -> HookVerdict;
}

impl<R: PacketRunner> HookRunner for R {
    unsafe fn run_in(&mut self, ctx: &mut RunCtx, about: &DashMeta) -> HookVerdict {
        let base = ctx.frame_start;
        let at = |pointer: *mut u8| pointer.addr() - base.addr();
        let len = at(ctx.frame_end);
        let mut packet = HookPacket {
            meta: at(ctx.data_meta),
            data: at(ctx.data),
            end: at(ctx.data_end),
            ingress_ifindex: ctx.ingress_ifindex,
            rx_queue_index: ctx.rx_queue_index,
            egress_ifindex: ctx.egress_ifindex,
            now_ns: ctx.now_ns,
            // SAFETY: the buffer, by contract; the reference is gone when the context is used again.
            memory: unsafe { std::slice::from_raw_parts_mut(base, len) },
        };
        let verdict = self.run(&mut packet, about);
        let HookPacket {
            meta, data, end, ..
        } = packet;
        if !(meta <= data && data <= end && end <= len) {
            return HookVerdict {
                action: XdpAction::Aborted,
                port: None,
                out_of_fuel: false,
            };
        }
        ctx.data_meta = base.wrapping_add(meta);
        ctx.data = base.wrapping_add(data);
        ctx.data_end = base.wrapping_add(end);
        verdict
    }
}

/// A packet in its buffer, with what `struct xdp_md` says besides.
#[derive(Debug)]
pub struct HookPacket<'a> {
    /// The whole buffer.
    pub memory: &'a mut [u8],
    /// Where metadata in front of the packet begins: at `data` when there is none.
    pub meta: usize,
    /// Where the packet begins.
    pub data: usize,
    /// One past its end.
    pub end: usize,
    /// Port it came in by.
    pub ingress_ifindex: u32,
    /// Its queue.
    pub rx_queue_index: u32,
    /// Port it is about to leave by; 0 but at egress.
    pub egress_ifindex: u32,
    /// The worker's clock, ns.
    pub now_ns: u64,
}

/// What a program said of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookVerdict {
    /// What is to become of it.
    pub action: XdpAction,
    /// Port, of XDP_REDIRECT.
    pub port: Option<u16>,
    /// The run was ended for want of fuel.
    pub out_of_fuel: bool,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// What a port receives.
    Ingress(u16),
    /// What leaves by a port.
    Egress(u16),
    /// Packets from the VM of the ENI of this index.
    EniOutbound(u32),
    /// Packets to the VM of the ENI of this index.
    EniInbound(u32),
}

/// What a program did where it is attached, summed over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets by verdict, in the order of [`XdpAction`].
    pub verdicts: [u64; 5],
    /// Runs that were ended for want of fuel, among the aborted.
    pub out_of_fuel: u64,
    /// Runs that were [timed](Link::timing).
    pub timed: u64,
    /// Nanoseconds these took, of which reading the clock is some tens each.
    pub nanoseconds: u64,
}

impl LinkStats {
    /// All packets.
    pub fn packets(&self) -> u64 {
        self.verdicts.iter().sum()
    }
}

/// What one worker runs and counts, in cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Lane {
    runner: UnsafeCell<Box<dyn HookRunner>>,
    verdicts: [Count; 5],
    out_of_fuel: Count,
    timed: Count,
    nanoseconds: Count,
}

/// A program and what it counts at one point.
#[derive(Debug)]
pub struct Link {
    /// How many ask for times.
    timing: AtomicU32,
    lanes: Box<[Lane]>,
}

// SAFETY: runners are `Send`, and a lane's is used only by `run`, whose caller promises to be the
// only thread with that worker's number; all else is atomic.
unsafe impl Sync for Link {}

impl Link {
    /// A program, by what each worker runs it with.
    pub fn new(runners: Vec<Box<dyn HookRunner>>) -> Self {
        let lane = |runner| Lane {
            runner: UnsafeCell::new(runner),
            verdicts: Default::default(),
            out_of_fuel: Count::default(),
            timed: Count::default(),
            nanoseconds: Count::default(),
        };
        Self {
            timing: AtomicU32::new(0),
            lanes: runners.into_iter().map(lane).collect(),
        }
    }

    /// Times runs until this is dropped.
    pub fn timing(&self) -> Timing<'_> {
        // Relaxed: it orders nothing.
        self.timing.fetch_add(1, Ordering::Relaxed);
        Timing(self)
    }

    /// What was counted.
    pub fn stats(&self) -> LinkStats {
        let mut sum = LinkStats::default();
        for lane in &self.lanes {
            for (sum, n) in sum.verdicts.iter_mut().zip(&lane.verdicts) {
                *sum += n.get();
            }
            sum.out_of_fuel += lane.out_of_fuel.get();
            sum.timed += lane.timed.get();
            sum.nanoseconds += lane.nanoseconds.get();
        }
        sum
    }

    /// # Safety
    /// The packet's pointers in the context lead into the buffer `frame_start..frame_end`, in order, and
    /// nobody else uses that. No other thread runs with the same `cpu`.
    unsafe fn run(&self, ctx: &mut RunCtx, about: &DashMeta) -> XdpAction {
        let Some(lane) = self.lanes.get(ctx.cpu as usize) else {
            return XdpAction::Aborted;
        };
        // SAFETY: this thread is the only one with this worker's number, by contract, and runners know
        // nothing of links, so this is not called from within.
        let runner = unsafe { &mut *lane.runner.get() };
        let verdict = if self.timing.load(Ordering::Relaxed) > 0 {
            let before = Instant::now();
            // SAFETY: by contract.
            let verdict = unsafe { runner.run_in(ctx, about) };
            lane.timed.add(1);
            // Half a millennium of nanoseconds fits.
            lane.nanoseconds.add(before.elapsed().as_nanos() as u64);
            verdict
        } else {
            // SAFETY: by contract.
            unsafe { runner.run_in(ctx, about) }
        };
        let mut action = verdict.action;
        let sends = matches!(action, XdpAction::Tx | XdpAction::Redirect);
        if action == XdpAction::Redirect {
            match verdict.port {
                Some(port) => ctx.redirect_ifindex = port.into(),
                None => action = XdpAction::Aborted,
            }
        }
        if about.place == Place::Egress as u8 && sends {
            action = XdpAction::Aborted;
        }
        if verdict.out_of_fuel {
            lane.out_of_fuel.add(1);
        }
        lane.verdicts[action as usize].add(1);
        action
    }
}

/// While this is there, runs of a link are timed.
#[derive(Debug)]
#[must_use]
pub struct Timing<'l>(&'l Link);

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        self.0.timing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A program at a point.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Where.
    pub point: Point,
    /// Lower ones run first; equal ones in the order they are given.
    pub sequence: u32,
    /// The program and its counts.
    pub link: Arc<Link>,
}

/// Programs of a point, in order.
#[derive(Debug, Default)]
struct Chain(Box<[Arc<Link>]>);

impl Chain {
    /// # Safety
    /// As [`Link::run`].
    unsafe fn run(&self, ctx: &mut RunCtx, about: &DashMeta) -> XdpAction {
        for link in &self.0 {
            // SAFETY: by contract; the program before left the context with a packet in its buffer.
            match unsafe { link.run(ctx, about) } {
                XdpAction::Pass => {}
                action => return action,
            }
        }
        XdpAction::Pass
    }
}

/// All chains of a generation.
#[derive(Debug, Default)]
pub struct Hooks {
    /// By port: ingress, egress.
    ports: Box<[[Chain; 2]]>,
    /// By ENI index: outbound, inbound.
    enis: Box<[[Chain; 2]]>,
}

impl Hooks {
    /// Chains of programs.
    pub fn new(attachments: &[Attachment]) -> Self {
        let mut sorted: Vec<&Attachment> = attachments.iter().collect();
        sorted.sort_by_key(|attachment| (attachment.point, attachment.sequence));
        let mut hooks = Self::default();
        for at in sorted.chunk_by(|a, b| a.point == b.point) {
            let chain = Chain(at.iter().map(|a| Arc::clone(&a.link)).collect());
            let (rows, index, side) = match at[0].point {
                Point::Ingress(port) => (&mut hooks.ports, usize::from(port), 0),
                Point::Egress(port) => (&mut hooks.ports, usize::from(port), 1),
                Point::EniOutbound(eni) => (&mut hooks.enis, eni as usize, 0),
                Point::EniInbound(eni) => (&mut hooks.enis, eni as usize, 1),
            };
            let mut grown = std::mem::take(rows).into_vec();
            if grown.len() <= index {
                grown.resize_with(index + 1, Default::default);
            }
            grown[index][side] = chain;
            *rows = grown.into_boxed_slice();
        }
        hooks
    }

    /// Some program is attached to a port.
    #[inline]
    pub fn at_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Some program is attached to an ENI.
    pub fn at_enis(&self) -> bool {
        !self.enis.is_empty()
    }

    fn port(&self, port: u16, side: usize) -> Option<&Chain> {
        let chain = &self.ports.get(usize::from(port))?[side];
        (!chain.0.is_empty()).then_some(chain)
    }

    /// Runs the programs of the port a packet came in by. `None`: it goes on.
    pub(crate) fn enter(
        &self,
        ctx: &mut RunCtx,
        frame: &mut Frame,
        now_ns: u64,
        tables: &mut CoreTables,
    ) -> Option<Verdict> {
        let port = frame.port;
        let chain = self.port(port, 0)?;
        set(ctx, frame, now_ns);
        let about = const { DashMeta::unknown(Place::Ingress) };
        // SAFETY: the context points at the frame, which is borrowed; a core is one thread.
        let action = unsafe { chain.run(ctx, &about) };
        let verdict = match action {
            _ if !keep_bounds(ctx, frame) => Verdict::Drop,
            XdpAction::Pass => return None,
            XdpAction::Tx => Verdict::Send(port),
            XdpAction::Redirect => {
                // `Link::run` saw that it is one.
                u16::try_from(ctx.redirect_ifindex).map_or(Verdict::Drop, Verdict::Send)
            }
            XdpAction::Drop | XdpAction::Aborted => Verdict::Drop,
        };
        if verdict == Verdict::Drop {
            tables.count_port(PortStat::IfInDiscards, 1);
        }
        Some(verdict)
    }

    /// Runs the programs of the port a packet leaves by, if it does.
    pub(crate) fn leave(
        &self,
        ctx: &mut RunCtx,
        frame: &mut Frame,
        now_ns: u64,
        tables: &mut CoreTables,
        verdict: Verdict,
        about: impl FnOnce(&CoreTables) -> DashMeta,
    ) -> Verdict {
        let Verdict::Send(port) = verdict else {
            return verdict;
        };
        let Some(chain) = self.port(port, 1) else {
            return verdict;
        };
        let about = about(tables);
        set(ctx, frame, now_ns);
        ctx.egress_ifindex = u32::from(port);
        // SAFETY: as in `enter`.
        let action = unsafe { chain.run(ctx, &about) };
        ctx.egress_ifindex = 0;
        if keep_bounds(ctx, frame) && action == XdpAction::Pass {
            return verdict;
        }
        tables.count_port(PortStat::IfOutDiscards, 1);
        Verdict::Drop
    }

    /// Runs the programs of an ENI on the packet the context points at; gives what the pipeline is to
    /// do.
    ///
    /// # Safety
    /// As [`Link::run`].
    pub(crate) unsafe fn of_eni(&self, ctx: &mut RunCtx, about: &DashMeta) -> XdpAction {
        let side = usize::from(about.direction != Direction::Outbound as u8);
        let Some(chains) = self.enis.get(about.eni as usize) else {
            return XdpAction::Pass;
        };
        // Compiled code that uses no metadata does not move its border along with the head.
        ctx.data_meta = ctx.data;
        // SAFETY: by contract.
        let action = unsafe { chains[side].run(ctx, about) };
        // What programs leave in front of a packet is theirs; the pipeline has no use for it.
        ctx.data_meta = ctx.data;
        action
    }
}

/// The frame takes the bounds that programs left; false when they are none.
fn keep_bounds(ctx: &RunCtx, frame: &mut Frame) -> bool {
    let (start, end) = bounds(ctx);
    frame.set_bounds(start, end)
}
