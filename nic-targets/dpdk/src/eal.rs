//! DPDK's environment abstraction layer: memory, devices and logs of a process, started once.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk_sys as sys;

use crate::{Error, log, pool};

static STARTED: AtomicBool = AtomicBool::new(false);

/// EAL, running. It is cleaned up when this, all devices and ports, and all threads that polled a
/// port are gone, unless frames still hold its memory.
#[derive(Debug)]
pub struct Eal {
    pub(crate) live: Arc<Live>,
}

/// Keeps EAL running.
#[derive(Debug)]
pub(crate) struct Live(());

/// A device that EAL probed, by the number it gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortId(pub(crate) u16);

impl Eal {
    /// Starts EAL with its own arguments (without a program name): `--no-pci`, `--vdev`, `-a`, ...
    ///
    /// The calling thread keeps its CPU affinity, although it becomes EAL's main lcore.
    ///
    /// # Errors
    /// It was started before, refuses an argument, finds no memory, or makes no device of a `--vdev`
    /// or `-a`; with the reason that DPDK logs. It cannot be tried again in this process.
    pub fn init(args: &[String]) -> Result<Self, Error> {
        let mut argv = vec![c"dashwire".to_owned()];
        for argument in args {
            argv.push(
                CString::new(argument.as_str()).map_err(|_| Error::Argument {
                    argument: argument.clone(),
                })?,
            );
        }
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(Error::Again);
        }
        log::capture();
        let mark = log::mark();
        // EAL reorders the array and keeps pointers into its strings, so they stay for good.
        let pointers = argv.into_iter().map(CString::into_raw);
        let argv: &'static mut [*mut c_char] = pointers
            .chain([std::ptr::null_mut()])
            .collect::<Vec<_>>()
            .leak();
        // More arguments than fit an int do not fit a command line.
        let argc = i32::try_from(argv.len() - 1).unwrap_or(i32::MAX);
        let affinity = Affinity::get();
        // SAFETY: `argv` has `argc` strings and a null behind, all of which live for good.
        let result = unsafe { sys::dash_eal_init(argc, argv.as_mut_ptr()) };
        affinity.put_back();
        if result < 0 {
            let arguments = args.join(" ");
            let reason = log::since(mark, &errno_text());
            let hint = hint(&reason, args);
            return Err(Error::Eal {
                arguments,
                reason,
                hint,
            });
        }
        let eal = Self {
            live: Arc::new(Live(())),
        };
        eal.check_devices(args, mark)?;
        log::loud();
        Ok(eal)
    }

    /// Devices that EAL probed and no other device owns, in order.
    pub fn devices(&self) -> Vec<PortId> {
        let mut found = Vec::new();
        let mut next = 0;
        loop {
            // SAFETY: EAL runs; any number is allowed. 0 is "no owner".
            let id = unsafe { sys::rte_eth_find_next_owned_by(next, 0) };
            match u16::try_from(id) {
                Ok(id) if id < sys::DASH_MAX_PORTS => {
                    found.push(PortId(id));
                    next = id + 1;
                }
                _ => return found,
            }
        }
    }

    /// EAL goes on without a device that it could not make: nobody who named one wants that.
    fn check_devices(&self, args: &[String], mark: u64) -> Result<(), Error> {
        let names: Vec<String> = self.devices().into_iter().map(device_name).collect();
        for (device, virtual_device) in named(args) {
            let there = if virtual_device {
                !device.starts_with("net_") && !device.starts_with("eth_")
                    || names.iter().any(|name| name == device)
            } else {
                // PCI addresses may be given without their domain; a device may have several ports.
                names.iter().any(|name| name.contains(device))
            };
            if !there {
                let fallback = if virtual_device {
                    "there is no such driver, or its library is not installed"
                } else {
                    "it is not there, busy, or bound to a driver of the kernel (dpdk-devbind.py --status tells)"
                };
                return Err(Error::NoDevice {
                    device: device.to_owned(),
                    reason: log::since(mark, fallback),
                });
            }
        }
        Ok(())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if pool::reap() {
            // SAFETY: no device, port or registered thread is left (each holds an `Arc` of this), and
            // no mbuf is out: nothing of EAL's will be used again.
            unsafe { sys::rte_eal_cleanup() };
        }
    }
}

/// Devices named in EAL's arguments, and whether they are virtual.
fn named(args: &[String]) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        let (device, is_virtual) = match arg {
            "--vdev" => (args.next(), true),
            "-a" | "--allow" => (args.next(), false),
            _ => match (arg.strip_prefix("--vdev="), arg.strip_prefix("--allow=")) {
                (Some(device), _) => (Some(device), true),
                (_, Some(device)) => (Some(device), false),
                // `-a0000:01:00.0`
                _ => (
                    arg.strip_prefix("-a").filter(|_| !arg.starts_with("--")),
                    false,
                ),
            },
        };
        if let Some(device) = device {
            found.push((device.split(',').next().unwrap_or(device), is_virtual));
        }
    }
    found
}

pub(crate) fn device_name(id: PortId) -> String {
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: the name is at most RTE_ETH_NAME_MAX_LEN (64) bytes with its zero, which fits.
    if unsafe { sys::rte_eth_dev_get_name_by_port(id.0, name.as_mut_ptr()) } != 0 {
        return format!("port{}", id.0);
    }
    // SAFETY: the function wrote a terminated string.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_string_lossy().into_owned()
}

/// What `rte_errno` means, which is negative when EAL passes a result on.
fn errno_text() -> String {
    // SAFETY: reads a number of this thread.
    let code = unsafe { sys::dash_errno() };
    io::Error::from_raw_os_error(code.abs()).to_string()
}

fn hint(reason: &str, args: &[String]) -> &'static str {
    let lower = reason.to_lowercase();
    // SAFETY: geteuid always succeeds.
    let root = unsafe { libc::geteuid() } == 0;
    if lower.contains("hugepage") && !args.iter().any(|a| a == "--no-huge") {
        return if root {
            ": reserve huge pages (dpdk-hugepages.py --setup 1G), or go without them by --no-huge"
        } else {
            ": not root: huge pages need permissions on their mount, or go without them by --no-huge"
        };
    }
    if lower.contains("another primary process") || lower.contains("cannot create lock") {
        return ": give each process a name of its own by --file-prefix";
    }
    if lower.contains("--legacy-mem is not compatible") {
        return ": --no-huge and --in-memory exclude each other; --no-huge --no-shconf is what leaves no files";
    }
    if !root && (lower.contains("permission") || lower.contains("not permitted")) {
        return ": not root";
    }
    ""
}

/// CPUs of the calling thread: EAL pins whoever starts it, and threads inherit that.
struct Affinity(Option<libc::cpu_set_t>);

impl Affinity {
    fn get() -> Self {
        // SAFETY: all zeros is an empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        let size = std::mem::size_of_val(&set);
        // SAFETY: `set` is writable, of this size; 0 is the calling thread.
        let result = unsafe { libc::sched_getaffinity(0, size, &mut set) };
        Self((result == 0).then_some(set))
    }

    fn put_back(self) {
        if let Some(set) = self.0 {
            // SAFETY: `set` is readable, of this size. Failure leaves the thread pinned, no worse.
            unsafe { libc::sched_setaffinity(0, std::mem::size_of_val(&set), &set) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_in_every_spelling_of_their_options() {
        let args = [
            "--vdev",
            "net_null0,size=64",
            "--vdev=net_tap1",
            "-a",
            "01:00.0",
            "-a0000:02:00.0,x=1",
            "--allow=3",
            "--no-huge",
            "-m",
            "64",
        ];
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        assert_eq!(
            named(&args),
            [
                ("net_null0", true),
                ("net_tap1", true),
                ("01:00.0", false),
                ("0000:02:00.0", false),
                ("3", false)
            ]
        );
    }
}
