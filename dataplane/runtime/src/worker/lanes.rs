//! A worker's queues of the ports, and the frames that circulate between them.

use std::collections::VecDeque;
use std::io;

use crossbeam_queue::ArrayQueue;
use dash_wire::stats::PortStat;
use nic_target::{Frame, FramePool, Port, Rx, Tx};

use super::rings::Tally;
use super::{BURST, handoff};
use crate::tables::core_set::CoreTables;

/// A worker's queue of a port and what waits on it.
#[derive(Debug)]
struct Lane<P> {
    port: P,
    /// Nothing will ever be received again.
    ended: bool,
    /// Received and not yet run (virtual time only).
    waiting: VecDeque<Frame>,
    /// To be sent at the end of the burst.
    out: Vec<Frame>,
}

/// All of them, and the frames not in use.
#[derive(Debug)]
pub(super) struct Lanes<P> {
    lanes: Vec<Lane<P>>,
    pool: FramePool,
    pool_size: usize,
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Frames(usize),
    /// The port failed.
    Failed,
}

/// Frames of our own that each of so many workers with so many ports starts with: a worker that
/// stands still does not starve the others of frames.
pub(crate) fn pool_size(ports: usize, workers: usize) -> usize {
    512 + 2 * BURST * ports + handoff::under_way(workers)
}

impl<P: Port> Lanes<P> {
    pub(super) fn new(ports: Vec<P>, workers: usize) -> Self {
        let pool_size = pool_size(ports.len(), workers);
        let lane = |port| Lane {
            port,
            ended: false,
            waiting: VecDeque::with_capacity(2 * BURST),
            out: Vec::with_capacity(pool_size),
        };
        Self {
            lanes: ports.into_iter().map(lane).collect(),
            pool: FramePool::new(pool_size),
            pool_size,
        }
    }

    pub(super) fn into_ports(self) -> Vec<P> {
        self.lanes.into_iter().map(|lane| lane.port).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// True when nothing will ever be received again and nothing waits to be run.
    pub(super) fn ended(&self) -> bool {
        self.lanes
            .iter()
            .all(|lane| lane.ended && lane.waiting.is_empty())
    }

    /// Receives into the burst from one port, and counts.
    pub(super) fn receive(
        &mut self,
        at: usize,
        burst: &mut Vec<Frame>,
        tables: &mut CoreTables,
        tally: &Tally,
    ) -> Received {
        let lane = &mut self.lanes[at];
        if lane.ended {
            return Received::Frames(0);
        }
        // There are few ports: a runtime is not made with more than `u16` counts.
        match lane.port.rx(at as u16, &mut self.pool, burst, BURST) {
            Ok(Rx::Received(0)) => Received::Frames(0),
            Ok(Rx::Received(n)) => {
                let octets = burst.iter().map(|frame| frame.len() as u64).sum();
                tables.count_port(PortStat::IfInOctets, octets);
                tables.count_port(PortStat::IfInUcastPkts, n as u64);
                tally.packets.add(n as u64);
                Received::Frames(n)
            }
            Ok(Rx::End) => {
                lane.ended = true;
                Received::Frames(0)
            }
            Err(_) => {
                // The interface may come back; a port that is gone for good says `End`.
                tally.port_errors.add(1);
                Received::Failed
            }
        }
    }

    /// Keeps a burst of one port until its time comes.
    pub(super) fn wait(&mut self, at: usize, burst: &mut Vec<Frame>) {
        self.lanes[at].waiting.extend(burst.drain(..));
    }

    /// Nothing of this port waits for its time.
    pub(super) fn nothing_waits(&self, at: usize) -> bool {
        self.lanes[at].waiting.is_empty()
    }

    /// The earliest frame that waits, and whether its port may hold the next one: then it must be
    /// asked before any other port's frame is run. Ports that had nothing when asked do not hold
    /// the others up.
    pub(super) fn earliest(&mut self) -> Option<(Frame, bool)> {
        let heads = self.lanes.iter().enumerate();
        let heads = heads.filter_map(|(at, lane)| Some((lane.waiting.front()?.timestamp_ns, at)));
        let (_, at) = heads.min()?;
        let lane = &mut self.lanes[at];
        let frame = lane.waiting.pop_front()?;
        Some((frame, lane.waiting.is_empty() && !lane.ended))
    }

    /// Lays all frames on the lane of a port.
    pub(super) fn put_all_out(
        &mut self,
        tables: &mut CoreTables,
        port: u16,
        frames: &mut Vec<Frame>,
    ) {
        for frame in frames.iter_mut() {
            frame.port = port;
        }
        match self.lanes.get_mut(usize::from(port)) {
            Some(lane) => lane.out.append(frames),
            None => {
                tables.count_port(PortStat::IfOutDiscards, frames.len() as u64);
                frames.drain(..).for_each(|frame| self.pool.give(frame));
            }
        }
    }

    /// Lays a frame on the lane of its port.
    #[inline]
    pub(super) fn put_out(&mut self, tables: &mut CoreTables, frame: Frame) {
        match self.lanes.get_mut(usize::from(frame.port)) {
            Some(lane) => lane.out.push(frame),
            None => {
                tables.count_port(PortStat::IfOutDiscards, 1);
                self.pool.give(frame);
            }
        }
    }

    /// Lays a frame of our own on the lane of a port; without one to spare it is a discard.
    pub(super) fn put_out_new(&mut self, tables: &mut CoreTables, port: u16, data: &[u8]) {
        let Some(mut frame) = self.pool.take() else {
            tables.count_port(PortStat::IfOutDiscards, 1);
            return;
        };
        frame.port = port;
        if frame.fill(data) {
            self.put_out(tables, frame);
        } else {
            self.pool.give(frame);
        }
    }

    /// Takes back a frame that goes nowhere.
    #[inline]
    pub(super) fn give(&mut self, frame: Frame) {
        self.pool.give(frame);
    }

    /// Sends what lies on every lane; gives how many frames.
    pub(super) fn send(&mut self, tables: &mut CoreTables, tally: &Tally) -> usize {
        let mut count = 0;
        for lane in self.lanes.iter_mut().filter(|lane| !lane.out.is_empty()) {
            let frames = lane.out.len();
            let sent = lane.port.tx(&mut self.pool, &mut lane.out);
            let tx = sent.unwrap_or_else(|_: io::Error| {
                tally.port_errors.add(1);
                Tx {
                    dropped: frames,
                    ..Tx::default()
                }
            });
            // Whatever a failing port left.
            lane.out.drain(..).for_each(|frame| self.pool.give(frame));
            let sent = tx.sent.min(frames);
            tables.count_port(PortStat::IfOutUcastPkts, sent as u64);
            tables.count_port(PortStat::IfOutOctets, tx.octets);
            if tx.dropped > 0 {
                tables.count_port(PortStat::IfOutDiscards, tx.dropped as u64);
            }
            count += sent;
        }
        count
    }

    /// Punted frames leave the pool and injected ones enter it, and what one worker receives
    /// another may send: evens that out.
    pub(super) fn balance(&mut self, spare: &ArrayQueue<Frame>) {
        while self.pool.available() > self.pool_size {
            let Some(frame) = self.pool.take() else { break };
            // Full: there are more frames than anyone needs, and one is freed.
            let _ = spare.push(frame);
        }
        while self.pool.available() < self.pool_size / 2 {
            let Some(frame) = spare.pop() else { break };
            self.pool.give(frame);
        }
    }

    /// Lets one port wait, by turns, so that no port waits for another's quiet more than once in
    /// a while. False when none is open.
    pub(super) fn idle(&mut self, turn: u32) -> bool {
        let open = self.lanes.iter().filter(|lane| !lane.ended).count();
        if open == 0 {
            return false;
        }
        let mut lanes = self.lanes.iter_mut().filter(|lane| !lane.ended);
        if let Some(lane) = lanes.nth(turn as usize % open) {
            lane.port.idle();
        }
        true
    }
}
