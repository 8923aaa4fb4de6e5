//! AF_XDP sockets: frames of one queue of an interface, in memory shared with the kernel.

mod ring;

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::check;
use super::umem::{CHUNK, Chunk, Umem};
use ring::{Consumer, Producer};

/// `XDP_MAX_TX_SKB_BUDGET`: frames that one wake-up sends in copy mode (Linux 6.17).
const MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// What is asked for it; the kernel's own is 32.
const TX_BUDGET: u32 = 256;

/// Send buffer asked for, bytes.
const SEND_BUFFER: libc::c_int = 8 << 20;

/// `SO_PREFER_BUSY_POLL` and `SO_BUSY_POLL_BUDGET` (Linux 5.11).
const PREFER_BUSY_POLL: libc::c_int = 69;
const BUSY_POLL_BUDGET: libc::c_int = 70;

/// Frames of one round of busy polling.
const POLL_BUDGET: libc::c_int = 64;

/// Sockets that one call waits for; further ones are not woken for.
const MAX_WAIT: usize = 64;

/// How the kernel moves packets between a queue and the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyMode {
    /// Zero-copy where the driver can, else copy.
    #[default]
    Auto,
    /// The kernel copies: works with every driver.
    Copy,
    /// The device reads and writes the memory; fails where its driver cannot.
    ZeroCopy,
}

/// What a socket is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Interface index.
    pub ifindex: u32,
    /// Queue of it.
    pub queue: u32,
    /// Entries of each of the four rings: a power of two.
    pub ring: u32,
    /// Copy or not. Sockets that share memory are as the first.
    pub mode: CopyMode,
    /// Packets may be longer than a chunk (Linux 6.6). Sockets that share memory are as the first.
    pub multi_buffer: bool,
    /// Poll the device's queue in our system calls, for at most this long, µs.
    pub busy_poll: Option<u32>,
}

/// `struct xdp_statistics`: what the kernel counted on a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of struct xdp_statistics")]
pub struct Statistics {
    pub rx_dropped: u64,
    pub rx_invalid_descs: u64,
    pub tx_invalid_descs: u64,
    pub rx_ring_full: u64,
    pub rx_fill_ring_empty_descs: u64,
    pub tx_ring_empty_descs: u64,
}

/// A received part of a packet.
#[derive(Debug)]
pub struct Received<'u> {
    /// Where it lies.
    pub chunk: Chunk<'u>,
    /// From here, bytes of the chunk.
    pub start: usize,
    /// Bytes; `start + len` is inside the chunk.
    pub len: usize,
    /// The packet goes on in the next one.
    pub more: bool,
}

/// A bound socket and its four rings. The kernel takes it out of XSKMAPs when it is dropped.
#[derive(Debug)]
pub struct Xsk {
    // Dropped before the descriptor, on which they do not depend, and before `umem`.
    fill: Producer<u64>,
    tx: Producer<libc::xdp_desc>,
    rx: Consumer<libc::xdp_desc>,
    completion: Consumer<u64>,
    fd: Arc<OwnedFd>,
    umem: Umem,
    /// Chunks that the kernel has from `fill` and `tx`.
    filled: u32,
    sending: u32,
}

impl Xsk {
    /// Opens a socket on one queue. The first on a UMEM registers the memory; those after it name
    /// any socket that is open on it.
    pub fn open(umem: &Umem, sharing: Option<&Xsk>, setup: &Setup) -> io::Result<Self> {
        // SAFETY: takes numbers only.
        let fd =
            check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: `fd` was just opened and nobody else holds it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if sharing.is_none() {
            let (addr, len) = umem.region();
            let registration = libc::xdp_umem_reg {
                addr,
                len,
                chunk_size: CHUNK as u32,
                // The kernel adds its XDP_PACKET_HEADROOM of 256 bytes, which is enough.
                headroom: 0,
                flags: 0,
                tx_metadata_len: 0,
            };
            set(&fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)?;
        }
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
            libc::XDP_TX_RING,
        ] {
            set(&fd, libc::SOL_XDP, ring, &setup.ring)?;
        }
        // A favour, as is the buffer.
        let _ = set(
            &fd,
            libc::SOL_XDP,
            MAX_TX_SKB_BUDGET,
            &TX_BUDGET.min(setup.ring),
        );
        // In copy mode frames on their way count against the send buffer, as of any socket.
        let buffer = &SEND_BUFFER;
        if set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, buffer).is_err() {
            let _ = set(&fd, libc::SOL_SOCKET, libc::SO_SNDBUF, buffer);
        }
        if let Some(us) = setup.busy_poll {
            let us = libc::c_int::try_from(us).unwrap_or(libc::c_int::MAX);
            set(&fd, libc::SOL_SOCKET, PREFER_BUSY_POLL, &1)?;
            set(&fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &us)?;
            set(&fd, libc::SOL_SOCKET, BUSY_POLL_BUDGET, &POLL_BUDGET)?;
        }
        let offsets = offsets(&fd)?;
        let size = setup.ring;
        let fill = Producer::map(&fd, libc::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, size)?;
        let completion = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
        let completion = Consumer::map(&fd, completion, &offsets.cr, size)?;
        let rx = Consumer::map(&fd, libc::XDP_PGOFF_RX_RING as u64, &offsets.rx, size)?;
        let tx = Producer::map(&fd, libc::XDP_PGOFF_TX_RING as u64, &offsets.tx, size)?;
        bind(&fd, sharing.map(|other| other.fd.as_raw_fd()), setup)?;
        Ok(Self {
            fill,
            tx,
            rx,
            completion,
            fd: Arc::new(fd),
            umem: umem.clone(),
            filled: 0,
            sending: 0,
        })
    }

    /// For an XSKMAP, while it lives.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// True when the device itself reads and writes the memory.
    pub fn zero_copy(&self) -> bool {
        let mut options = libc::xdp_options { flags: 0 };
        get(&self.fd, libc::SOL_XDP, libc::XDP_OPTIONS, &mut options).is_ok()
            && options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0
    }

    /// Counters of the socket, as long as it is open, for who does not hold it.
    pub fn counters(&self) -> Counters {
        Counters(Arc::downgrade(&self.fd))
    }

    /// Chunks in the kernel's hands: to receive into, and to send.
    pub fn in_kernel(&self) -> (u32, u32) {
        (self.filled, self.sending)
    }

    /// The rings, for a burst.
    pub fn rings(&mut self) -> Rings<'_> {
        Rings {
            umem: &self.umem,
            fill: &mut self.fill,
            tx: &mut self.tx,
            rx: &mut self.rx,
            completion: &mut self.completion,
            filled: &mut self.filled,
            sending: &mut self.sending,
        }
    }

    /// True when the kernel receives into new chunks only after [`wake_rx`](Self::wake_rx).
    pub fn rx_sleeps(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// True when frames wait in the tx ring for a [`wake_tx`](Self::wake_tx).
    pub fn tx_sleeps(&self) -> bool {
        self.tx.waiting() > 0 && self.tx.needs_wakeup()
    }

    /// Makes the kernel look at the fill ring, and poll the device when busy polling. `ENXIO`: the
    /// interface is gone; `ENETDOWN`: it is down.
    pub fn wake_rx(&self) -> io::Result<()> {
        let (fd, flags) = (self.fd.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: no buffer and no address are given; AF_XDP copies nothing.
        let result = unsafe {
            libc::recvfrom(
                fd,
                ptr::null_mut(),
                0,
                flags,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Makes the kernel send from the tx ring; it may take several calls for all. Errors as of
    /// [`wake_rx`](Self::wake_rx), and `EAGAIN` or `EBUSY`: more is left.
    pub fn wake_tx(&self) -> io::Result<()> {
        let (fd, flags) = (self.fd.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: no buffer and no address are given; AF_XDP copies nothing.
        let result = unsafe { libc::sendto(fd, ptr::null(), 0, flags, ptr::null(), 0) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits until a frame is at one of the sockets, or the time is over.
    pub fn wait<'a>(sockets: impl Iterator<Item = &'a Self>, timeout: Duration) {
        let none = libc::pollfd {
            fd: -1,
            events: libc::POLLIN,
            revents: 0,
        };
        let (mut polls, mut count) = ([none; MAX_WAIT], 0);
        for (poll, socket) in polls.iter_mut().zip(sockets) {
            if socket.rx.waiting() > 0 {
                return;
            }
            poll.fd = socket.fd();
            count += 1;
        }
        let ms = timeout.as_millis().try_into().unwrap_or(libc::c_int::MAX);
        // SAFETY: the first `count` of `polls`, exclusive, alive through the call. An error means no
        // wait.
        unsafe { libc::poll(polls.as_mut_ptr(), count, ms) };
    }
}

/// Counters of a socket that somebody else holds.
#[derive(Clone, Debug)]
pub struct Counters(Weak<OwnedFd>);

impl Counters {
    /// What the kernel counted; `None` when the socket is closed.
    pub fn read(&self) -> Option<Statistics> {
        let fd = self.0.upgrade()?;
        let mut raw = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        get(&fd, libc::SOL_XDP, libc::XDP_STATISTICS, &mut raw).ok()?;
        Some(Statistics {
            rx_dropped: raw.rx_dropped,
            rx_invalid_descs: raw.rx_invalid_descs,
            tx_invalid_descs: raw.tx_invalid_descs,
            rx_ring_full: raw.rx_ring_full,
            rx_fill_ring_empty_descs: raw.rx_fill_ring_empty_descs,
            tx_ring_empty_descs: raw.tx_ring_empty_descs,
        })
    }
}

/// A socket's rings during a burst. When dropped, the kernel sees what was put in and taken out.
#[derive(Debug)]
pub struct Rings<'u> {
    umem: &'u Umem,
    fill: &'u mut Producer<u64>,
    tx: &'u mut Producer<libc::xdp_desc>,
    rx: &'u mut Consumer<libc::xdp_desc>,
    completion: &'u mut Consumer<u64>,
    filled: &'u mut u32,
    sending: &'u mut u32,
}

impl<'u> Rings<'u> {
    /// Gives the kernel a chunk to receive into; back, when the ring is full.
    pub fn fill(&mut self, chunk: Chunk<'u>) -> Result<(), Chunk<'u>> {
        match self.umem.address_of(&chunk) {
            Some(address) if self.fill.push(address) => {
                *self.filled += 1;
                Ok(())
            }
            _ => Err(chunk),
        }
    }

    /// The next received part of a packet.
    pub fn receive(&mut self) -> Option<Received<'u>> {
        loop {
            let desc = self.rx.pop()?;
            *self.filled = self.filled.saturating_sub(1);
            // SAFETY: the kernel gives each chunk of the fill ring back once, by this ring.
            let (chunk, start) = match unsafe { self.umem.chunk_at(desc.addr) } {
                Some(at) if at.1 + desc.len as usize <= CHUNK => at,
                // The kernel does not do this; a chunk outside our memory is nobody's.
                _ => continue,
            };
            return Some(Received {
                chunk,
                start,
                len: desc.len as usize,
                more: desc.options & libc::XDP_PKT_CONTD != 0,
            });
        }
    }

    /// Chunks that the kernel has to receive into.
    pub fn filled(&self) -> u32 {
        *self.filled
    }

    /// True when this many parts of packets can be sent now.
    pub fn tx_room(&mut self, parts: usize) -> bool {
        u32::try_from(parts).is_ok_and(|parts| self.tx.has_room(parts))
    }

    /// Sends `start..start + len` of a chunk, as a packet or, with `more`, as a part of one; back,
    /// when the ring is full or that is not inside the chunk.
    pub fn send(
        &mut self,
        chunk: Chunk<'u>,
        start: usize,
        len: usize,
        more: bool,
    ) -> Result<(), Chunk<'u>> {
        let inside = start.checked_add(len).is_some_and(|end| end <= CHUNK);
        match self.umem.address_of(&chunk).filter(|_| inside) {
            Some(address) => {
                let desc = libc::xdp_desc {
                    addr: address + start as u64,
                    // Not above `CHUNK`.
                    len: len as u32,
                    options: if more { libc::XDP_PKT_CONTD } else { 0 },
                };
                if self.tx.push(desc) {
                    *self.sending += 1;
                    Ok(())
                } else {
                    Err(chunk)
                }
            }
            None => Err(chunk),
        }
    }

    /// A chunk that was sent.
    pub fn completed(&mut self) -> Option<Chunk<'u>> {
        loop {
            let address = self.completion.pop()?;
            *self.sending = self.sending.saturating_sub(1);
            // SAFETY: the kernel gives each chunk of the tx ring back once, by this ring.
            if let Some((chunk, _)) = unsafe { self.umem.chunk_at(address) } {
                return Some(chunk);
            }
        }
    }
}

impl Drop for Rings<'_> {
    fn drop(&mut self) {
        self.rx.release();
        self.completion.release();
        self.fill.publish();
        self.tx.publish();
    }
}

fn bind(fd: &OwnedFd, sharing: Option<RawFd>, setup: &Setup) -> io::Result<()> {
    let flags = match sharing {
        // The rest is as of the socket that is shared with.
        Some(_) => libc::XDP_SHARED_UMEM,
        None => {
            libc::XDP_USE_NEED_WAKEUP
                | match setup.mode {
                    CopyMode::Auto => 0,
                    CopyMode::Copy => libc::XDP_COPY,
                    CopyMode::ZeroCopy => libc::XDP_ZEROCOPY,
                }
                | if setup.multi_buffer {
                    libc::XDP_USE_SG
                } else {
                    0
                }
        }
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: setup.ifindex,
        sxdp_queue_id: setup.queue,
        sxdp_shared_umem_fd: sharing.unwrap_or_default() as u32,
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` is a sockaddr of `len` bytes and lives through the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

fn offsets(fd: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    let none = || libc::xdp_ring_offset {
        producer: 0,
        consumer: 0,
        desc: 0,
        flags: 0,
    };
    let mut offsets = libc::xdp_mmap_offsets {
        rx: none(),
        tx: none(),
        fr: none(),
        cr: none(),
    };
    let len = get(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    if len != size_of::<libc::xdp_mmap_offsets>() {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel's AF_XDP has no need_wakeup: Linux 5.4 or later is needed",
        ));
    }
    Ok(offsets)
}

/// Sets an option whose value is `T`.
fn set<T: Copy>(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let (at, len) = (
        ptr::from_ref(value).cast(),
        size_of::<T>() as libc::socklen_t,
    );
    // SAFETY: the kernel reads at most `len` bytes at `at`, which are `value`.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, at, len) }).map(drop)
}

/// Reads an option into `value`, of integers only; gives how many bytes the kernel wrote.
fn get<T>(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: &mut T,
) -> io::Result<usize> {
    let mut len = size_of::<T>() as libc::socklen_t;
    let at = ptr::from_mut(value).cast();
    // SAFETY: the kernel writes at most `len` bytes at `at`, which are `value`, and the length to
    // `len`; every bit pattern is a value of the structures of integers this is called with.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, at, &mut len) })?;
    Ok(len as usize)
}
