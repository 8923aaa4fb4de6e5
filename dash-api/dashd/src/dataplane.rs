//! What runs packets: a core over ports, or the kernel with such a core behind it.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;

use anyhow::{Context as _, Result, ensure};
use dash_runtime::hooks::Hooks;
use dash_runtime::runtime::{Change, Punt, RuntimeEvents, WorkerStats};
use dash_runtime::{Engine, Options, Runtime, RuntimeHandle};
use dash_wire::tables::FlowEntry;
use nic_linux::{Fronted, KernelFront, KernelPunt};
use nic_target::{
    Capacity, CounterSnapshot, FlowEdit, FlowQuery, Table, Target, TargetError, Update,
};
use nic_targets::{AnyPort, TargetSpec};

use crate::gate::Gated;

/// The core in user space.
type Core = RuntimeHandle<Gated<AnyPort>>;

/// The target as the engine has it.
#[derive(Debug)]
pub enum DataPlane {
    /// Workers over ports.
    Core(Core),
    /// The kernel over interfaces, and a worker for what it does not do itself.
    Kernel {
        /// Both.
        target: Box<Fronted<Core>>,
        /// What the kernel leaves to control.
        punts: Receiver<KernelPunt>,
    },
}

/// Refuses what a target cannot be run with, before a device is touched.
///
/// # Errors
/// The kernel runs compiled code, and so does the core behind it.
pub fn check(spec: &TargetSpec, engine: Engine) -> Result<()> {
    let kernel = matches!(spec, TargetSpec::Kernel { .. });
    ensure!(
        !kernel || engine == Engine::Native,
        "--target {spec} needs --engine native: the kernel compiles what it runs, and what comes up \
         from it must not wait for an interpreter"
    );
    Ok(())
}

impl DataPlane {
    /// Starts workers; `kernel` is the kernel's part, when the target has one.
    ///
    /// # Errors
    /// A worker does not start.
    pub fn start(
        ports: Vec<Vec<Gated<AnyPort>>>,
        kernel: Option<KernelFront>,
        mut options: Options,
    ) -> Result<Self> {
        let Some(kernel) = kernel else {
            let handle = Runtime::spawn(ports, &options);
            return Ok(Self::Core(handle.context("starting the data plane")?));
        };
        // Both write times into flows.
        options.zero = Some(kernel.zero);
        let ports = ports.into_iter().flatten().collect();
        let handle = Runtime::spawn_shared(ports, &options, kernel.front.flows())
            .context("starting the worker behind the kernel")?;
        Ok(Self::Kernel {
            target: Box::new(Fronted::new(kernel.front, handle)),
            punts: kernel.punts,
        })
    }

    fn core(&self) -> &Core {
        match self {
            Self::Core(core) => core,
            Self::Kernel { target, .. } => target.user(),
        }
    }

    fn core_mut(&mut self) -> &mut Core {
        match self {
            Self::Core(core) => core,
            Self::Kernel { target, .. } => target.user_mut(),
        }
    }

    fn target(&mut self) -> &mut dyn Target {
        match self {
            Self::Core(core) => core,
            Self::Kernel { target, .. } => target.as_mut(),
        }
    }

    /// Replaces the programs of users.
    ///
    /// # Errors
    /// A worker does not answer, or the kernel, which sends packets by itself, is in front.
    pub fn set_hooks(&mut self, hooks: Hooks) -> Result<(), TargetError> {
        if matches!(self, Self::Kernel { .. }) && hooks.at_ports() {
            return Err(TargetError::Unsupported {
                engine: "kernel",
                reason: "it sends packets that programs of ports would not see".to_owned(),
            });
        }
        self.core_mut().set_hooks(hooks)
    }

    /// MAC of each port.
    pub fn macs(&self) -> &[[u8; 6]] {
        self.core().macs()
    }

    /// Capacity of each worker's tables.
    pub fn capacity(&self) -> &Capacity {
        self.core().capacity()
    }

    /// Bytes that each table of policy holds in user space.
    pub fn table_memory(&self) -> BTreeMap<Table, usize> {
        self.core().table_memory()
    }

    /// The next packet for control, if one waits: of the core, then of the kernel.
    pub fn punted(&mut self) -> Option<Punt> {
        let core = self.core_mut().punted();
        match self {
            Self::Kernel { punts, .. } if core.is_none() => {
                punts.try_recv().ok().map(|punt| Punt {
                    port: punt.port,
                    timestamp_ns: punt.timestamp_ns,
                    data: punt.data,
                })
            }
            _ => core,
        }
    }

    /// Sends a packet of control's out of a port; false when it is too long or there is no room.
    pub fn inject(&mut self, port: u16, data: &[u8]) -> bool {
        self.core_mut().inject(port, data)
    }

    /// What the workers counted that has no SAI name.
    pub fn events(&self) -> RuntimeEvents {
        self.core().events()
    }

    /// What each worker did: behind the kernel, with what came up.
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        self.core().worker_stats()
    }

    /// Looks at the heartbeats.
    pub fn watch(&mut self) -> Vec<Change> {
        self.core_mut().watch()
    }

    /// Workers that were silent when last [watched](Self::watch).
    pub fn stuck(&self) -> Vec<usize> {
        self.core().stuck()
    }

    /// Flow keys that the kernel had no room for; `None` without a kernel.
    pub fn refused_flows(&self) -> Option<u64> {
        match self {
            Self::Core(_) => None,
            Self::Kernel { target, .. } => Some(target.front().refused_flows()),
        }
    }
}

impl Target for DataPlane {
    fn apply(&mut self, update: &Update) -> Result<(), TargetError> {
        self.target().apply(update)
    }
    fn counters(&mut self) -> Result<CounterSnapshot, TargetError> {
        self.target().counters()
    }
    fn flows(&mut self) -> Result<Vec<FlowEntry>, TargetError> {
        self.target().flows()
    }

    fn find_flows(&mut self, query: &FlowQuery) -> Result<Vec<FlowEntry>, TargetError> {
        self.target().find_flows(query)
    }

    fn edit_flows(&mut self, query: &FlowQuery, edit: FlowEdit) -> Result<u64, TargetError> {
        self.target().edit_flows(query, edit)
    }

    fn flow_count(&mut self) -> Result<usize, TargetError> {
        self.target().flow_count()
    }
}
