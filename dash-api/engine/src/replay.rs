//! Packets with their times through an engine, one by one.
//!
//! Time is the packets': the clock goes with them, never back, and stands at the last one's
//! afterwards, so that counters and flows are read as of that moment. Every packet comes in on
//! port 0; what is sent goes to one sink, in order, with the time its packet came in.

use nic_target::{Frame, PacketEngine, TargetError, Verdict};
use thiserror::Error;

/// Fates of the packets of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets that came in.
    pub received: u64,
    /// Their bytes.
    pub received_octets: u64,
    /// Sent to the sink.
    pub forwarded: u64,
    /// Their bytes, as sent.
    pub forwarded_octets: u64,
    /// Dropped and counted.
    pub dropped: u64,
    /// For the control plane, which a replay does not have.
    pub passed: u64,
    /// Left out because no buffer holds them ([`nic_target::frame::MAX_FRAME`]).
    pub too_long: u64,
    /// The program failed on them: a bug.
    pub aborted: u64,
    /// Time of the first packet, ns.
    pub first_ns: Option<u64>,
    /// Time of the last packet, ns.
    pub last_ns: Option<u64>,
}

impl Summary {
    /// What a port would have counted: in a replay no port does, so these belong in the place of
    /// its own counters.
    pub fn port_counters(&self) -> [(&'static str, u64); 4] {
        use dash_wire::stats::PortStat as P;
        [
            (P::IfInUcastPkts.name(), self.received),
            (P::IfInOctets.name(), self.received_octets),
            (P::IfOutUcastPkts.name(), self.forwarded),
            (P::IfOutOctets.name(), self.forwarded_octets),
        ]
    }
}

/// Why a replay ended early; `E` is of whoever reads and writes packets.
#[derive(Debug, Error)]
pub enum ReplayError<E: std::error::Error + 'static> {
    /// The next packet could not be read, or a result not be written.
    #[error(transparent)]
    Io(E),
    /// The engine could not run a packet.
    #[error("packet {packet}: {source}")]
    Engine {
        /// From 1, as packet tools count.
        packet: u64,
        /// Why.
        source: TargetError,
    },
}

/// Runs packets, in order, through an engine that has its configuration.
///
/// # Errors
/// A packet cannot be read, run or written; what was sent before is with the sink.
pub fn replay<P, B, E>(
    engine: &mut P,
    packets: impl IntoIterator<Item = Result<(u64, B), E>>,
    mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Summary, ReplayError<E>>
where
    P: PacketEngine + ?Sized,
    B: AsRef<[u8]>,
    E: std::error::Error + 'static,
{
    let mut summary = Summary::default();
    let mut frame = Frame::new();
    let mut now = 0;
    for packet in packets {
        let (timestamp_ns, data) = packet.map_err(ReplayError::Io)?;
        summary.received += 1;
        summary.received_octets += data.as_ref().len() as u64;
        summary.first_ns.get_or_insert(timestamp_ns);
        summary.last_ns = Some(timestamp_ns);
        now = timestamp_ns.max(now);
        if !frame.fill(data.as_ref()) {
            summary.too_long += 1;
            continue;
        }
        frame.port = 0;
        frame.timestamp_ns = now;
        let at = |source| ReplayError::Engine {
            packet: summary.received,
            source,
        };
        match engine.run(&mut frame).map_err(at)? {
            Verdict::Send(_) => {
                summary.forwarded += 1;
                summary.forwarded_octets += frame.data().len() as u64;
                sink(timestamp_ns, frame.data()).map_err(ReplayError::Io)?;
            }
            Verdict::Drop => summary.dropped += 1,
            Verdict::Pass => summary.passed += 1,
            Verdict::Aborted => summary.aborted += 1,
        }
    }
    Ok(summary)
}
