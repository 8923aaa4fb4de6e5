//! Ports over AF_XDP sockets: frames of an interface's queues in memory shared with the kernel.
//!
//! [`open`] makes the ports of all workers at once. They share one [`Umem`], so that a frame leaves by
//! any of them without a copy by us, whichever it came in on; frames of other memory are copied once.
//! A worker has every queue `q` of an interface for which `q % workers` is its number, so that nothing
//! is lost where an interface has more queues than there are workers.
//!
//! Frames are as the XDP hook sees them, which on a wire is as they were sent. On veth, switch off at
//! the sending end what leaves work to hardware that is not there: transmit checksums (`ethtool -K IF tx
//! off`) and VLAN tags beside the frame (`txvlan off`); the kernel itself stops large segments.

mod port;
mod setup;

pub(crate) use port::Observer;
pub use port::{XdpCounters, XdpPort};
pub use setup::{XdpError, XdpOptions, open, open_with, redirect};

#[cfg(doc)]
use crate::sys::umem::Umem;
