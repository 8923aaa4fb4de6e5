//! From probed devices to ports that run.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dpdk_sys as sys;

use crate::device::{DpdkDevice, QueueCounters, Shared};
use crate::eal::{Eal, PortId, device_name};
use crate::pool::Pool;
use crate::port::DpdkPort;
use crate::{Error, HEADROOM, log};

/// Largest MTU asked for by default: frames of 9,216 bytes with a VLAN tag.
const JUMBO_MTU: u16 = 9216 - FRAME_OVERHEAD;

/// Ethernet header and a VLAN tag, or header and FCS, bytes.
pub(crate) const FRAME_OVERHEAD: u16 = 18;

/// Descriptors of a queue when the driver has no preference.
const DESCRIPTORS: u16 = 512;

/// Mbufs for each queue besides those in descriptors: bursts under way, rings between workers and to
/// control, and what threads' caches hold.
const IN_FLIGHT: u32 = 1024;

/// How to open devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Queue pairs of each device: one for each worker. 0 counts as 1.
    pub queues: u16,
    /// Devices to open, by port number or name, in this order; empty: all that EAL probed.
    pub ports: Vec<String>,
    /// MTU of each device; default: as much as it can, up to jumbo frames of 9,216 bytes. Buffers
    /// have room for a frame of it.
    pub mtu: Option<u16>,
    /// Packet buffers on each NUMA node; default: what queues and descriptors need.
    pub mbufs: Option<u32>,
}

/// Device information and what follows from it.
struct Plan {
    id: PortId,
    name: String,
    info: Box<sys::rte_eth_dev_info>,
    node: i32,
    mtu: u16,
    rx_descriptors: u16,
    tx_descriptors: u16,
}

/// Opens devices with `config.queues` queue pairs each, and starts them.
///
/// # Errors
/// There is no device, one is not there, has too few queues, or refuses something. Then none is open,
/// and those that were opened are closed for good.
pub fn open(eal: &Eal, config: &Config) -> Result<Vec<(DpdkDevice, Vec<DpdkPort>)>, Error> {
    let queues = config.queues.max(1);
    let plans = select(eal, &config.ports)?
        .into_iter()
        .map(|id| plan(id, queues, config.mtu))
        .collect::<Result<Vec<_>, Error>>()?;
    // Buffers hold the longest frame of any device: what one receives another sends.
    let room = plans.iter().map(|p| frame_room(p.mtu)).max().unwrap_or(0);
    let mut needs: BTreeMap<i32, u32> = BTreeMap::new();
    for p in &plans {
        let queue = u32::from(p.rx_descriptors) + u32::from(p.tx_descriptors) + IN_FLIGHT;
        *needs.entry(p.node).or_default() += u32::from(queues) * queue;
    }
    let pools = needs
        .into_iter()
        .map(|(node, need)| {
            let pool = Pool::new(config.mbufs.unwrap_or(need), room, node)?;
            Ok((node, Arc::new(pool)))
        })
        .collect::<Result<BTreeMap<i32, Arc<Pool>>, Error>>()?;
    // A driver may give whole bursts back to one pool only when there is no other.
    let one_pool = pools.len() == 1;
    plans
        .into_iter()
        .map(|p| {
            let pool = pools.get(&p.node).ok_or(Error::NoDevices)?;
            start(
                eal,
                &p,
                queues,
                Arc::clone(pool),
                one_pool,
                config.mtu.is_some(),
            )
        })
        .collect()
}

fn select(eal: &Eal, wanted: &[String]) -> Result<Vec<PortId>, Error> {
    let all = eal.devices();
    if all.is_empty() {
        return Err(Error::NoDevices);
    }
    if wanted.is_empty() {
        return Ok(all);
    }
    let named = all.iter().map(|id| (*id, device_name(*id)));
    let named: Vec<(PortId, String)> = named.collect();
    let find = |port: &String| {
        let hit = named
            .iter()
            .find(|(id, name)| name == port || id.0.to_string() == *port);
        hit.map(|(id, _)| *id).ok_or_else(|| Error::NoPort {
            port: port.clone(),
            existing: named
                .iter()
                .map(|(id, name)| format!("{} ({name})", id.0))
                .collect::<Vec<_>>()
                .join(", "),
        })
    };
    wanted.iter().map(find).collect()
}

/// Calls of a device: an error says which step, and what DPDK logged about it.
fn step<'a>(
    device: &'a str,
    step: &'static str,
    call: impl FnOnce() -> i32 + 'a,
) -> Result<(), Error> {
    let mark = log::mark();
    match call() {
        result if result < 0 => Err(Error::Device {
            device: device.to_owned(),
            step,
            source: io::Error::from_raw_os_error(-result),
            reason: log::appendix(mark),
        }),
        _ => Ok(()),
    }
}

fn plan(id: PortId, queues: u16, mtu: Option<u16>) -> Result<Plan, Error> {
    let name = device_name(id);
    // SAFETY: numbers and pointers, for which zero is a value.
    let mut info: Box<sys::rte_eth_dev_info> = unsafe { Box::new(std::mem::zeroed()) };
    step(&name, "device information", || {
        // SAFETY: `info` is writable.
        unsafe { sys::rte_eth_dev_info_get(id.0, &mut *info) }
    })?;
    let has = info.max_rx_queues.min(info.max_tx_queues);
    if has < queues {
        return Err(Error::Queues {
            device: name,
            has: has.into(),
            wanted: queues.into(),
        });
    }
    let most = most_mtu(&info);
    if let Some(wanted) = mtu.filter(|mtu| u32::from(*mtu) > most) {
        return Err(Error::Mtu {
            device: name,
            most,
            wanted,
        });
    }
    let (mut rx_descriptors, mut tx_descriptors) = (
        preferred(info.default_rxportconf.ring_size),
        preferred(info.default_txportconf.ring_size),
    );
    step(&name, "descriptors", || {
        // SAFETY: both numbers are writable.
        unsafe {
            sys::rte_eth_dev_adjust_nb_rx_tx_desc(id.0, &mut rx_descriptors, &mut tx_descriptors)
        }
    })?;
    // SAFETY: takes any number.
    let node = unsafe { sys::rte_eth_dev_socket_id(id.0) };
    Ok(Plan {
        id,
        name,
        info,
        node,
        // Above: not more than `most`, which then fits.
        mtu: mtu.unwrap_or(u32::from(JUMBO_MTU).min(most) as u16),
        rx_descriptors,
        tx_descriptors,
    })
}

fn preferred(ring_size: u16) -> u16 {
    if ring_size == 0 {
        DESCRIPTORS
    } else {
        ring_size
    }
}

/// Largest MTU of a device, as ethdev itself reckons.
fn most_mtu(info: &sys::rte_eth_dev_info) -> u32 {
    let (mtu, frame) = (u32::from(info.max_mtu), info.max_rx_pktlen);
    let overhead = if info.max_mtu != u16::MAX && frame > mtu {
        frame - mtu
    } else {
        FRAME_OVERHEAD.into()
    };
    mtu.min(frame.saturating_sub(overhead))
}

/// Bytes of an mbuf's buffer for frames of an MTU. NICs fill buffers in units of 1,024 bytes.
fn frame_room(mtu: u16) -> u16 {
    let frame = (usize::from(mtu) + usize::from(FRAME_OVERHEAD)).next_multiple_of(1024);
    // Mbufs do not grow beyond 64 KiB; longer frames come in several and are dropped, counted.
    u16::try_from(HEADROOM + frame).unwrap_or(u16::MAX)
}

/// RSS over addresses and ports, of the inner packet where the device can look there, with a key for
/// which both directions of a connection hash alike.
fn rss(info: &sys::rte_eth_dev_info) -> u64 {
    let can = info.flow_type_rss_offloads;
    let inner = match can & sys::DASH_RSS_INNERMOST {
        0 => 0,
        _ => sys::DASH_RSS_INNERMOST,
    };
    match can & sys::DASH_RSS_TUPLES {
        0 => 0,
        tuples => tuples | inner,
    }
}

fn start(
    eal: &Eal,
    plan: &Plan,
    queues: u16,
    pool: Arc<Pool>,
    one_pool: bool,
    set_mtu: bool,
) -> Result<(DpdkDevice, Vec<DpdkPort>), Error> {
    let (id, name, info) = (plan.id.0, plan.name.as_str(), &plan.info);
    // SAFETY: ethdev's drivers have a name, a static string.
    let driver = unsafe { CStr::from_ptr(info.driver_name) };
    // SAFETY: plain bytes.
    let mut mac: sys::rte_ether_addr = unsafe { std::mem::zeroed() };
    step(name, "MAC", || {
        // SAFETY: `mac` is writable.
        unsafe { sys::rte_eth_macaddr_get(id, &mut mac) }
    })?;
    // From here on dropping `shared` closes the device.
    let shared = Arc::new(Shared {
        id: plan.id,
        name: name.to_owned(),
        mac: mac.addr_bytes,
        // A tap is the device's own, and may be moved to another namespace.
        interface: if driver == c"net_tap" {
            0
        } else {
            info.if_index
        },
        max_frame: u32::from(plan.mtu) + u32::from(FRAME_OVERHEAD),
        gone: AtomicBool::new(false),
        queues: (0..queues).map(|_| QueueCounters::default()).collect(),
        pool,
        live: Arc::clone(&eal.live),
    });
    configure(plan, queues, one_pool)?;
    let socket = plan.node as u32;
    for queue in 0..queues {
        let mut rx = info.default_rxconf;
        rx.offloads = info.rx_offload_capa & sys::DASH_RX_CHECKSUMS;
        step(name, "receive queue", || {
            // SAFETY: `rx` is readable, and the pool lives until the device is closed (`Shared`).
            unsafe {
                sys::rte_eth_rx_queue_setup(
                    id,
                    queue,
                    plan.rx_descriptors,
                    socket,
                    &rx,
                    shared.pool.as_ptr(),
                )
            }
        })?;
        let mut tx = info.default_txconf;
        tx.offloads = fast_free(info, one_pool);
        step(name, "send queue", || {
            // SAFETY: `tx` is readable.
            unsafe { sys::rte_eth_tx_queue_setup(id, queue, plan.tx_descriptors, socket, &tx) }
        })?;
    }
    if set_mtu {
        step(name, "MTU", || {
            // SAFETY: takes any numbers.
            match unsafe { sys::rte_eth_dev_set_mtu(id, plan.mtu) } {
                // Drivers without it take what they were configured with.
                e if e == -libc::ENOTSUP => 0,
                result => result,
            }
        })?;
    }
    shared.listen();
    step(name, "start", || {
        // SAFETY: the device is configured, with all its queues.
        unsafe { sys::rte_eth_dev_start(id) }
    })?;
    // SAFETY: takes any number. Devices without the notion receive everything.
    let promiscuous = unsafe { sys::rte_eth_promiscuous_enable(id) };
    if promiscuous != 0 && promiscuous != -libc::ENOTSUP {
        tracing::warn!(device = %name, result = promiscuous, "not promiscuous: only frames for its MAC are received");
    }
    // SAFETY: take any number; devices that cannot reset count from their start, which is now.
    unsafe {
        sys::rte_eth_stats_reset(id);
        sys::rte_eth_xstats_reset(id);
    }
    tracing::info!(
        device = %name,
        driver = %driver.to_string_lossy(),
        queues,
        mtu = plan.mtu,
        rss = queues > 1 && rss(info) != 0,
        inner_rss = queues > 1 && rss(info) & sys::DASH_RSS_INNERMOST != 0,
        "DPDK device started"
    );
    let ports = (0..queues)
        .map(|queue| DpdkPort::new(Arc::clone(&shared), queue))
        .collect();
    Ok((DpdkDevice { shared }, ports))
}

fn fast_free(info: &sys::rte_eth_dev_info, one_pool: bool) -> u64 {
    if one_pool {
        info.tx_offload_capa & sys::DASH_TX_FAST_FREE
    } else {
        0
    }
}

fn configure(plan: &Plan, queues: u16, one_pool: bool) -> Result<(), Error> {
    let info = &plan.info;
    // 0x6d5a again and again: Toeplitz with it does not see which end is which.
    let mut key = [0x6d, 0x5a].repeat(usize::from(u8::MAX).div_ceil(2));
    // SAFETY: numbers, pointers and unions of them, for which zero is a value.
    let mut conf: Box<sys::rte_eth_conf> = unsafe { Box::new(std::mem::zeroed()) };
    conf.rxmode.mtu = plan.mtu.into();
    conf.rxmode.offloads = info.rx_offload_capa & sys::DASH_RX_CHECKSUMS;
    conf.txmode.offloads = fast_free(info, one_pool);
    conf.rxmode.mq_mode = sys::DASH_MQ_NONE;
    let hash = rss(info);
    if queues > 1 && hash != 0 {
        conf.rxmode.mq_mode = sys::DASH_MQ_RSS;
        let rss = &mut conf.rx_adv_conf.rss_conf;
        rss.rss_hf = hash;
        if info.hash_key_size > 0 {
            rss.rss_key = key.as_mut_ptr();
            rss.rss_key_len = info.hash_key_size;
        }
    }
    // SAFETY: a device without flags has a null pointer; otherwise they are its driver's, and stay.
    let flags = unsafe { info.dev_flags.as_ref() }.copied().unwrap_or(0);
    // SAFETY: `conf` is writable.
    unsafe {
        let (link, removal) = (flags & sys::DASH_FLAG_LSC, flags & sys::DASH_FLAG_RMV);
        sys::dash_set_interrupts(&mut *conf, i32::from(link != 0), i32::from(removal != 0));
    }
    step(&plan.name, "configuration", || {
        // SAFETY: `conf` is readable, and its key has `hash_key_size` (at most 255) bytes; ethdev copies
        // both.
        unsafe { sys::rte_eth_dev_configure(plan.id.0, queues, queues, &*conf) }
    })
}
