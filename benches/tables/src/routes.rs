//! Routes of ENIs, each ENI with a group of its own.

use std::fmt::Debug;

use dash_runtime::tables::lpm::Lpm;
use dash_wire::tables::{Route4Key, Route6Key, RouteRow};
use nic_target::{Capacity, Table as Which};
use zerocopy::{Immutable, IntoBytes};

use crate::{Pace, Table, Way, mix};

/// An address family.
pub trait Family: Debug + 'static {
    /// For rows of tables.
    const NAME: &'static str;
    /// DPDK's table for it.
    const TWIN: &'static str;
    /// Bits of an address.
    const BITS: u8;
    /// Key of its table.
    type Key: IntoBytes + Immutable + Debug;
    #[cfg(feature = "dpdk")]
    #[doc(hidden)]
    type Twin: crate::rte::Twin;

    #[doc(hidden)]
    fn table() -> Which;
    /// Route `n` of an ENI: address and length.
    #[doc(hidden)]
    fn route(eni: u64, n: u64) -> (u128, u8);
    #[doc(hidden)]
    fn key(eni: u64, ip: u128, len: u8) -> Self::Key;
}

/// IPv4. Most routes are /24, some shorter, some hosts.
#[derive(Debug)]
pub enum V4 {}

impl Family for V4 {
    const NAME: &'static str = "v4";
    const TWIN: &'static str = "rte_lpm";
    const BITS: u8 = 32;
    type Key = Route4Key;
    #[cfg(feature = "dpdk")]
    type Twin = crate::rte::Lpm4;

    fn table() -> Which {
        Which::Route4
    }

    fn route(eni: u64, n: u64) -> (u128, u8) {
        let len = match n % 10 {
            0 => 16,
            1 | 2 => 20,
            9 => 32,
            _ => 24,
        };
        let ip = mix(eni << 32 | n) as u32 & u32::MAX << (32 - len);
        (ip.into(), len)
    }

    fn key(eni: u64, ip: u128, len: u8) -> Route4Key {
        Route4Key {
            prefix_len: 32 + u32::from(len),
            group: eni as u32 + 1,
            dst: (ip as u32).to_be_bytes(),
        }
    }
}

/// IPv6. 256 providers' /32s, in them mostly /48s.
#[derive(Debug)]
pub enum V6 {}

impl Family for V6 {
    const NAME: &'static str = "v6";
    const TWIN: &'static str = "rte_lpm6";
    const BITS: u8 = 128;
    type Key = Route6Key;
    #[cfg(feature = "dpdk")]
    type Twin = crate::rte::Lpm6;

    fn table() -> Which {
        Which::Route6
    }

    fn route(eni: u64, n: u64) -> (u128, u8) {
        let len = match n % 10 {
            0 => 40,
            1 => 56,
            9 => 64,
            _ => 48,
        };
        let bits = mix(eni << 32 | n);
        let top = 0x2001_0000 << 32 | u64::from(bits as u8) << 32 | bits >> 32;
        (u128::from(top) << 64 & u128::MAX << (128 - len), len)
    }

    fn key(eni: u64, ip: u128, len: u8) -> Route6Key {
        Route6Key {
            prefix_len: 32 + u32::from(len),
            group: eni as u32 + 1,
            dst: ip.to_be_bytes(),
        }
    }
}

/// Routes of some ENIs.
#[derive(Debug)]
pub struct Routes<F: Family> {
    table: Table<Lpm, F::Key>,
    enis: u64,
    each: u64,
}

impl<F: Family> Clone for Routes<F>
where
    Table<Lpm, F::Key>: Clone,
{
    fn clone(&self) -> Self {
        Self {
            table: self.table.clone(),
            ..*self
        }
    }
}

/// An ENI and an address to look up.
type Asked = (u32, u128);

/// Addresses to look up, in ours and in the twin's form.
#[derive(Debug)]
pub struct Addresses<F: Family> {
    keys: Vec<F::Key>,
    #[cfg(feature = "dpdk")]
    asked: Vec<Asked>,
}

/// DPDK's tables with the same routes, and the same addresses to look up.
#[cfg(feature = "dpdk")]
#[derive(Debug)]
pub struct Beside<F: Family>(F::Twin);

impl<F: Family> Routes<F> {
    /// Makes them, one by one.
    pub fn new(enis: u64, each: u64) -> Self {
        let def = F::table().def(&Capacity::default());
        let mut map = Lpm::new(&def);
        for eni in 0..enis {
            for n in 0..each {
                let (ip, len) = F::route(eni, n);
                let key = F::key(eni, ip, len);
                map.put(key.as_bytes(), RouteRow::default().as_bytes());
            }
        }
        Self {
            table: Table::new(map, def.key_size),
            enis,
            each,
        }
    }

    /// Memory of a route, bytes, everything counted.
    pub fn bytes_each(&self) -> f64 {
        self.table.map.memory() as f64 / self.table.map.len() as f64
    }

    /// Addresses inside routes, of all ENIs in no order.
    pub fn addresses(&self, many: usize) -> Addresses<F> {
        let asked: Vec<Asked> = (0..many as u64)
            .map(|n| {
                let (eni, route) = (mix(n) % self.enis, mix(n) / self.enis % self.each);
                let (ip, len) = F::route(eni, route);
                let host = (u128::from(mix(!n)) << 64).checked_shr((128 - F::BITS + len).into());
                (eni as u32, ip | host.unwrap_or(0))
            })
            .collect();
        let keys = asked.iter();
        Addresses {
            keys: keys
                .map(|(eni, ip)| F::key((*eni).into(), *ip, F::BITS))
                .collect(),
            #[cfg(feature = "dpdk")]
            asked,
        }
    }

    /// Looks them up, at one pace or the other.
    pub fn way<'a>(&'a self, addresses: &'a Addresses<F>, pace: Pace) -> Way<'a> {
        Way::new("ours", move || self.table.find(&addresses.keys, pace))
    }

    /// DPDK's tables with these routes. EAL runs, with memory for them.
    ///
    /// # Errors
    /// DPDK has no memory, or refuses a route.
    #[cfg(feature = "dpdk")]
    pub fn beside(&self, addresses: &Addresses<F>) -> Result<Beside<F>, TwinError> {
        use crate::rte::Twin as _;
        let routes = |eni| (0..self.each).map(move |n| F::route(eni, n));
        let tables = (0..self.enis).map(routes);
        Ok(Beside(F::Twin::new(tables, &addresses.asked)?))
    }

    /// The table after one more route, as a transaction makes it.
    pub fn change(&self, n: u64) -> Self
    where
        Self: Clone,
    {
        let mut next = self.clone();
        let eni = n % self.enis;
        let (ip, len) = F::route(eni, self.each + n);
        let key = F::key(eni, ip, len);
        let row = RouteRow::default();
        next.table.map.put(key.as_bytes(), row.as_bytes());
        next
    }
}

#[cfg(feature = "dpdk")]
pub use crate::rte::Error as TwinError;

#[cfg(feature = "dpdk")]
impl<F: Family> Beside<F> {
    /// Looks the same addresses up.
    pub fn way(&self, pace: Pace) -> Way<'_> {
        use crate::rte::Twin as _;
        Way::new(F::TWIN, move || self.0.find(pace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_are_found<F: Family>() {
        let routes = Routes::<F>::new(3, 1_000);
        let addresses = routes.addresses(2_000);
        for pace in Pace::ALL {
            assert_eq!(routes.way(&addresses, pace).run(), 2_000, "{}", F::NAME);
        }
        assert!(routes.bytes_each() > 4.0);
    }

    #[test]
    fn all_addresses_are_in_a_route() {
        all_are_found::<V4>();
        all_are_found::<V6>();
    }

    #[test]
    fn a_route_takes_at_most_32_bytes() {
        let v4 = Routes::<V4>::new(1, 100_000).bytes_each();
        let v6 = Routes::<V6>::new(1, 100_000).bytes_each();
        assert!(v4 <= 32.0 && v6 <= 32.0, "{v4:.1} and {v6:.1} bytes");
    }

    #[test]
    fn a_change_adds_a_route() {
        let routes = Routes::<V4>::new(2, 100);
        let more = routes.change(5);
        assert_eq!(more.table.map.len(), routes.table.map.len() + 1);
    }
}
