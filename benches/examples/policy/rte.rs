//! DPDK's `rte_lpm` and `rte_lpm6` (c/lpm.c).

use std::ffi::c_int;

/// A table of DPDK's. Never freed: the process ends with the benches.
type Table = *mut std::ffi::c_void;

unsafe extern "C" {
    fn dash_lpm_init() -> c_int;
    fn dash_lpm4_new(rules: u32, tbl8s: u32) -> Table;
    fn dash_lpm4_add(lpm: Table, ip: u32, depth: u8, hop: u32) -> c_int;
    fn dash_lpm4_find(
        lpm: *const Table,
        which: *const u32,
        ip: *const u32,
        n: usize,
        chain: c_int,
        zero: u32,
    ) -> u64;
    fn dash_lpm6_new(rules: u32, tbl8s: u32) -> Table;
    fn dash_lpm6_add(lpm: Table, ip: *const u8, depth: u8, hop: u32) -> c_int;
    fn dash_lpm6_find(
        lpm: *const Table,
        which: *const u32,
        ip: *const u8,
        n: usize,
        chain: c_int,
        zero: u32,
    ) -> u64;
}

pub(crate) fn init() {
    // SAFETY: called once, before any table is made.
    assert!(unsafe { dash_lpm_init() } >= 0, "DPDK does not start");
}

/// Tables of some ENIs, and addresses to find in them.
pub(crate) struct Lpm4 {
    tables: Vec<Table>,
    which: Vec<u32>,
    ips: Vec<u32>,
}

impl Lpm4 {
    pub(crate) fn new(
        enis: impl Iterator<Item = impl Iterator<Item = (u32, u8)>>,
        which: Vec<u32>,
        ips: impl Iterator<Item = u32>,
    ) -> Self {
        let tables = enis.map(|routes| {
            // SAFETY: DPDK runs (`init`).
            let table = unsafe { dash_lpm4_new(1 << 17, 1 << 14) };
            assert!(!table.is_null(), "no memory for rte_lpm");
            for (ip, len) in routes {
                // SAFETY: a table that was just made.
                assert_eq!(unsafe { dash_lpm4_add(table, ip, len, 1) }, 0);
            }
            table
        });
        Self {
            tables: tables.collect(),
            which,
            ips: ips.collect(),
        }
    }

    pub(crate) fn find(&self, chain: bool) -> u64 {
        let zero = std::hint::black_box(0);
        let (which, ips) = (self.which.as_ptr(), self.ips.as_ptr());
        // SAFETY: as many numbers as addresses, and the numbers are of tables.
        unsafe {
            dash_lpm4_find(
                self.tables.as_ptr(),
                which,
                ips,
                self.ips.len(),
                chain.into(),
                zero,
            )
        }
    }
}

/// As [`Lpm4`].
pub(crate) struct Lpm6 {
    tables: Vec<Table>,
    which: Vec<u32>,
    ips: Vec<[u8; 16]>,
}

impl Lpm6 {
    pub(crate) fn new(
        enis: impl Iterator<Item = impl Iterator<Item = (u128, u8)>>,
        which: Vec<u32>,
        ips: impl Iterator<Item = u128>,
    ) -> Self {
        let tables = enis.map(|routes| {
            // SAFETY: DPDK runs (`init`).
            let table = unsafe { dash_lpm6_new(1 << 17, 1 << 18) };
            assert!(!table.is_null(), "no memory for rte_lpm6");
            for (ip, len) in routes {
                // SAFETY: a table that was just made, and 16 bytes.
                let done = unsafe { dash_lpm6_add(table, ip.to_be_bytes().as_ptr(), len, 1) };
                assert_eq!(done, 0);
            }
            table
        });
        Self {
            tables: tables.collect(),
            which,
            ips: ips.map(u128::to_be_bytes).collect(),
        }
    }

    pub(crate) fn find(&self, chain: bool) -> u64 {
        let zero = std::hint::black_box(0);
        let (which, ips) = (self.which.as_ptr(), self.ips.as_ptr());
        // SAFETY: as many numbers as addresses of 16 bytes, and the numbers are of tables.
        unsafe {
            dash_lpm6_find(
                self.tables.as_ptr(),
                which,
                ips.cast(),
                self.ips.len(),
                chain.into(),
                zero,
            )
        }
    }
}
