//! A worker thread over ports, and the handle control keeps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use dash_wire::tables::FlowEntry;
use nic_target::{Capacity, CounterSnapshot, Port, Target, TargetError, Update};

use crate::datapath::Datapath;
use crate::exec::Engine;
use crate::generation::{Generation, Publisher};
use crate::worker::{Asker, Command, Reply, Rings, Worker};

/// Starts worker threads over ports of one kind.
#[derive(Debug)]
pub struct Runtime<P>(std::marker::PhantomData<P>);

impl<P: Port + 'static> Runtime<P> {
    /// Starts a worker over these ports; port n of the verdicts is `ports[n]`. Until an image is
    /// installed every frame is dropped (`IF_IN_DISCARDS`).
    ///
    /// # Errors
    /// The engine cannot run on this machine, or the system gives no thread.
    pub fn spawn(
        ports: Vec<P>,
        engine: Engine,
        capacity: &Capacity,
    ) -> Result<RuntimeHandle<P>, TargetError> {
        let publisher = Publisher::new(Generation::empty(capacity));
        let subscription = publisher.subscribe();
        let rings = Arc::new(Rings::new());
        let core = Datapath::new(engine, capacity, 0)?;
        let macs = ports.iter().map(Port::mac).collect();
        let worker = Worker::new(ports, core, capacity.flows, Arc::clone(&rings));
        let thread = std::thread::Builder::new()
            .name("dash-worker-0".to_owned())
            .spawn(move || worker.run(&subscription.reader()))
            .map_err(|source| TargetError::Os {
                what: "starting a worker".to_owned(),
                source,
            })?;
        Ok(RuntimeHandle {
            engine,
            publisher,
            rings,
            thread: Some(thread),
            macs,
            flow_slots: capacity.flows,
        })
    }
}

/// A packet the data plane leaves to control: ARP, or a next hop not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Port it came in on.
    pub port: u16,
    /// Clock at reception, ns.
    pub timestamp_ns: u64,
    /// The packet as the program left it.
    pub data: Vec<u8>,
}

/// What a runtime counts that has no SAI name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuntimeEvents {
    /// Packets for control that found its ring full.
    pub punts_dropped: u64,
    /// Packets a program failed on: bugs.
    pub aborted: u64,
    /// Failed receives and sends.
    pub port_errors: u64,
}

/// Control's end of a running worker. Dropping it stops the worker.
#[derive(Debug)]
pub struct RuntimeHandle<P> {
    engine: Engine,
    publisher: Publisher,
    rings: Arc<Rings>,
    thread: Option<JoinHandle<Vec<P>>>,
    macs: Vec<[u8; 6]>,
    flow_slots: u32,
}

impl<P> RuntimeHandle<P> {
    /// Who executes.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// MAC of each port.
    pub fn macs(&self) -> &[[u8; 6]] {
        &self.macs
    }

    /// True when every port has ended and everything it brought was run and sent.
    pub fn finished(&self) -> bool {
        // Acquire: pairs with the Release of the worker.
        self.rings.finished.load(Ordering::Acquire)
    }

    /// The next packet for control, if one waits.
    pub fn punted(&mut self) -> Option<Punt> {
        let frame = self.rings.punts.pop()?;
        let punt = Punt {
            port: frame.port,
            timestamp_ns: frame.timestamp_ns,
            data: frame.data().to_vec(),
        };
        // Full: there are more frames than anyone needs, and one is freed.
        let _ = self.rings.spare.push(frame);
        Some(punt)
    }

    /// Sends a packet of control's out of a port; false when it is too long or the ring is full.
    pub fn inject(&mut self, port: u16, data: &[u8]) -> bool {
        let mut frame = self.rings.spare.pop().unwrap_or_default();
        frame.port = port;
        if !frame.fill(data) {
            return false;
        }
        self.rings.injects.push(frame).is_ok()
    }

    /// What the worker counted that has no SAI name.
    pub fn events(&self) -> RuntimeEvents {
        let events = &self.rings.events;
        RuntimeEvents {
            punts_dropped: events.punts_dropped.load(Ordering::Relaxed),
            aborted: events.aborted.load(Ordering::Relaxed),
            port_errors: events.port_errors.load(Ordering::Relaxed),
        }
    }

    /// Stops the worker after the burst it is in; gives the ports back.
    ///
    /// # Errors
    /// The worker is gone: it panicked.
    pub fn stop(mut self) -> Result<Vec<P>, TargetError> {
        self.halt().ok_or(TargetError::Gone)
    }

    /// `None` when it was stopped before, or panicked.
    fn halt(&mut self) -> Option<Vec<P>> {
        let thread = self.thread.take()?;
        // Release: pairs with the Acquire of the worker.
        self.rings.stop.store(true, Ordering::Release);
        thread.thread().unpark();
        thread.join().ok()
    }

    fn running(&self) -> Result<&JoinHandle<Vec<P>>, TargetError> {
        self.thread
            .as_ref()
            .filter(|thread| !thread.is_finished())
            .ok_or(TargetError::Gone)
    }

    /// Asks the worker and waits for its answer.
    fn ask(&mut self, command: impl FnOnce(Asker) -> Command) -> Result<Reply, TargetError> {
        let asker = Asker {
            thread: std::thread::current(),
        };
        // Questions are asked one at a time (`&mut self`), so there is room.
        self.rings
            .commands
            .push(command(asker))
            .map_err(|_| TargetError::Gone)?;
        self.running()?.thread().unpark();
        loop {
            if let Some(reply) = self.rings.replies.pop() {
                return Ok(reply);
            }
            self.running()?;
            // The worker unparks us; the limit is for a worker that dies before it does.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl<P> Drop for RuntimeHandle<P> {
    fn drop(&mut self) {
        self.halt();
    }
}

impl<P: Send> Target for RuntimeHandle<P> {
    /// The new generation is made here, and the worker sees it from its next burst on.
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        self.running()?;
        let next = self
            .publisher
            .with_current(|now| now.next(self.engine, update))?;
        self.publisher.publish(next);
        let enis = update.delta.deleted_enis();
        if !enis.is_empty() {
            // Before the next update may give an index to another ENI.
            let purge = |asker| Command::Purge {
                asker,
                next: 0,
                enis,
            };
            match self.ask(purge)? {
                Reply::Purged(enis) => drop(enis),
                Reply::Counters(_) | Reply::Flows(_) => return Err(TargetError::Gone),
            }
        }
        Ok(())
    }

    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        match self.ask(Command::Counters)? {
            Reply::Counters(counters) => Ok(counters),
            Reply::Flows(_) | Reply::Purged(_) => Err(TargetError::Gone),
        }
    }

    /// Each connection is whole; the list is not of one moment, as packets run while it is made.
    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        let flows = Vec::with_capacity(self.flow_slots as usize);
        match self.ask(|asker| Command::Flows {
            asker,
            next: 0,
            flows,
        })? {
            Reply::Flows(mut flows) => {
                flows.shrink_to_fit();
                Ok(flows)
            }
            Reply::Counters(_) | Reply::Purged(_) => Err(TargetError::Gone),
        }
    }
}
