//! Puts an XDP program on an interface, by a `bpf_link`: the kernel takes it off when the process
//! ends, however it ends.

use std::io;

use thiserror::Error;

use crate::sys::bpf::{self, Link, Program};
use crate::sys::{netdev, rtnl};

/// `XDP_FLAGS_SKB_MODE`.
const SKB: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
const NATIVE: u32 = 1 << 2;

/// Where in the kernel an XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native where the driver can, else SKB.
    #[default]
    Auto,
    /// In the driver, before there is an `sk_buff`.
    Native,
    /// On `sk_buff`s ("generic"): works on every interface, slowly.
    Skb,
}

/// Why a program was not attached.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum AttachError {
    #[error("interface {interface}: {source}")]
    Interface {
        interface: String,
        source: io::Error,
    },
    #[error(
        "interface {interface} already has an XDP program, {program} (id {id}): take it off \
         (ip link set {interface} xdp off, or end its owner) or use another interface"
    )]
    Occupied {
        interface: String,
        program: String,
        id: u32,
    },
    #[error(
        "interface {interface}: attaching an XDP program needs root, or CAP_BPF and CAP_NET_ADMIN"
    )]
    Permission { interface: String },
    #[error(
        "interface {interface}: this kernel has no links for XDP programs: Linux 5.9 or later is needed"
    )]
    OldKernel { interface: String },
    #[error(
        "interface {interface}: its driver runs no XDP program ({source}): attach in SKB mode, or check \
         that its MTU and number of queues are within the driver's limits for XDP"
    )]
    NoNative {
        interface: String,
        source: io::Error,
    },
    #[error("interface {interface}: attaching an XDP program: {source}")]
    Kernel {
        interface: String,
        source: io::Error,
    },
}

/// A program on an interface; taken off when dropped. An interface that is removed takes it along.
#[derive(Debug)]
pub struct Attached {
    _link: Link,
    native: bool,
}

impl Attached {
    /// Attaches `program`; fails when the interface has one already.
    pub fn attach(
        program: &Program,
        interface: &str,
        mode: AttachMode,
    ) -> Result<Self, AttachError> {
        let device = netdev::device(interface).map_err(|source| AttachError::Interface {
            interface: interface.to_owned(),
            source,
        })?;
        let attempt = |flags, native| {
            Link::xdp(program, device.index, flags).map(|link| Self {
                _link: link,
                native,
            })
        };
        // Asked first: the kernel lets a native and an SKB program sit beside each other, and the
        // second would get nothing but what the first passes.
        if let Ok(Some(id)) = rtnl::link(device.index).map(|info| info.xdp) {
            return Err(occupied(interface, id));
        }
        let result = match mode {
            AttachMode::Native => attempt(NATIVE, true),
            AttachMode::Skb => attempt(SKB, false),
            AttachMode::Auto => attempt(NATIVE, true).or_else(|native| {
                // The driver's reason is the one to hear when neither works, unless it has no XDP.
                attempt(SKB, false).map_err(|skb| match native.raw_os_error() {
                    Some(libc::EOPNOTSUPP) => skb,
                    _ => native,
                })
            }),
        };
        result.map_err(|source| explain(interface, device.index, mode, source))
    }

    /// True when the program runs in the driver.
    pub fn is_native(&self) -> bool {
        self.native
    }
}

fn occupied(interface: &str, id: u32) -> AttachError {
    AttachError::Occupied {
        interface: interface.to_owned(),
        program: bpf::program_name(id)
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "without a name".to_owned()),
        id,
    }
}

fn explain(interface: &str, ifindex: u32, mode: AttachMode, source: io::Error) -> AttachError {
    let interface = interface.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => AttachError::Permission { interface },
        // Somebody was faster than we asked.
        Some(libc::EBUSY | libc::EEXIST) => match rtnl::link(ifindex).map(|info| info.xdp) {
            Ok(Some(id)) => occupied(&interface, id),
            _ => AttachError::Kernel { interface, source },
        },
        Some(libc::EINVAL) if !has_links() => AttachError::OldKernel { interface },
        _ if mode == AttachMode::Native => AttachError::NoNative { interface, source },
        _ => AttachError::Kernel { interface, source },
    }
}

/// True when the kernel knows links of XDP programs (5.9).
fn has_links() -> bool {
    // An interface that cannot be: kernels that know the command look for it and say ENODEV.
    let insns = pass();
    Program::load("probe", dash_bpf::ProgramKind::Xdp, &insns)
        .map(|program| Link::xdp(&program, i32::MAX as u32, 0))
        .is_ok_and(|link| matches!(link, Err(e) if e.raw_os_error() == Some(libc::ENODEV)))
}

/// A program that passes every packet to the kernel.
fn pass() -> Vec<dash_bpf::Insn> {
    let mut b = dash_bpf::Builder::new();
    b.mov(
        dash_bpf::builder::R0,
        dash_bpf::helper::XdpAction::Pass as i32,
    );
    b.exit();
    b.finish().unwrap_or_default()
}
