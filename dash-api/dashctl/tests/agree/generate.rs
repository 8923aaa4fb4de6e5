//! Configurations and packets from a small universe, so that they meet.

use std::net::IpAddr;

use dash_model::key::EniKey;
use dash_model::net::IpPrefix;
use dash_model::objects::{EniRoute, Object};
use dash_model::{ObjectKey, Op, Txn};
use dash_pipeline::plan::{Resimulation, UnderlayRoute, UnderlayTable};

use packets::Connection;
use redirects::Quoted;
use universe::{ENIS, PAS, eni_key, group};

mod objects;
mod packets;
mod redirects;
mod rng;
mod universe;

pub(crate) use rng::Rng;
pub(crate) use universe::REVERSE_SIP;

pub(crate) struct World {
    rng: Rng,
    first: bool,
    recent: Vec<Connection>,
    /// Whose packet the last was, and whether it was the VM's.
    last: Option<(Connection, bool)>,
    /// What TCP of the VM's was just sent as.
    sent: Option<(Connection, Quoted)>,
    /// Whose packet is next: its last got through, or a redirect of it came.
    again: Option<Connection>,
    /// An ENI that went, to come back.
    deleted: Option<usize>,
}

impl World {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            first: true,
            recent: Vec::new(),
            last: None,
            sent: None,
            again: None,
            deleted: None,
        }
    }

    /// Offers transactions until one is taken (any taken one changes the world enough).
    pub(crate) fn step(&mut self, mut offer: impl FnMut(Txn) -> bool) {
        if std::mem::take(&mut self.first) {
            let base = self.base();
            assert!(
                offer(txn(base.clone())),
                "the first configuration is legal: {base:?}"
            );
        }
        for _ in 0..20 {
            let mut ops = Vec::new();
            if let Some(n) = self.deleted.take_if(|_| self.rng.once_in(3)) {
                ops.push((ObjectKey::Eni(eni_key(n)), Some(Object::Eni(self.eni(n)))));
                ops.push((
                    ObjectKey::EniRoute(eni_key(n)),
                    Some(Object::EniRoute(EniRoute {
                        group: group(n % 2),
                    })),
                ));
                ops.extend((0..12).map(|_| self.rule()));
            }
            for _ in 0..=self.rng.below(8) {
                self.change(&mut ops);
            }
            if offer(txn(ops)) {
                return;
            }
        }
    }

    /// Now and then flows of an ENI are to be decided again: whose, how, and whether all of them.
    pub(crate) fn resimulation(&mut self) -> Option<(EniKey, Resimulation, bool)> {
        if !self.rng.once_in(3) {
            return None;
        }
        let keep = [0, 0, 0x1, 0x8, 0x2, 0x3c0, 0x3cb];
        let how = Resimulation {
            per_second: self.rng.pick(&[None, Some(0), Some(1), Some(3)]),
            keep: self.rng.pick(&keep),
        };
        let all = !self.rng.once_in(3);
        Some((eni_key(self.rng.below(ENIS)), how, all))
    }

    /// Another underlay, now and then.
    pub(crate) fn underlay(&mut self) -> Option<UnderlayTable> {
        let r = &mut self.rng;
        if !r.once_in(10) {
            return None;
        }
        let mut table = UnderlayTable {
            port_macs: vec![[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 3]],
            ..UnderlayTable::default()
        };
        if r.once_in(2) {
            return Some(table);
        }
        for (prefix, len) in [
            ([101, 1, 2, 0], 24),
            ([25, 1, 1, 0], 24),
            ([101, 0, 0, 0], 8),
            ([30, 0, 0, 0], 16),
        ] {
            if r.once_in(2) {
                let next_hop = r.once_in(2).then(|| IpAddr::from(r.pick(&PAS)));
                let prefix = IpPrefix::new(IpAddr::from(prefix), len).unwrap();
                table.routes.push(UnderlayRoute {
                    prefix,
                    port: r.below(2) as u32,
                    next_hop,
                });
            }
        }
        for pa in PAS {
            if !r.once_in(4) {
                let port = r.below(2) as u32;
                table
                    .neighbors
                    .insert(IpAddr::from(pa), ([2, 0, 0, 0, 5, pa[3]], port));
            }
        }
        Some(table)
    }

    /// Mostly short, sometimes past a timeout.
    pub(crate) fn pause_ns(&mut self) -> u64 {
        match self.rng.below(60) {
            0 => 31_000_000_000,
            1 => 5_000_000_000,
            2 => 2_000_000_000,
            n => n as u64 * 100_000,
        }
    }

    /// Tells what the last packet was sent as.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let Some((c, outbound)) = self.last else {
            return;
        };
        if outbound {
            self.sent = Quoted::of_sent(bytes).map(|quoted| (c, quoted));
        }
        if self.rng.once_in(2) {
            self.again = Some(c);
        }
    }
}

fn txn(ops: Vec<(ObjectKey, Option<Object>)>) -> Txn {
    ops.into_iter()
        .enumerate()
        .map(|(i, (key, object))| match object {
            Some(object) => {
                let raw = format!("{object:?}").into_bytes();
                Op::set(i, key, object, raw)
            }
            None => Op::del(i, key),
        })
        .collect()
}
