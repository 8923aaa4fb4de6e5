//! Connections: creation, the TCP life, and ageing (DASH reference 4.4, 4.5; HA-HLD 11.4).
//!
//! ```text
//!             TCP                          not TCP
//!  create --> HALF_OPEN 5 s                ESTABLISHED 30 s
//!                | packet of side 1
//!                v
//!             ESTABLISHED 30 s
//!                | FIN of both sides
//!                v
//!             CLOSING 2 s --> gone, FLOW_DELETED;  the others --> gone, FLOW_AGED
//! ```
//!
//! (Times are settings, [`Timeouts`].) A RST ends a connection at once, and so does a SYN without ACK, except one of the side that
//! began, while it is still half open. Every packet of either side starts the timeout again.

use std::collections::{BTreeMap, BTreeSet};

use dash_wire::stats::EniStat;
use dash_wire::tables::{FlowActions, FlowEntry, FlowHalf, FlowKey, flow_mark, flow_state};
use nic_target::{FlowEdit, FlowQuery};
use zerocopy::IntoBytes;

use super::fragment::Fragments;
use super::packet::{ICMP, ICMPV6, TCP, UDP};
use crate::ir::Timeouts;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What the flow table must know of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now_ns: u64,
    /// 0 for what is not TCP.
    pub(super) tcp_flags: u8,
    pub(super) inner_len: u16,
}

/// What a look-up came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// Whose packet it is, the entry as the packet left it, and whether a RST ended it.
    Hit {
        side: usize,
        entry: Box<FlowEntry>,
        ended: bool,
    },
    Miss,
    /// A SYN ended the connection, which a redirect may have changed; also a miss.
    Reset {
        redirected: bool,
    },
    /// The packet decides it again; also a miss. The connection as the packet left it, out of the
    /// table.
    Stale(Box<FlowEntry>),
    /// The same, because the packet comes from elsewhere than those before.
    Moved(Box<FlowEntry>),
}

/// What makes a flow fresh.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fresh {
    /// Of the ENI.
    pub(super) epoch: u8,
    /// Flows of it that may be decided again in a second, 0 for any number.
    pub(super) per_second: u32,
}

/// Where a packet came from, and in what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) sip: [u8; 4],
    pub(super) vni: u32,
    pub(super) encap: u8,
}

impl Source {
    /// Where a decision's first encap leads, and which it is.
    fn of(actions: &FlowActions) -> Self {
        Self {
            sip: actions.u0_dip,
            vni: actions.u0_vni,
            encap: actions.u0_encap,
        }
    }
}

/// A connection that went away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) eni: u16,
    /// The ENI counter it moves by 1.
    pub(super) stat: EniStat,
    /// A redirect had changed it.
    pub(super) redirected: bool,
}

type KeyBytes = [u8; size_of::<FlowKey>()];
type Id = u64;

/// All connections.
pub(super) struct Flows {
    most: usize,
    /// Of the pipeline.
    pub(super) timeouts: Timeouts,
    next_id: Id,
    /// Both keys of every connection, with the side.
    index: BTreeMap<KeyBytes, (Id, usize)>,
    entries: BTreeMap<Id, FlowEntry>,
    /// When each connection is due.
    due: BTreeSet<(u64, Id)>,
    pub(super) fragments: Fragments,
    /// By ENI: since when so many flows were decided again.
    renewed: BTreeMap<u16, (u64, u32)>,
}

impl Flows {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most: most as usize,
            timeouts: Timeouts::default(),
            next_id: 0,
            index: BTreeMap::new(),
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            fragments: Fragments::default(),
            renewed: BTreeMap::new(),
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &FlowEntry> {
        self.entries.values()
    }

    /// Takes away everything due at `now_ns`.
    pub(super) fn expire(&mut self, now_ns: u64) -> Vec<Expired> {
        let mut gone = Vec::new();
        while let Some(&(at, id)) = self.due.first() {
            if at > now_ns {
                break;
            }
            let Some(entry) = self.remove(id) else {
                // `due` and `entries` hold the same connections; never spin if they did not.
                self.due.remove(&(at, id));
                continue;
            };
            let closing = entry.state == flow_state::CLOSING;
            let stat = if closing {
                EniStat::FlowDeleted
            } else {
                EniStat::FlowAged
            };
            gone.push(Expired {
                eni: entry.eni,
                stat,
                redirected: redirected(&entry),
            });
        }
        gone
    }

    /// Finds the connection of `key`.
    pub(super) fn peek(&self, key: &FlowKey) -> Option<(usize, FlowEntry)> {
        let (id, side) = self.index.get(&key_bytes(key))?;
        Some((*side, *self.entries.get(id)?))
    }

    /// Finds the connection of `key` and lets the packet move it on.
    ///
    /// With `fresh`, a connection of another epoch may have to be decided again; with `from`, one whose
    /// packets come from elsewhere.
    pub(super) fn lookup(
        &mut self,
        key: &FlowKey,
        seen: Seen,
        fresh: Option<Fresh>,
        from: Option<Source>,
    ) -> Lookup {
        let Some(&(id, side)) = self.index.get(&key_bytes(key)) else {
            return Lookup::Miss;
        };
        let Some(mut entry) = self.entries.get(&id).copied() else {
            return Lookup::Miss;
        };
        let tcp = key.proto == TCP;
        let flag = |bit| tcp && seen.tcp_flags & bit != 0;

        let again = entry.state == flow_state::HALF_OPEN && side == 0;
        if flag(SYN) && !flag(ACK) && !again {
            self.remove(id);
            return Lookup::Reset {
                redirected: redirected(&entry),
            };
        }

        entry.last_seen_ns = seen.now_ns;
        entry.packets[side] += 1;
        entry.bytes[side] += u64::from(seen.inner_len);
        if tcp && entry.state == flow_state::HALF_OPEN && side == 1 {
            entry.state = flow_state::ESTABLISHED;
            entry.timeout_ms = self.timeouts.tcp;
        }
        if flag(FIN) {
            entry.fin |= 1 << side;
            if entry.fin == 0b11 && entry.state != flow_state::CLOSING {
                entry.state = flow_state::CLOSING;
                entry.timeout_ms = self.timeouts.closing;
            }
        }
        self.remove(id);
        let ended = flag(RST);
        if let Some(from) = from
            && side == 0
            && from != Source::of(&entry.sides[1].actions)
            && !ended
        {
            return Lookup::Moved(Box::new(entry));
        }
        if let Some(fresh) = fresh
            && side == 0
            && entry.epoch != fresh.epoch
            && !ended
            && entry.marks & flow_mark::REDIRECTED == 0
            && self.may_renew(entry.eni, fresh.per_second, seen.now_ns)
        {
            return Lookup::Stale(Box::new(entry));
        }
        if !ended {
            self.insert(id, entry);
        }
        Lookup::Hit {
            side,
            entry: Box::new(entry),
            ended,
        }
    }

    /// One more of an ENI's flows may be decided again in this second.
    fn may_renew(&mut self, eni: u16, per_second: u32, now_ns: u64) -> bool {
        if per_second == 0 {
            return true;
        }
        let (since, count) = self.renewed.entry(eni).or_default();
        if now_ns - *since >= 1_000_000_000 {
            (*since, *count) = (now_ns, 0);
        }
        let may = *count < per_second;
        *count += u32::from(may);
        may
    }

    /// Puts a connection back that was decided again; `None` when one of the keys is taken.
    pub(super) fn renew(
        &mut self,
        old: &FlowEntry,
        sides: [FlowHalf; 2],
        meter_class: u32,
        epoch: u8,
    ) -> Option<FlowEntry> {
        let [there, back] = sides.map(|side| side.key);
        let taken = |k: &FlowKey| self.index.contains_key(&key_bytes(k));
        if taken(&there) || taken(&back) || there == back {
            return None;
        }
        let entry = FlowEntry {
            sides,
            meter_class,
            epoch,
            ..*old
        };
        let id = self.next_id;
        self.next_id += 1;
        self.insert(id, entry);
        Some(entry)
    }

    /// Makes a connection of which the packet is the first; `None` when there is no room or one of
    /// the keys is taken.
    pub(super) fn create(
        &mut self,
        sides: [FlowHalf; 2],
        direction: u8,
        meter_class: u32,
        epoch: u8,
        seen: Seen,
    ) -> Option<FlowEntry> {
        let [there, back] = sides.map(|side| side.key);
        let taken = |k: &FlowKey| self.index.contains_key(&key_bytes(k));
        if self.entries.len() >= self.most || taken(&there) || taken(&back) || there == back {
            return None;
        }
        let tcp = there.proto == TCP;
        let (state, timeout_ms) = match there.proto {
            TCP => (flow_state::HALF_OPEN, self.timeouts.half_open),
            UDP => (flow_state::ESTABLISHED, self.timeouts.udp),
            ICMP | ICMPV6 => (flow_state::ESTABLISHED, self.timeouts.icmp),
            _ => (flow_state::ESTABLISHED, self.timeouts.other),
        };
        let entry = FlowEntry {
            sides,
            created_ns: seen.now_ns,
            last_seen_ns: seen.now_ns,
            packets: [1, 0],
            bytes: [u64::from(seen.inner_len), 0],
            timeout_ms,
            eni: there.eni,
            state,
            fin: u8::from(tcp && seen.tcp_flags & FIN != 0),
            direction,
            epoch,
            marks: 0,
            pad: 0,
            meter_class,
        };
        let id = self.next_id;
        self.next_id += 1;
        self.insert(id, entry);
        Some(entry)
    }

    fn insert(&mut self, id: Id, entry: FlowEntry) {
        for (nth, side) in entry.sides.iter().enumerate() {
            self.index.insert(key_bytes(&side.key), (id, nth));
        }
        self.due.insert((deadline(&entry), id));
        self.entries.insert(id, entry);
    }

    /// Changes the side that sent the packet whose answers have this key; tells whether anything is new,
    /// and whether no redirect had changed the connection before. `None` when there is no such side.
    pub(super) fn redirect(
        &mut self,
        answers: &FlowKey,
        change: impl FnOnce(&FlowHalf, &FlowActions) -> Option<FlowActions>,
    ) -> Option<(bool, bool)> {
        let &(id, side) = self.index.get(&key_bytes(answers))?;
        let entry = self.entries.get_mut(&id)?;
        let other = entry.sides[side].actions;
        let sent = &mut entry.sides[1 - side];
        let actions = change(sent, &other)?;
        let first = entry.marks & flow_mark::REDIRECTED == 0;
        let new = first || sent.actions != actions;
        sent.actions = actions;
        entry.marks |= flow_mark::REDIRECTED;
        Some((new, first))
    }

    /// Ends every connection of an ENI that is no more, uncounted; says how many were redirected.
    pub(super) fn purge(&mut self, eni: u32) -> u64 {
        let ids: Vec<Id> = self
            .entries
            .iter()
            .filter(|(_, e)| u32::from(e.eni) == eni)
            .map(|(id, _)| *id)
            .collect();
        let gone = ids.into_iter().filter_map(|id| self.remove(id));
        gone.filter(redirected).count() as u64
    }

    /// Deletes or changes connections; gives the ENI of each.
    pub(super) fn edit(&mut self, query: &FlowQuery, edit: FlowEdit) -> Vec<u16> {
        let mut enis = Vec::new();
        for id in self.entries.keys().copied().collect::<Vec<_>>() {
            let Some(entry) = self.entries.get_mut(&id).filter(|e| query.matches(e)) else {
                continue;
            };
            if enis.len() >= query.most {
                break;
            }
            enis.push(entry.eni);
            match edit {
                FlowEdit::Delete => drop(self.remove(id)),
                FlowEdit::Epoch(epoch) => entry.epoch = epoch,
            }
        }
        enis
    }

    fn remove(&mut self, id: Id) -> Option<FlowEntry> {
        let entry = self.entries.remove(&id)?;
        for side in &entry.sides {
            self.index.remove(&key_bytes(&side.key));
        }
        self.due.remove(&(deadline(&entry), id));
        Some(entry)
    }
}

fn redirected(entry: &FlowEntry) -> bool {
    entry.marks & flow_mark::REDIRECTED != 0
}

fn deadline(entry: &FlowEntry) -> u64 {
    entry
        .last_seen_ns
        .saturating_add(u64::from(entry.timeout_ms) * 1_000_000)
}

fn key_bytes(key: &FlowKey) -> KeyBytes {
    let mut bytes = [0; size_of::<FlowKey>()];
    bytes.copy_from_slice(key.as_bytes());
    bytes
}

/// A state as traces name it.
pub(super) fn state_name(state: u8) -> &'static str {
    match state {
        flow_state::HALF_OPEN => "half open",
        flow_state::ESTABLISHED => "established",
        flow_state::CLOSING => "closing",
        _ => "free",
    }
}
