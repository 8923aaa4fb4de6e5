//! AF_PACKET sockets (packet(7)): bursts of whole frames of one interface.

use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::check;

/// Frames a system call carries.
pub const BURST: usize = 32;

/// Socket buffer asked for in each direction, bytes.
const SOCKET_BUFFER: libc::c_int = 8 << 20;

/// `struct virtio_net_hdr` (virtio 1.2, 5.1.6), in host order as packet(7) has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`VNET_NEEDS_CSUM`].
    pub flags: u8,
    /// 0: not a large segment.
    pub gso_type: u8,
    /// Bytes of headers.
    pub hdr_len: u16,
    /// Payload of each segment.
    pub gso_size: u16,
    /// Where the sum begins.
    pub csum_start: u16,
    /// Where it goes, from `csum_start`.
    pub csum_offset: u16,
}

/// The checksum at `csum_start + csum_offset` covers only the pseudo header so far.
pub const VNET_NEEDS_CSUM: u8 = 1;

// Of linux/if_packet.h.
const PACKET_FANOUT: libc::c_int = 18;
const FANOUT_HASH: u32 = 0;
/// The kernel finds a number for the group that no other has.
const FANOUT_UNIQUE_ID: u32 = 0x2000;
/// As PACKET_IGNORE_OUTGOING, which a group does not take from its sockets.
const FANOUT_IGNORE_OUTGOING: u32 = 0x4000;

/// What the kernel said about a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxMeta {
    /// Bytes of it.
    pub len: usize,
    /// It was longer than its buffer.
    pub truncated: bool,
    /// Offload state.
    pub vnet: VnetHeader,
    /// Tag that was taken out of the frame: TPID and TCI.
    pub vlan: Option<(u16, u16)>,
}

/// A raw socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// Room for the control messages of one frame: PACKET_AUXDATA and slack, aligned as cmsghdr.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

impl PacketSocket {
    /// Opens, sees every frame that arrives at `ifindex` (promiscuous) and none that leaves.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0: nothing is queued before everything is set.
        // SAFETY: takes numbers only.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, flags, 0) })?;
        // SAFETY: `fd` was just opened and nobody else holds it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self { fd };
        socket.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1)?;
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
        for (force, plain) in [
            (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
            (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
        ] {
            // Larger buffers are a favour, not a condition.
            if socket.set(libc::SOL_SOCKET, force, &SOCKET_BUFFER).is_err() {
                let _ = socket.set(libc::SOL_SOCKET, plain, &SOCKET_BUFFER);
            }
        }
        let membership = libc::packet_mreq {
            mr_ifindex: ifindex as libc::c_int,
            mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        socket.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
        // SAFETY: sockaddr_ll is integers and an array of them: all zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = ifindex as libc::c_int;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is a sockaddr of `len` bytes and lives through the call.
        check(unsafe { libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), len) })?;
        Ok(socket)
    }

    /// `value` must be of the type the option takes: all calls are in [`open`](Self::open).
    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        let (at, len) = (
            ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        );
        // SAFETY: the kernel reads at most `len` bytes at `at`, which are `value`.
        check(unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, at, len) }).map(drop)
    }

    /// Joins a group of sockets among which the kernel deals packets out by flow: a new group for
    /// `None`. Gives the group's number.
    pub fn join(&self, group: Option<u16>) -> io::Result<u16> {
        let kind = FANOUT_HASH | FANOUT_IGNORE_OUTGOING;
        let option = match group {
            Some(number) => u32::from(number) | (kind << 16),
            None => (kind | FANOUT_UNIQUE_ID) << 16,
        };
        self.set(libc::SOL_PACKET, PACKET_FANOUT, &option)?;
        let mut joined = 0u32;
        let mut len = size_of_val(&joined) as libc::socklen_t;
        let (fd, at) = (self.fd.as_raw_fd(), (&raw mut joined).cast());
        // SAFETY: the kernel writes at most `len` bytes to `joined`, and the length to `len`; both are
        // exclusive and live through the call.
        check(unsafe { libc::getsockopt(fd, libc::SOL_PACKET, PACKET_FANOUT, at, &mut len) })?;
        // The number is the lower half.
        Ok(joined as u16)
    }

    /// False once the interface was removed (not: taken down).
    pub fn bound(&self) -> bool {
        // SAFETY: sockaddr_ll is integers and an array of them: all zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        let mut len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to `address`, and the length to `len`; both
        // are exclusive and live through the call.
        let result =
            unsafe { libc::getsockname(self.fd.as_raw_fd(), (&raw mut address).cast(), &mut len) };
        // The kernel rebinds sockets of a removed device to index -1.
        result == 0 && address.sll_ifindex > 0
    }

    /// Receives frame `i` into `spaces[i]`, up to [`BURST`] of them; how many, or `WouldBlock`.
    pub fn receive<'a>(
        &self,
        spaces: impl Iterator<Item = &'a mut [u8]>,
        meta: &mut [RxMeta; BURST],
    ) -> io::Result<usize> {
        // SAFETY: mmsghdr and iovec are integers and pointers that may be null: all zero is a value.
        let (mut messages, mut pieces): ([libc::mmsghdr; BURST], [[libc::iovec; 2]; BURST]) =
            unsafe { zeroed() };
        let mut headers = [VnetHeader::default(); BURST];
        let mut controls = [Control([0; 64]); BURST];
        let mut count = 0;
        let rows = messages
            .iter_mut()
            .zip(&mut pieces)
            .zip(&mut headers)
            .zip(&mut controls);
        for (space, (((message, piece), header), control)) in spaces.zip(rows) {
            piece[0].iov_base = ptr::from_mut(header).cast();
            piece[0].iov_len = size_of::<VnetHeader>();
            piece[1].iov_base = space.as_mut_ptr().cast();
            piece[1].iov_len = space.len();
            message.msg_hdr.msg_iov = piece.as_mut_ptr();
            message.msg_hdr.msg_iovlen = 2;
            message.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = control.0.len() as _;
            count += 1;
        }
        let fd = self.fd.as_raw_fd();
        // SAFETY: the first `count` messages point to two iovecs and a control buffer each, all in
        // arrays of this frame or in `spaces`, whose exclusive borrows `'a` outlive the call; every
        // length is that of the memory it goes with.
        let received = check(unsafe {
            libc::recvmmsg(
                fd,
                messages.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        })?;
        let received = received as usize;
        for ((message, header), meta) in messages
            .iter()
            .zip(&headers)
            .zip(meta.iter_mut())
            .take(received)
        {
            *meta = RxMeta {
                len: (message.msg_len as usize).saturating_sub(size_of::<VnetHeader>()),
                truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                vnet: *header,
                vlan: vlan_tag(&message.msg_hdr),
            };
        }
        Ok(received)
    }

    /// Sends frames in order, up to [`BURST`] of them; how many went before the first that could
    /// not, or that one's error when it was the first.
    pub fn send<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
        // SAFETY: mmsghdr and iovec are integers and pointers that may be null: all zero is a value.
        let (mut messages, mut pieces): ([libc::mmsghdr; BURST], [[libc::iovec; 2]; BURST]) =
            unsafe { zeroed() };
        let no_offload = VnetHeader::default();
        let mut count = 0;
        for (frame, (message, piece)) in frames.zip(messages.iter_mut().zip(&mut pieces)) {
            piece[0].iov_base = (&raw const no_offload).cast_mut().cast();
            piece[0].iov_len = size_of::<VnetHeader>();
            piece[1].iov_base = frame.as_ptr().cast_mut().cast();
            piece[1].iov_len = frame.len();
            message.msg_hdr.msg_iov = piece.as_mut_ptr();
            message.msg_hdr.msg_iovlen = 2;
            count += 1;
        }
        let fd = self.fd.as_raw_fd();
        // SAFETY: the first `count` messages point to two iovecs each, of this frame; those point to
        // `no_offload` and to frames borrowed through the call, with their lengths; sending reads
        // iovecs and their memory and writes only `msg_len`.
        let sent = check(unsafe {
            libc::sendmmsg(fd, messages.as_mut_ptr(), count, libc::MSG_DONTWAIT as _)
        })?;
        Ok(sent as usize)
    }

    /// Waits until a frame is there, or the time is over.
    pub fn wait(&self, timeout: Duration) {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let ms = timeout.as_millis().try_into().unwrap_or(libc::c_int::MAX);
        // SAFETY: `poll` is one pollfd, exclusive, alive through the call. An error means no wait.
        unsafe { libc::poll(&mut poll, 1, ms) };
    }
}

/// The tag the kernel moved from a frame to its auxiliary data.
fn vlan_tag(header: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: `header` is as the kernel left it: `msg_control` at a live buffer of this call's frame,
    // `msg_controllen` its filled part, which is what CMSG_FIRSTHDR reads.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole, aligned cmsghdr in the buffer.
        let message = unsafe { &*next };
        // SAFETY: computes a length from a length.
        let needed = unsafe { libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as _) } as usize;
        if message.cmsg_level == libc::SOL_PACKET
            && message.cmsg_type == libc::PACKET_AUXDATA
            && message.cmsg_len as usize >= needed
        {
            // SAFETY: the message holds at least an auxdata, by its length; read without alignment.
            let aux = unsafe {
                ptr::read_unaligned(libc::CMSG_DATA(next).cast::<libc::tpacket_auxdata>())
            };
            let tpid = if aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0 {
                aux.tp_vlan_tpid
            } else {
                0x8100
            };
            return (aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
                .then_some((tpid, aux.tp_vlan_tci));
        }
        // SAFETY: as for CMSG_FIRSTHDR; `next` is a header of this buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    None
}
