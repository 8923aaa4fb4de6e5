//! DPDK's `rte_lpm` and `rte_lpm6` (csrc/lpm.c).

#![expect(unsafe_code, reason = "calls of C functions")]

use std::ffi::{c_int, c_void};
use std::hint::black_box;

use thiserror::Error;

use crate::Pace;

/// Why DPDK does not hold the routes.
#[derive(Debug, Error)]
pub enum Error {
    /// A table was not made.
    #[error("DPDK has no memory for a table of {rules} routes: EAL was given too little (-m)")]
    Memory {
        /// Routes it was to hold.
        rules: u32,
    },
    /// A route was not added.
    #[error("DPDK refuses {ip:#x}/{len}: error {code}")]
    Route {
        /// Address.
        ip: u128,
        /// Prefix length.
        len: u8,
        /// `-errno`.
        code: c_int,
    },
}

/// Tables of some ENIs, and addresses to find in them.
pub trait Twin: Sized + std::fmt::Debug {
    /// Makes a table for each ENI's routes.
    fn new(
        enis: impl Iterator<Item = impl Iterator<Item = (u128, u8)>>,
        asked: &[(u32, u128)],
    ) -> Result<Self, Error>;

    /// Finds the addresses.
    fn find(&self, pace: Pace) -> usize;
}

/// A table of DPDK's.
type Raw = *mut c_void;

unsafe extern "C" {
    fn dash_lpm4_new(rules: u32, tbl8s: u32) -> Raw;
    fn dash_lpm4_add(lpm: Raw, ip: u32, depth: u8, hop: u32) -> c_int;
    fn dash_lpm4_free(lpm: Raw);
    fn dash_lpm4_find(
        lpm: *const Raw,
        which: *const u32,
        ip: *const u32,
        n: usize,
        chain: c_int,
        zero: u32,
    ) -> u64;
    fn dash_lpm6_new(rules: u32, tbl8s: u32) -> Raw;
    fn dash_lpm6_add(lpm: Raw, ip: *const u8, depth: u8, hop: u32) -> c_int;
    fn dash_lpm6_free(lpm: Raw);
    fn dash_lpm6_find(
        lpm: *const Raw,
        which: *const u32,
        ip: *const u8,
        n: usize,
        chain: c_int,
        zero: u32,
    ) -> u64;
}

/// Routes of a table, at most; tables of second and further levels: what DPDK asks for beforehand.
const RULES: u32 = 1 << 17;
const TBL8S_V4: u32 = 1 << 14;
const TBL8S_V6: u32 = 1 << 18;

macro_rules! twin {
    ($(#[$doc:meta])* $name:ident, $ip:ty, $tbl8s:ident, $new:ident, $add:ident, $free:ident, $find:ident, $of:expr, $pass:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            tables: Vec<Raw>,
            which: Vec<u32>,
            ips: Vec<$ip>,
        }

        impl Twin for $name {
            fn new(
                enis: impl Iterator<Item = impl Iterator<Item = (u128, u8)>>,
                asked: &[(u32, u128)],
            ) -> Result<Self, Error> {
                let mut twin = Self {
                    tables: Vec::new(),
                    which: asked.iter().map(|asked| asked.0).collect(),
                    ips: asked.iter().map(|asked| $of(asked.1)).collect(),
                };
                for routes in enis {
                    // SAFETY: makes a table of its own, or says that it cannot.
                    let table = unsafe { $new(RULES, $tbl8s) };
                    if table.is_null() {
                        return Err(Error::Memory { rules: RULES });
                    }
                    twin.tables.push(table);
                    for (ip, len) in routes {
                        let bytes = $of(ip);
                        // SAFETY: a table just made, an address of its family.
                        let code = unsafe { $add(table, $pass(&bytes), len, 1) };
                        if code != 0 {
                            return Err(Error::Route { ip, len, code });
                        }
                    }
                }
                let known = |which: &u32| (*which as usize) < twin.tables.len();
                assert!(twin.which.iter().all(known), "an ENI without a table");
                Ok(twin)
            }

            fn find(&self, pace: Pace) -> usize {
                let chain = c_int::from(pace == Pace::OneByOne);
                // SAFETY: as many numbers as addresses, and all are of tables (`new`).
                let found = unsafe {
                    $find(
                        self.tables.as_ptr(),
                        self.which.as_ptr(),
                        self.ips.as_ptr().cast(),
                        self.ips.len(),
                        chain,
                        black_box(0),
                    )
                };
                found as usize
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                for table in self.tables.drain(..) {
                    // SAFETY: made by `new`, and nobody else has it.
                    unsafe { $free(table) };
                }
            }
        }
    };
}

twin! {
    /// `rte_lpm`.
    Lpm4, u32, TBL8S_V4, dash_lpm4_new, dash_lpm4_add, dash_lpm4_free, dash_lpm4_find,
    |ip: u128| ip as u32, |ip: &u32| *ip
}
twin! {
    /// `rte_lpm6`.
    Lpm6, [u8; 16], TBL8S_V6, dash_lpm6_new, dash_lpm6_add, dash_lpm6_free, dash_lpm6_find,
    u128::to_be_bytes, |ip: &[u8; 16]| ip.as_ptr()
}
