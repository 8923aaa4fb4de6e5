//! The configurations of DASH's scale tests, and packets that they let through or stop.
//!
//! Names and sizes are those of the hero test documents of sonic-net/DASH
//! (`documentation/general/program-scale-testing-requirements`): `one-ip`, `baby-hero`, `hero`. The
//! address plan and the pattern of rules, routes and mappings are those of the generator dpugen.
//!
//! ```text
//! an ENI's VM  1.1.0.1 + eni x 0.64.0.0        everything remote  1.4.0.0 + eni x 0.64.0.0
//!
//! remote window w (of 10)   + w x 0.2.0.0      odd addresses: allowed, mapped or routed
//! (0-4: fine rules inbound, 5-9: outbound)     even addresses: denied by a rule of their own
//! ```
//!
//! Two things differ from dpugen on purpose. Its permit rules are terminating and each stage knows
//! its own window alone, so with the default of deny that the DASH documents ask for, nothing but
//! stage 1's window would pass. Here permits of all stages but the last go on to the next, and the
//! last permit of each stage lists the other windows as /15s (dpugen does that in the last stage):
//! every allowed packet crosses all five stages and meets its /32 among a thousand rules in one of
//! them. And inbound rules name PAs, which is what the outer source address is.
//!
//! * [`Scale`]: how much of each.
//! * [`Config`]: the objects ([`rows`](Config::rows)), as transactions, as JSON.
//! * [`traffic`]: connections by number, each with what must become of it.

mod encode;
mod plan;
mod rows;
pub mod traffic;

use nic_target::Capacity;

pub use rows::Row;
pub use traffic::{Expect, Flow};

use plan::Blocks;

/// Remote windows have 2^17 addresses: a /15.
pub const WINDOW: u32 = 1 << 17;

/// How much of each object a configuration has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Name of the test.
    pub name: &'static str,
    /// ENIs, each with a VNET of its own.
    pub enis: u32,
    /// ACL stages bound in each direction; one group (NSG) each.
    pub stages: u32,
    /// Remote windows of an ENI.
    pub windows: u32,
    /// Rules of a group; permits and denies take turns.
    pub rules: u32,
    /// Prefixes (/32) of a rule.
    pub prefixes: u32,
    /// Permit rules of a window whose addresses have mappings; others go by a gateway's.
    pub mapped: u32,
    /// Outbound routes of a window.
    pub routes: u32,
    /// PAs of a VNET, over which its mappings are spread: each has an inbound rule.
    pub pas: u32,
}

impl Scale {
    /// One VM, one address that it talks to.
    pub const ONE_IP: Self = Self {
        name: "one-ip",
        enis: 1,
        stages: 1,
        windows: 1,
        rules: 1,
        prefixes: 1,
        mapped: 1,
        routes: 1,
        pas: 1,
    };

    /// 32 ENIs, 320 groups of 1,000 rules of one prefix, 5,000 routes an ENI, 80,320 mappings.
    pub const BABY_HERO: Self = Self {
        name: "baby-hero",
        enis: 32,
        stages: 5,
        windows: 10,
        rules: 1_000,
        prefixes: 1,
        mapped: 251,
        routes: 500,
        pas: 1,
    };

    /// The requirement for a 200G card: 100 prefixes a rule, 100,000 routes and 10,000 inbound
    /// rules an ENI, 8,000,000 mappings.
    pub const HERO: Self = Self {
        name: "hero",
        enis: 32,
        stages: 5,
        windows: 10,
        rules: 1_000,
        prefixes: 100,
        mapped: 250,
        routes: 10_000,
        pas: 10_000,
    };

    /// Every scale.
    pub const ALL: [Self; 3] = [Self::ONE_IP, Self::BABY_HERO, Self::HERO];

    /// By the name of its test.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name == name)
    }

    /// The same pattern with an `n`th of the ENIs, of the rules and of the prefixes (at least one, and
    /// a permit and a deny where there were both). Stages and windows stay.
    pub fn shrink(self, n: u32) -> Self {
        let part = |of: u32| (of / n.max(1)).max(1);
        let rules = if self.rules < 2 {
            self.rules
        } else {
            part(self.rules).next_multiple_of(2)
        };
        let prefixes = part(self.prefixes);
        // As many routes an address as before.
        let addresses = u64::from(rules) * u64::from(prefixes);
        let before = u64::from(self.rules) * u64::from(self.prefixes);
        let routes = u64::from(self.routes) * addresses / before.max(1);
        let mapped = part(self.mapped).min(rules.div_ceil(2));
        Self {
            enis: part(self.enis),
            rules,
            prefixes,
            mapped,
            routes: u32::try_from(routes).unwrap_or(self.routes).max(1),
            // Each PA is that of a mapping.
            pas: part(self.pas).min(self.windows * mapped * prefixes),
            ..self
        }
    }

    /// Permit rules of a group.
    fn permits(&self) -> u32 {
        self.rules.div_ceil(2)
    }

    /// Allowed addresses of a window.
    fn allowed(&self) -> u32 {
        self.permits() * self.prefixes
    }
}

/// How many rows of each table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the table of its name")]
pub struct Counts {
    pub vnets: u64,
    pub enis: u64,
    pub acl_groups: u64,
    pub acl_rules: u64,
    /// Over all rules, sources and destinations, without the VM's own.
    pub acl_prefixes: u64,
    pub routes: u64,
    pub mappings: u64,
    pub inbound_rules: u64,
}

/// A configuration of a scale.
#[derive(Clone, Debug)]
pub struct Config {
    scale: Scale,
    blocks: Blocks,
}

impl Config {
    /// Plans a configuration; its rows are made while they are asked for.
    pub fn new(scale: Scale) -> Self {
        let blocks = Blocks::of(2 * scale.allowed(), scale.routes);
        Self { scale, blocks }
    }

    /// Its scale.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// How many rows [`rows`](Self::rows) makes.
    pub fn counts(&self) -> Counts {
        let s = &self.scale;
        let (enis, windows) = (u64::from(s.enis), u64::from(s.windows));
        let groups = enis * 2 * u64::from(s.stages);
        Counts {
            vnets: enis,
            enis,
            acl_groups: groups,
            acl_rules: groups * u64::from(s.rules),
            acl_prefixes: groups * (u64::from(s.rules) * u64::from(s.prefixes) + windows - 1),
            routes: enis * windows * self.blocks.routes(),
            mappings: enis * windows * u64::from(s.mapped) * u64::from(s.prefixes),
            inbound_rules: enis * u64::from(s.pas),
        }
    }

    /// Tables just large enough, and `flows` connections.
    pub fn capacity(&self, flows: u32) -> Capacity {
        let counts = self.counts();
        let fit = |n: u64| u32::try_from(n + n / 8 + 64).unwrap_or(u32::MAX);
        Capacity {
            enis: fit(counts.enis),
            routes: fit(counts.routes),
            mappings: fit(counts.mappings),
            inbound_rules: fit(counts.inbound_rules),
            acl_groups: fit(counts.acl_groups),
            flows,
            ..Capacity::default()
        }
    }
}

#[cfg(test)]
mod tests;
