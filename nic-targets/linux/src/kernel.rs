//! The kernel as an executor: its verifier, its JIT, its maps, one packet at a time by
//! `BPF_PROG_TEST_RUN`, with a core of user space behind it.
//!
//! Packets go the way they go on an interface ([`crate::front`]), so this judges our programs by the
//! kernel and the two processors by each other; it does not serve traffic. Time is the packets' own
//! and redirects are recorded ([`crate::rewrite`]).

use dash_bpf::helper::XdpAction;
use dash_runtime::{Core, Engine};
use dash_wire::drop::DropReason;
use dash_wire::tables::FlowEntry;
use nic_target::frame::MAX_FRAME;
use nic_target::{
    Capacity, CounterSnapshot, FlowEdit, FlowQuery, Frame, PacketEngine, Target, TargetError,
    Update, Verdict,
};

use crate::front::{Front, Fronted, os};
use crate::upcall::USER_SPACE;
use crate::{ENGINE, loader};

/// Shortest packet a test run takes: an Ethernet header.
const MIN_PACKET: usize = 14;

/// Every kernel's test run takes packets this long: three quarters of the smallest page.
const SAFE_PACKET: usize = 3072;

/// Packets that the kernel and user space ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Done in the kernel.
    pub kernel: u64,
    /// Handed up.
    pub user: u64,
}

/// The kernel as a target whose packets are run one by one. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
#[derive(Debug)]
pub struct KernelEngine {
    target: Fronted<Core>,
    now_ns: u64,
    /// Where a test run leaves the packet.
    out: Box<[u8]>,
    /// Packets too short for the kernel, counted as the program would have.
    short: u64,
    shares: Shares,
}

fn unsupported(reason: impl ToString) -> TargetError {
    TargetError::Unsupported {
        engine: ENGINE,
        reason: reason.to_string(),
    }
}

impl KernelEngine {
    /// An engine without code, with tables of this capacity. `user` runs what goes up.
    ///
    /// # Errors
    /// The kernel refuses a map, or `user` cannot run on this machine.
    pub fn new(capacity: &Capacity, user: Engine) -> Result<Self, TargetError> {
        let front = Front::test_run(capacity)?;
        let core = Core::shared(user, capacity, front.flows())?;
        Ok(Self {
            target: Fronted::new(front, core),
            now_ns: 0,
            out: vec![0; MAX_FRAME].into_boxed_slice(),
            short: 0,
            shares: Shares::default(),
        })
    }

    /// Why the kernel cannot be used here (not root, or bpf() is forbidden), or `None`.
    pub fn unavailable() -> Option<String> {
        loader::create_map(&crate::rewrite::executor_map())
            .err()
            .map(|e| e.to_string())
    }

    /// Who ran packets so far.
    pub fn shares(&self) -> Shares {
        self.shares
    }
}

impl Target for KernelEngine {
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        self.target.apply(update)
    }

    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        let mut snapshot = self.target.counters()?;
        for stat in DropReason::OuterMalformed.port_stats() {
            snapshot.port[*stat as usize] += self.short;
        }
        Ok(snapshot)
    }

    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        self.target.flows()
    }

    fn find_flows(&mut self, query: &FlowQuery) -> Result<Vec<FlowEntry>, TargetError> {
        self.target.find_flows(query)
    }

    fn edit_flows(&mut self, query: &FlowQuery, edit: FlowEdit) -> Result<u64, TargetError> {
        self.target.edit_flows(query, edit)
    }

    fn flow_count(&mut self) -> Result<usize, TargetError> {
        self.target.flow_count()
    }
}

impl PacketEngine for KernelEngine {
    fn name(&self) -> &'static str {
        ENGINE
    }

    fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.target.user_mut().advance(self.now_ns);
    }

    fn injected(&mut self) -> Option<(u16, Vec<u8>)> {
        self.target.user_mut().injected()
    }

    fn run(&mut self, frame: &mut Frame) -> Result<Verdict, TargetError> {
        self.advance(frame.timestamp_ns);
        let loaded = self.target.front().loaded().ok_or(TargetError::NoImage)?;
        let len = frame.data().len();
        if len < MIN_PACKET {
            // A driver never shows XDP less than an Ethernet header, and a test run refuses it.
            self.short += 1;
            return Ok(Verdict::Drop);
        }
        let too_long = |limit: usize| {
            unsupported(format!(
                "a packet of {len} bytes is longer than programs see in a test run ({limit} bytes)"
            ))
        };
        if len > loaded.longest() {
            return Err(too_long(loaded.longest()));
        }
        let run = loaded.run(self.now_ns, frame.data(), &mut self.out);
        let (run, redirected_to) = run.map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL | libc::E2BIG | libc::ENOSPC) if len > SAFE_PACKET => {
                too_long(SAFE_PACKET)
            }
            _ => os(format!("running a packet of {len} bytes"))(source),
        })?;
        let packet = self
            .out
            .get(..run.len)
            .ok_or_else(|| unsupported(format!("the packet grew to {} bytes", run.len)))?;
        let action = XdpAction::from_r0(run.retval);
        if action == XdpAction::Redirect && redirected_to == USER_SPACE {
            if packet != frame.data() {
                return Err(unsupported("a packet came up other than it was received"));
            }
            self.shares.user += 1;
            return self.target.user_mut().run(frame);
        }
        self.shares.kernel += 1;
        if !frame.fill(packet) {
            return Err(unsupported(format!("the packet grew to {} bytes", run.len)));
        }
        Ok(match action {
            XdpAction::Drop => Verdict::Drop,
            XdpAction::Pass => Verdict::Pass,
            XdpAction::Tx => Verdict::Send(frame.port),
            XdpAction::Aborted => Verdict::Aborted,
            XdpAction::Redirect => Verdict::Send(
                u16::try_from(redirected_to)
                    .map_err(|_| unsupported(format!("port {redirected_to} is above 65535")))?,
            ),
        })
    }
}
