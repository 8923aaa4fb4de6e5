//! Network devices by name: index, MAC, MTU, and the offloads that must be off for raw sockets.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// What is asked once when a port opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Interface index.
    pub index: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Longest IP packet, bytes.
    pub mtu: u32,
    /// `IFF_UP`.
    pub up: bool,
}

/// Names of the interfaces of this network namespace.
pub fn names() -> io::Result<Vec<String>> {
    // SAFETY: takes nothing; gives null or an array that ends with an entry of index 0.
    let list = unsafe { libc::if_nameindex() };
    if list.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut names = Vec::new();
    let mut entry = list;
    loop {
        // SAFETY: `entry` starts at the array and moves on only past entries that are not the
        // last, so it stays inside; each of those has a NUL-terminated name (if_nameindex(3)).
        let name = unsafe {
            if (*entry).if_index == 0 {
                break;
            }
            CStr::from_ptr((*entry).if_name)
        };
        names.push(name.to_string_lossy().into_owned());
        // SAFETY: `*entry` was not the end of the array, so the next one is inside.
        entry = unsafe { entry.add(1) };
    }
    // SAFETY: `list` came from if_nameindex and is freed once; the names were copied.
    unsafe { libc::if_freenameindex(list) };
    Ok(names)
}

/// Looks a device up.
pub fn device(name: &str) -> io::Result<Device> {
    let c_name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: `c_name` is NUL-terminated and lives through the call.
    let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = control_socket()?;
    let mut request = request(name)?;
    ioctl(&socket, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: SIOCGIFHWADDR succeeded, so the kernel wrote this member of the union.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    if address.sa_family != libc::ARPHRD_ETHER && address.sa_family != libc::ARPHRD_LOOPBACK {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("hardware type {} is not Ethernet", address.sa_family),
        ));
    }
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    ioctl(&socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU succeeded, so the kernel wrote this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu } as u32;
    ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS succeeded, so the kernel wrote this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(Device {
        index,
        mac,
        mtu,
        up: libc::c_int::from(flags) & libc::IFF_UP != 0,
    })
}

/// Switches off what makes the kernel hand over frames that were never on a wire: TSO, GSO, GRO
/// and transmit checksums. A device that lacks one of them is fine.
pub fn disable_offloads(name: &str) -> io::Result<()> {
    /// `struct ethtool_value` of linux/ethtool.h.
    #[repr(C)]
    struct Value {
        cmd: u32,
        data: u32,
    }
    // ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO, ETHTOOL_STXCSUM.
    const OFF: [u32; 4] = [0x1f, 0x24, 0x2c, 0x17];
    let socket = control_socket()?;
    for cmd in OFF {
        let mut value = Value { cmd, data: 0 };
        let mut request = request(name)?;
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        match ioctl(&socket, libc::SIOCETHTOOL, &mut request) {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}

pub(super) fn control_socket() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd =
        check(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `fd` was just opened and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is integers, arrays and a union of those and a pointer: all zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "interface names have at most 15 bytes",
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Only for requests whose argument is an ifreq that points to nothing, or to a live value as large
/// as the request says.
fn ioctl(socket: &OwnedFd, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: `request` is an exclusive, whole ifreq; the callers above use SIOCGIF* numbers, which
    // touch nothing else, or SIOCETHTOOL with `ifru_data` at an ethtool_value alive in the caller.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), number as _, std::ptr::from_mut(request)) })
        .map(drop)
}
