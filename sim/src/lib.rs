//! A NIC without hardware: ports in memory with a virtual clock and seeded faults ([`port`],
//! [`faults`]), ports over capture files ([`pcap`], [`capture`]), and the packets that tests and
//! demos send through them ([`packet`], [`dissect`], [`checksum`]).

#![forbid(unsafe_code)]

pub mod capture;
pub mod checksum;
pub mod dissect;
pub mod faults;
pub mod packet;
pub mod pcap;
pub mod port;

pub use capture::{CaptureError, CaptureReader, CaptureWriter, Captured, read_capture};
pub use dissect::describe;
pub use faults::Faults;
pub use packet::Packet;
pub use pcap::PcapPort;
pub use port::{SimConfig, SimHandle, SimPort};
