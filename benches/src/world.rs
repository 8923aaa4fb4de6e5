//! The demo configuration on any engine, and packets for it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use dash_engine::{Engine, Options};
use dash_proto::config::{ConfigRow, config_to_txn, load_config};
use dashctl::engines::EngineName;
use nic_sim::Packet;
use nic_sim::packet::{Layers, last};
use nic_target::{Capacity, Frame, PacketEngine, Target, Verdict};

/// The configuration of `cargo xtask demo`.
const DEMO: &str = include_str!("../../specs/scenarios/demo/config.json");

/// Which rows of the demo configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All.
    All,
    /// All but those of ACLs, which are not a kernel map: the outbound and inbound VNET chain that
    /// the kernel runs too.
    WithoutAcl,
}

/// Rows of the demo configuration.
///
/// # Errors
/// The file is not what it was.
pub fn rows(which: Rows) -> Result<Vec<ConfigRow>> {
    let mut rows = load_config(DEMO)?;
    if which == Rows::WithoutAcl {
        rows.retain(|row| !row.table.starts_with("DASH_ACL_"));
    }
    Ok(rows)
}

/// Commits rows as one transaction.
///
/// # Errors
/// They are refused.
pub fn configure<T: Target + ?Sized>(engine: &mut Engine<T>, rows: &[ConfigRow]) -> Result<()> {
    let (txn, _) = config_to_txn(rows)?;
    engine.commit(txn)?;
    Ok(())
}

/// An engine with rows of the demo configuration and a frame to run packets in.
pub struct Runner<T: PacketEngine + ?Sized = dyn PacketEngine> {
    engine: Engine<T>,
    frame: Frame,
    now_ns: u64,
}

impl Runner {
    /// Starts an engine by name. `cache` keeps the verifier's verdicts.
    ///
    /// # Errors
    /// It does not run here, or refuses the configuration.
    pub fn start(name: EngineName, which: Rows, cache: Option<PathBuf>) -> Result<Self> {
        let capacity = name.capacity();
        let engine = dashctl::engines::start(name, options(capacity, cache))?;
        Self::new(engine, which)
    }
}

/// Options of an engine of this capacity.
pub fn options(capacity: Capacity, cache_dir: Option<PathBuf>) -> Options {
    Options {
        capacity,
        cache_dir,
        ..Options::default()
    }
}

impl<T: PacketEngine + ?Sized> Runner<T> {
    /// Takes an engine and configures it.
    ///
    /// # Errors
    /// The configuration is refused.
    pub fn new(mut engine: Engine<T>, which: Rows) -> Result<Self> {
        configure(&mut engine, &rows(which)?)?;
        Ok(Self {
            engine,
            frame: Frame::new(),
            now_ns: 1,
        })
    }

    /// Runs a packet, received on port 0, at the clock. What comes out is in [`output`](Self::output).
    ///
    /// # Errors
    /// As [`PacketEngine::run`].
    pub fn run(&mut self, packet: &[u8]) -> Result<Verdict> {
        if !self.frame.fill(packet) {
            bail!(
                "a packet of {} bytes is longer than any frame",
                packet.len()
            );
        }
        self.frame.port = 0;
        self.frame.timestamp_ns = self.now_ns;
        Ok(self.engine.target_mut().run(&mut self.frame)?)
    }

    /// Runs a packet that must be sent.
    ///
    /// # Errors
    /// As [`run`](Self::run), or it was not sent.
    pub fn forward(&mut self, packet: &[u8]) -> Result<()> {
        match self.run(packet)? {
            Verdict::Send(_) => Ok(()),
            other => bail!("the packet was not sent: {other:?}"),
        }
    }

    /// The packet as the last run left it.
    pub fn output(&self) -> &[u8] {
        self.frame.data()
    }

    /// Moves the clock.
    pub fn advance(&mut self, ns: u64) {
        self.now_ns += ns;
    }

    /// The clock, ns.
    pub fn now(&self) -> u64 {
        self.now_ns
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine<T> {
        &mut self.engine
    }
}

/// Where the verifier's verdicts are kept, so that a second run does not wait for it.
///
/// # Errors
/// There is no home folder.
pub fn cache() -> Result<PathBuf> {
    dashctl::engines::default_cache_dir().context("no cache folder: set HOME or XDG_CACHE_HOME")
}

const DPU: [u8; 6] = [2, 0, 0, 0, 0, 1];
const NEIGHBOR: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// MAC of the ENI of these packets.
pub const ENI: [u8; 6] = [0xf4, 0x93, 0x9f, 0xef, 0xc4, 0x7e];
const PEER: [u8; 6] = [0xf8, 0x22, 0x83, 0x99, 0x22, 0xa2];
const VIP: [u8; 4] = [10, 0, 0, 1];

fn from_vm(vip: [u8; 4], eni: [u8; 6]) -> Layers<last::Eth> {
    Packet::eth(DPU, NEIGHBOR)
        .ipv4([25, 1, 1, 1], vip)
        .udp(5137, 4789)
        .vxlan(4321)
        .eth(PEER, eni)
}

/// Bytes of UDP payload that make the inner frame 64 bytes with its FCS, which captures leave out.
pub const SMALL: usize = 60 - 14 - 20 - 8;

/// The `n`th flow's outbound packet, VNET to VNET, with `payload` bytes of UDP payload.
pub fn outbound(n: u32, payload: usize) -> Vec<u8> {
    let (source, port) = flow(n);
    from_vm(VIP, ENI)
        .ipv4(source, [10, 1, 1, 1])
        .udp(port, 2000)
        .payload(vec![0x5a; payload])
        .build()
}

/// A SYN of the `n`th sender of a flood; none of [`outbound`]'s flows.
pub fn syn(n: u32) -> Vec<u8> {
    let (source, port) = flow(n);
    from_vm(VIP, ENI)
        .ipv4(source, [10, 1, 1, 1])
        .tcp(port, 80)
        .flags(2)
        .payload([])
        .build()
}

/// The `piece`th fragment of a datagram of the `n`th outbound flow, 3 of 512 bytes each.
pub fn fragment(n: u32, piece: u16) -> Vec<u8> {
    const PIECE: u16 = 512;
    let (source, port) = flow(n);
    let ip = from_vm(VIP, ENI)
        .ipv4(source, [10, 1, 1, 1])
        .id(n as u16)
        .fragment(piece * PIECE / 8, piece < 2);
    match piece {
        0 => ip.udp(port, 2000).payload([1; PIECE as usize - 8]).build(),
        _ => ip.protocol(17).payload([1; PIECE as usize]).build(),
    }
}

/// The `n`th flow's outbound packet over IPv6.
pub fn outbound_v6(n: u32, payload: usize) -> Vec<u8> {
    let (_, port) = flow(n);
    from_vm(VIP, ENI)
        .ipv6(
            [0xfd00, 1, 0, 0, 0, 0, 0, 0x10],
            [0xfd00, 1, 0, 0, 0, 0, 0, 1],
        )
        .udp(port, 2000)
        .payload(vec![0x5a; payload])
        .build()
}

/// The `n`th flow's inbound packet, from a PA of the VNET. Not a reply to [`outbound`].
pub fn inbound(n: u32, payload: usize) -> Vec<u8> {
    to_vm(n, 9, payload)
}

/// The answer to [`outbound`]: the other direction of the `n`th flow.
pub fn reply(n: u32, payload: usize) -> Vec<u8> {
    to_vm(n, 2000, payload)
}

/// A packet of the `n`th flow to the VM, from this port and a PA of the VNET.
fn to_vm(n: u32, from: u16, payload: usize) -> Vec<u8> {
    let (vm, port) = flow(n);
    Packet::eth(DPU, NEIGHBOR)
        .ipv4([101, 1, 2, 3], VIP)
        .udp(5200, 4789)
        .vxlan(45654)
        .eth(ENI, PEER)
        .ipv4([10, 1, 1, 1], vm)
        .udp(from, port)
        .payload(vec![0xa5; payload])
        .build()
}

/// An outbound packet to another VIP: dropped by the first stage.
pub fn vip_miss() -> Vec<u8> {
    from_vm([9, 9, 9, 9], ENI)
        .ipv4([10, 1, 1, 10], [10, 1, 1, 1])
        .udp(1000, 2000)
        .payload([0; SMALL])
        .build()
}

/// An outbound packet of no ENI: dropped once the packet is parsed and its ENI looked up.
pub fn eni_miss() -> Vec<u8> {
    from_vm(VIP, [2, 2, 2, 2, 2, 2])
        .ipv4([10, 1, 1, 10], [10, 1, 1, 1])
        .udp(1000, 2000)
        .payload([0; SMALL])
        .build()
}

/// An outbound TCP packet that the demo configuration's ACL denies.
pub fn denied(flags: u8) -> Vec<u8> {
    from_vm(VIP, ENI)
        .ipv4([10, 1, 1, 10], [10, 1, 1, 1])
        .tcp(1000, 23)
        .flags(flags)
        .payload([])
        .build()
}

/// One packet of each kind the demo configuration treats differently: forwarded ones of four kinds,
/// and drops by route, by no mapping, and before there is an ENI.
pub fn mix() -> Vec<Vec<u8>> {
    let to = |dst: [u8; 4]| {
        from_vm(VIP, ENI)
            .ipv4([10, 1, 1, 10], dst)
            .udp(1000, 2000)
            .payload([0; SMALL])
            .build()
    };
    vec![
        outbound(0, SMALL),
        outbound(1, 1400),
        inbound(0, SMALL),
        outbound_v6(0, SMALL),
        to([10, 1, 0, 1]),
        to([20, 0, 0, 5]),
        to([30, 0, 0, 1]),
        to([10, 2, 5, 1]),
        to([10, 1, 9, 9]),
        vip_miss(),
        eni_miss(),
    ]
}

/// VM address and port of the `n`th flow: no two are alike below 2^30.
fn flow(n: u32) -> (Ipv4Addr, u16) {
    let port = 1024 + (n & 0x3fff) as u16;
    let [_, _, c, d] = (n >> 14).to_be_bytes();
    (Ipv4Addr::new(10, 200, c, d), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_differ() {
        let mut seen = std::collections::HashSet::new();
        assert!((0..100_000).all(|n| seen.insert(flow(n))));
    }

    #[test]
    fn the_rows_without_acls_are_the_others() -> Result<()> {
        let (all, fewer) = (rows(Rows::All)?, rows(Rows::WithoutAcl)?);
        assert!(!fewer.is_empty() && fewer.len() < all.len());
        Ok(())
    }
}
