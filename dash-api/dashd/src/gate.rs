//! A port that receives nothing until it is opened.
//!
//! Workers start before the configuration is in. A capture file would be read through the empty
//! configuration, and what waits in a socket would be dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nic_target::{Frame, FramePool, Port, Rx, Tx};

/// Opens the ports behind it, once and for good.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets packets in.
    pub fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// A port behind this gate.
    pub fn guard<P: Port>(&self, port: P) -> Gated<P> {
        Gated {
            port,
            gate: self.clone(),
        }
    }
}

/// A port behind a gate. Sending is not held up.
#[derive(Debug)]
pub struct Gated<P> {
    port: P,
    gate: Gate,
}

impl<P: Port> Port for Gated<P> {
    fn name(&self) -> &str {
        self.port.name()
    }
    fn mac(&self) -> [u8; 6] {
        self.port.mac()
    }
    fn mtu(&self) -> Option<u32> {
        self.port.mtu()
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        if !self.gate.0.load(Ordering::Acquire) {
            return Ok(Rx::Received(0));
        }
        self.port.rx(index, pool, burst, max)
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        self.port.tx(pool, frames)
    }
    fn start(&mut self) -> io::Result<()> {
        self.port.start()
    }
    fn idle(&mut self) {
        self.port.idle();
    }
    fn virtual_time(&self) -> bool {
        self.port.virtual_time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_waits_until_the_gate_opens() {
        let (mut ports, mut sim) = nic_sim::port::build(&nic_sim::port::SimConfig::default());
        let gate = Gate::new();
        let mut port = gate.guard(ports.remove(0));
        let (mut pool, mut burst) = (FramePool::new(4), Vec::new());
        sim.inject(0, &[7; 60]).unwrap();
        assert_eq!(
            port.rx(0, &mut pool, &mut burst, 4).unwrap(),
            Rx::Received(0)
        );
        gate.open();
        assert_eq!(
            port.rx(0, &mut pool, &mut burst, 4).unwrap(),
            Rx::Received(1)
        );
        assert_eq!(burst[0].data(), [7; 60]);
    }
}
