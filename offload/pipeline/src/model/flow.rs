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
//! A RST ends a connection at once, and so does a SYN without ACK, except one of the side that
//! began, while it is still half open. Every packet of either side starts the timeout again.

use std::collections::{BTreeMap, BTreeSet};

use dash_wire::stats::EniStat;
use dash_wire::tables::{FlowEntry, FlowHalf, FlowKey, flow_state};
use zerocopy::IntoBytes;

use super::packet::TCP;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const HALF_OPEN_MS: u32 = 5_000;
const ESTABLISHED_MS: u32 = 30_000;
const CLOSING_MS: u32 = 2_000;

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
    /// A SYN ended the connection; also a miss.
    Reset,
}

/// A connection that went away by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expired {
    pub(super) eni: u16,
    /// The ENI counter it moves by 1.
    pub(super) stat: EniStat,
}

type KeyBytes = [u8; size_of::<FlowKey>()];
type Id = u64;

/// All connections.
pub(super) struct Flows {
    most: usize,
    next_id: Id,
    /// Both keys of every connection, with the side.
    index: BTreeMap<KeyBytes, (Id, usize)>,
    entries: BTreeMap<Id, FlowEntry>,
    /// When each connection is due.
    due: BTreeSet<(u64, Id)>,
}

impl Flows {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most: most as usize,
            next_id: 0,
            index: BTreeMap::new(),
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
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
            });
        }
        gone
    }

    /// Finds the connection of `key` and lets the packet move it on.
    pub(super) fn lookup(&mut self, key: &FlowKey, seen: Seen) -> Lookup {
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
            return Lookup::Reset;
        }

        entry.last_seen_ns = seen.now_ns;
        entry.packets[side] += 1;
        entry.bytes[side] += u64::from(seen.inner_len);
        if tcp && entry.state == flow_state::HALF_OPEN && side == 1 {
            entry.state = flow_state::ESTABLISHED;
            entry.timeout_ms = ESTABLISHED_MS;
        }
        if flag(FIN) {
            entry.fin |= 1 << side;
            if entry.fin == 0b11 && entry.state != flow_state::CLOSING {
                entry.state = flow_state::CLOSING;
                entry.timeout_ms = CLOSING_MS;
            }
        }
        self.remove(id);
        let ended = flag(RST);
        if !ended {
            self.insert(id, entry);
        }
        Lookup::Hit {
            side,
            entry: Box::new(entry),
            ended,
        }
    }

    /// Makes a connection of which the packet is the first; `None` when there is no room or one of
    /// the keys is taken.
    pub(super) fn create(
        &mut self,
        sides: [FlowHalf; 2],
        direction: u8,
        meter_class: u32,
        seen: Seen,
    ) -> Option<FlowEntry> {
        let [there, back] = sides.map(|side| side.key);
        let taken = |k: &FlowKey| self.index.contains_key(&key_bytes(k));
        if self.entries.len() >= self.most || taken(&there) || taken(&back) || there == back {
            return None;
        }
        let tcp = there.proto == TCP;
        let (state, timeout_ms) = if tcp {
            (flow_state::HALF_OPEN, HALF_OPEN_MS)
        } else {
            (flow_state::ESTABLISHED, ESTABLISHED_MS)
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
            pad: [0; 3],
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

    /// Ends every connection of an ENI that is no more, uncounted.
    pub(super) fn purge(&mut self, eni: u32) {
        let ids: Vec<Id> = self
            .entries
            .iter()
            .filter(|(_, e)| u32::from(e.eni) == eni)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.remove(id);
        }
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
