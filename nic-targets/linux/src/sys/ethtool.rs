//! What drivers tell by ethtool: queues, speed, counters of their own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::check;
use super::netdev::{control_socket, request};

// Commands of linux/ethtool.h.
const GSTRINGS: u32 = 0x1b;
const GSTATS: u32 = 0x1d;
const GSSET_INFO: u32 = 0x37;
const GCHANNELS: u32 = 0x3c;
const GLINKSETTINGS: u32 = 0x4c;

/// `ETH_SS_STATS`.
const STATS: u32 = 1;
/// `ETH_GSTRING_LEN`.
const NAME: usize = 32;
/// Most counters asked for: more than any driver has.
const MAX_STATS: usize = 1 << 16;
/// `SPEED_UNKNOWN`.
const UNKNOWN: u32 = u32::MAX;
/// Words of `struct ethtool_link_settings` before its link mode masks, and more than those masks are:
/// three of at most 127 words.
const SETTINGS: usize = 12 + 3 * 127;

/// Runs a command whose structure is `words`. The kernel must write no more than those.
///
/// # Safety
/// The structure of the command `words[0]`, as the rest of `words` sizes it, is not longer than `words`.
unsafe fn ethtool(socket: &OwnedFd, name: &str, words: &mut [u64]) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    let at = std::ptr::from_mut(&mut request);
    // SAFETY: `request` is an exclusive, whole ifreq, and points at the command's structure in `words`,
    // which is borrowed through the call and long enough by the caller's promise.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, at) }).map(drop)
}

fn pack(low: u32, high: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// The `at`th 32-bit word of a structure.
fn word(words: &[u64], at: usize) -> u32 {
    let bytes = words.get(at / 2).map_or([0; 8], |w| w.to_ne_bytes());
    let [a, b, c, d, e, f, g, h] = bytes;
    u32::from_ne_bytes(if at.is_multiple_of(2) {
        [a, b, c, d]
    } else {
        [e, f, g, h]
    })
}

/// Receive queues in use; 1 for a driver that does not say.
pub fn rx_queues(name: &str) -> io::Result<u32> {
    // struct ethtool_channels: the command, four maxima, then rx, tx, other and combined in use.
    let mut words = [0u64; 5];
    words[0] = pack(GCHANNELS, 0);
    // SAFETY: a structure of 9 words of 32 bits.
    match unsafe { ethtool(&control_socket()?, name, &mut words) } {
        Ok(()) => Ok(word(&words, 5).saturating_add(word(&words, 8)).max(1)),
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(1),
        Err(e) => Err(e),
    }
}

/// Speed of the link, Mbit/s; `None` when the driver does not know.
pub fn speed(name: &str) -> Option<u32> {
    let socket = control_socket().ok()?;
    let mut words = [0u64; SETTINGS.div_ceil(2)];
    words[0] = pack(GLINKSETTINGS, 0);
    // SAFETY: asked with a mask size of 0, the kernel writes the structure without masks, the size it
    // wants, negated, in `link_mode_masks_nwords`, its byte 15.
    unsafe { ethtool(&socket, name, &mut words) }.ok()?;
    let wanted = (words[1].to_ne_bytes()[7] as i8).checked_neg()?;
    words = [0; SETTINGS.div_ceil(2)];
    words[0] = pack(GLINKSETTINGS, 0);
    let mut second = [0; 8];
    second[7] = u8::try_from(wanted).ok()?;
    words[1] = u64::from_ne_bytes(second);
    // SAFETY: the masks are three of `wanted` words, at most 127, for which `words` has room.
    unsafe { ethtool(&socket, name, &mut words) }.ok()?;
    Some(word(&words, 1)).filter(|&speed| speed != UNKNOWN && speed != 0)
}

/// The driver's own counters (`ethtool -S`); none for a driver that has none.
pub fn stats(name: &str) -> io::Result<Vec<(String, u64)>> {
    let socket = control_socket()?;
    // struct ethtool_sset_info: command, reserved, a mask of 64 bits, then one word for each set.
    let mut info = [pack(GSSET_INFO, 0), 1 << STATS, 0];
    // SAFETY: one set is asked for, so one word of 32 bits follows the mask.
    match unsafe { ethtool(&socket, name, &mut info) } {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    }
    if info[1] == 0 {
        return Ok(Vec::new());
    }
    let count = (word(&info, 4) as usize).min(MAX_STATS);
    // Room for a driver that grows between the questions: it cannot be told how much there is.
    let room = 2 * count + 256;
    let mut names = vec![0u64; 2 + room * NAME / 8];
    names[0] = pack(GSTRINGS, STATS);
    names[1] = pack(count as u32, 0);
    // SAFETY: three 32-bit words and `NAME` bytes for each name; the kernel writes as many as the
    // driver has, which it says are `count`, and there is room for twice as many and more.
    unsafe { ethtool(&socket, name, &mut names) }?;
    let mut values = vec![0u64; 1 + room];
    values[0] = pack(GSTATS, count as u32);
    // SAFETY: two 32-bit words and 8 bytes for each value; as for the names.
    unsafe { ethtool(&socket, name, &mut values) }?;
    let named = word(&names, 2) as usize;
    let bytes = names.iter().flat_map(|w| w.to_ne_bytes()).skip(12);
    let bytes = bytes.collect::<Vec<_>>();
    let count = named.min(word(&values, 1) as usize).min(room);
    let names = bytes.chunks_exact(NAME).map(|name| {
        let name = name.split(|&b| b == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).trim().to_owned()
    });
    let values = values.into_iter().skip(1);
    Ok(names.zip(values).take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_where_the_kernel_has_them() {
        let words = [pack(1, 2), pack(3, 4)];
        assert_eq!([0, 1, 2, 3, 4].map(|at| word(&words, at)), [1, 2, 3, 4, 0]);
    }

    #[test]
    fn a_device_without_a_driver_of_this_kind_has_one_queue_and_no_counters() {
        assert_eq!(rx_queues("lo").expect("lo is there"), 1);
        assert_eq!(stats("lo").expect("lo is there"), []);
        assert_eq!(speed("lo"), None);
        for error in [
            rx_queues("no-such-if").expect_err("not there"),
            stats("no-such-if").expect_err("not there"),
        ] {
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
        }
    }
}
