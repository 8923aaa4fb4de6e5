//! What control asks of whoever runs packets.

use std::collections::BTreeMap;

use dash_wire::tables::{FlowEntry, MeterBucket};
use thiserror::Error;

use crate::flows::{FlowEdit, FlowQuery};
use crate::frame::Frame;
use crate::image::Update;
use crate::tables::Table;

/// Why an update was refused. Nothing of it took effect.
#[derive(Debug, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum TargetError {
    #[error("table {table:?} is full: {capacity} rows")]
    TableFull { table: Table, capacity: u32 },
    #[error("a row of table {table:?} has a {part} of {got} bytes, not {want}")]
    RowSize {
        table: Table,
        part: &'static str,
        got: usize,
        want: usize,
    },
    #[error("table {table:?} cannot be written by control")]
    NotPolicy { table: Table },
    #[error("row {index} is outside array table {table:?}")]
    BadIndex { table: Table, index: u32 },
    #[error("no code is installed")]
    NoImage,
    #[error("{engine} cannot run this image: {reason}")]
    Unsupported {
        engine: &'static str,
        reason: String,
    },
    #[error("{what}: {source}")]
    Os {
        what: String,
        source: std::io::Error,
    },
    #[error("the data plane is not running any more")]
    Gone,
    #[error("worker {worker} has stood still for {silence:.1?}: a port may block")]
    Stuck {
        worker: usize,
        silence: std::time::Duration,
    },
}

/// Fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Dropped and counted.
    Drop,
    /// For the control plane: ARP, or a packet whose next hop is not resolved.
    Pass,
    /// Sent out of this port.
    Send(u16),
    /// The program failed; a bug.
    Aborted,
}

/// Counter blocks at one moment, summed over cores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// By ENI index: values in `EniStat` order.
    pub eni: BTreeMap<u32, Vec<u64>>,
    /// Values in `PortStat` order.
    pub port: Vec<u64>,
    /// Buckets that ever counted, by ENI index and metering class.
    pub meter: BTreeMap<(u32, u32), MeterBucket>,
}

impl CounterSnapshot {
    /// Adds to the bucket of an ENI index and a metering class.
    pub fn add_meter(&mut self, bucket: (u32, u32), bytes: MeterBucket) {
        let sum = self.meter.entry(bucket).or_default();
        sum.outbound = sum.outbound.wrapping_add(bytes.outbound);
        sum.inbound = sum.inbound.wrapping_add(bytes.inbound);
    }
}

/// The control side of a target.
pub trait Target: Send {
    /// Makes an update visible, whole, between two bursts.
    fn apply(&mut self, update: &Update) -> Result<(), TargetError>;
    /// Counters now. Every ENI index below the capacity that ever counted is present.
    fn counters(&mut self) -> Result<CounterSnapshot, TargetError>;
    /// Live connections, in no order.
    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError>;
    /// Live connections that are asked for, in no order. Default: picks from all.
    fn find_flows(&mut self, query: &FlowQuery) -> Result<Vec<FlowEntry>, TargetError> {
        let mut flows = self.flows()?;
        flows.retain(|flow| query.matches(flow));
        flows.truncate(query.most);
        Ok(flows)
    }
    /// Does something to live connections; gives how many there were.
    fn edit_flows(&mut self, query: &FlowQuery, edit: FlowEdit) -> Result<u64, TargetError>;
    /// How many live connections there are. Default: counts a copy of all.
    fn flow_count(&mut self) -> Result<usize, TargetError> {
        Ok(self.flows()?.len())
    }
}

/// A target whose packets are run by the caller, one by one: replay, scenarios, tests.
pub trait PacketEngine: Target {
    /// Name as `--engine` spells it.
    fn name(&self) -> &'static str;
    /// Moves the clock (never back) and expires what is due.
    fn advance(&mut self, now_ns: u64);
    /// The next frame that the engine sent of itself, with its port: TCP resets for a packet that was
    /// dropped. To be asked after each packet until there is none.
    fn injected(&mut self) -> Option<(u16, Vec<u8>)> {
        None
    }
    /// Runs one packet at `frame.timestamp_ns` (clock advanced to it); the frame then holds the
    /// result.
    fn run(&mut self, frame: &mut Frame) -> Result<Verdict, TargetError>;
}
