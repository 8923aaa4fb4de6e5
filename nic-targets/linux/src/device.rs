//! An interface as control sees it: link, and counters of driver, kernel and ports.

use std::fmt;
use std::io;

use nic_target::{Device, Link};

use crate::afpacket::{self, AfPacketPort};
use crate::sys::{ethtool, netdev, rtnl};
use crate::xsk::{self, XdpPort};

/// An interface with all its ports' counters.
#[derive(Debug)]
pub struct LinuxDevice {
    name: String,
    device: netdev::Device,
    ports: Vec<Observer>,
    /// Counters when it was opened.
    before: Vec<(String, u64)>,
}

/// What a port lets control see.
enum Observer {
    AfPacket(afpacket::Observer),
    Xdp(xsk::Observer),
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AfPacket(_) => "AfPacket",
            Self::Xdp(_) => "Xdp",
        })
    }
}

impl LinuxDevice {
    /// The interface of these ports, which are all of it; `None` without ports.
    pub fn of_afpacket<'a>(ports: impl IntoIterator<Item = &'a AfPacketPort>) -> Option<Self> {
        let mut ports = ports.into_iter().peekable();
        let first = *ports.peek()?;
        let observers = ports.map(|port| Observer::AfPacket(port.observer()));
        Some(Self::new(first.interface(), first.device(), observers))
    }

    /// The interface of these ports, which are all of it; `None` without ports.
    pub fn of_xdp<'a>(ports: impl IntoIterator<Item = &'a XdpPort>) -> Option<Self> {
        let mut ports = ports.into_iter().peekable();
        let first = *ports.peek()?;
        let observers = ports.map(|port| Observer::Xdp(port.observer()));
        Some(Self::new(first.interface(), first.device(), observers))
    }

    fn new(name: &str, device: netdev::Device, ports: impl Iterator<Item = Observer>) -> Self {
        let ports = ports.collect();
        let mut this = Self {
            name: name.to_owned(),
            device,
            ports,
            before: Vec::new(),
        };
        // An interface that goes as soon as it is open has counted nothing.
        this.before = this.kernel().unwrap_or_default();
        this
    }

    /// Counters of kernel and driver, since the interface exists.
    fn kernel(&self) -> io::Result<Vec<(String, u64)>> {
        let info = rtnl::link(self.device.index)?;
        let names = rtnl::STATS.into_iter().map(str::to_owned);
        let mut all = names.zip(info.stats).collect::<Vec<_>>();
        // By name, which may change; the index does not.
        for (name, value) in ethtool::stats(&info.name)? {
            if all.iter().all(|(n, _)| *n != name) {
                all.push((name, value));
            }
        }
        Ok(all)
    }

    /// Counters of ports and sockets, summed.
    fn own(&self) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = Vec::new();
        for port in &self.ports {
            let counters = match port {
                Observer::AfPacket(port) => port.read(),
                Observer::Xdp(port) => port.read(),
            };
            for (name, value) in counters {
                match all.iter_mut().find(|(n, _)| n == name) {
                    Some((_, sum)) => *sum += value,
                    None => all.push((name.to_owned(), value)),
                }
            }
        }
        all
    }
}

impl Device for LinuxDevice {
    fn name(&self) -> &str {
        &self.name
    }
    fn mac(&self) -> [u8; 6] {
        self.device.mac
    }
    fn link(&mut self) -> Link {
        match rtnl::link(self.device.index) {
            Ok(info) if info.up && info.carrier => Link::Up(ethtool::speed(&info.name)),
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Link::Gone,
            _ => Link::Down,
        }
    }
    fn xstats(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut all = match self.kernel() {
            Ok(all) => all,
            // The ports' own are still true of an interface that is gone.
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
            Err(e) => return Err(e),
        };
        for (name, value) in &mut all {
            let before = self.before.iter().find(|(n, _)| n == name);
            // A driver that was reset counts from 0 again.
            *value = value
                .checked_sub(before.map_or(0, |(_, v)| *v))
                .unwrap_or(*value);
        }
        all.extend(self.own());
        Ok(all)
    }
}
