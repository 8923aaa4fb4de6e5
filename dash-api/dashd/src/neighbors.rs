//! The underlay's neighbours: which address is at which MAC, what to answer, what to ask.
//!
//! Pure: frames and times in, frames out. Configured neighbours never change. Others are learned
//! as RFC 826 says: from whoever asks for an address of ours or answers what we asked, and only
//! addresses that the routes of that port reach directly, so that a station cannot take over
//! addresses of another port, nor fill the table by talking.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use dash_pipeline::plan::{UnderlayRoute, UnderlayTable};
use nic_targets::neighbor::{self, Mac, Message};

/// Most addresses that are asked for at a time.
pub const MAX_PENDING: usize = 1024;
/// Most neighbours learned.
const MAX_LEARNED: usize = 16_384;
/// Least time between two requests for one address.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Requests without an answer before an address is given up; a packet to it starts anew.
const TRIES: u8 = 5;
/// How often a learned neighbour is asked whether it is still there.
const CONFIRM_EVERY: Duration = Duration::from_secs(30);
/// How often the clocks are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Most requests a tick, so that they find room on their way.
pub(crate) const BURST: usize = 256;

/// Frames to send, with the port to send them out of.
pub type Out = Vec<(u32, Vec<u8>)>;

/// Neighbours of all ports. See the [module](self).
#[derive(Debug)]
pub struct Neighbors {
    table: UnderlayTable,
    /// Addresses in `table` that were learned, and when they last said so.
    learned: BTreeMap<IpAddr, Instant>,
    pending: BTreeMap<IpAddr, Pending>,
    changed: bool,
    next_tick: Option<Instant>,
}

/// An address that is asked for.
#[derive(Clone, Copy, Debug)]
struct Pending {
    port: u32,
    tries: u8,
    last: Option<Instant>,
}

impl Pending {
    fn due(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|last| now.duration_since(last) >= ASK_EVERY)
    }
}

impl Neighbors {
    /// Neighbours that are known from the start, and routes; their next hops are asked for.
    pub fn new(table: UnderlayTable) -> Self {
        let hops: Vec<_> = table
            .routes
            .iter()
            .filter_map(|route| route.next_hop)
            .collect();
        let mut neighbors = Self {
            table,
            learned: BTreeMap::new(),
            pending: BTreeMap::new(),
            changed: false,
            next_tick: None,
        };
        for hop in hops {
            neighbors.want(hop);
        }
        neighbors
    }

    /// False when packets leave where they came in, and nobody needs to be known.
    pub fn has_routes(&self) -> bool {
        !self.table.routes.is_empty()
    }

    /// The underlay with what was learned, when it differs from the last time.
    pub fn changed(&mut self) -> Option<&UnderlayTable> {
        std::mem::take(&mut self.changed).then_some(&self.table)
    }

    /// Sees to it that packets to `dst` will find their next hop.
    pub fn want(&mut self, dst: IpAddr) {
        if let Some((port, hop)) = self.way(dst) {
            self.pend(port, hop);
            self.next_tick = None;
        }
    }

    /// Takes a packet that the data plane left to control: ARP and ND are answered and learned
    /// from; others need a next hop.
    pub fn frame(
        &mut self,
        port: u32,
        frame: &[u8],
        vip: Option<Ipv4Addr>,
        now: Instant,
        out: &mut Out,
    ) {
        let Some(mac) = self.mac(port) else { return };
        let own: Vec<IpAddr> = vip
            .map(IpAddr::V4)
            .into_iter()
            .chain([link_local(mac).into()])
            .collect();
        let Some(message) = neighbor::parse(frame) else {
            return self.unresolved(frame, &own, vip, now, out);
        };
        let for_us = matches!(message, Message::Request { target, .. } if own.contains(&target));
        if let Some((ip, mac)) = neighbor::learned(frame)
            && !own.contains(&ip)
        {
            self.learn(ip, mac, port, for_us, now);
        }
        out.extend(neighbor::answer(frame, &own, mac).map(|answer| (port, answer)));
    }

    /// Asks for what is due, and lets go of who does not answer.
    pub fn tick(&mut self, vip: Option<Ipv4Addr>, now: Instant, out: &mut Out) {
        if self.next_tick.is_some_and(|next| now < next) {
            return;
        }
        self.next_tick = Some(now + TICK);
        let stale = self
            .learned
            .iter()
            .filter(|(_, at)| now.duration_since(**at) >= CONFIRM_EVERY);
        let stale: Vec<IpAddr> = stale.map(|(ip, _)| *ip).collect();
        for ip in stale {
            if let Some((_, port)) = self.table.neighbors.get(&ip).copied() {
                self.insert_pending(port, ip);
            }
        }
        let silent = self
            .pending
            .iter()
            .filter(|(_, p)| p.tries >= TRIES && p.due(now));
        let silent: Vec<IpAddr> = silent.map(|(ip, _)| *ip).collect();
        for ip in silent {
            self.pending.remove(&ip);
            if self.learned.remove(&ip).is_some() {
                tracing::info!(%ip, "a neighbour does not answer any more");
                self.table.neighbors.remove(&ip);
                self.changed = true;
            }
        }
        let due = self.pending.iter().filter(|(_, p)| p.due(now)).take(BURST);
        let due: Vec<IpAddr> = due.map(|(ip, _)| *ip).collect();
        for ip in due {
            self.ask(ip, vip, now, out);
        }
    }

    /// A packet whose next hop has no MAC: asks for it.
    fn unresolved(
        &mut self,
        frame: &[u8],
        own: &[IpAddr],
        vip: Option<Ipv4Addr>,
        now: Instant,
        out: &mut Out,
    ) {
        let Some(dst) = destination(frame).filter(|dst| !own.contains(dst)) else {
            return;
        };
        let Some((port, hop)) = self.way(dst) else {
            return;
        };
        self.pend(port, hop);
        if self
            .pending
            .get(&hop)
            .is_some_and(|p| p.due(now) && p.tries < TRIES)
        {
            self.ask(hop, vip, now, out);
        }
    }

    /// Port and next hop of a destination; of several routes with one prefix the first counts.
    fn way(&self, dst: IpAddr) -> Option<(u32, IpAddr)> {
        let routes = self
            .table
            .routes
            .iter()
            .filter(|route| route.prefix.contains(dst));
        let route = routes.min_by_key(|route| std::cmp::Reverse(route.prefix.prefix_len()))?;
        Some((route.port, route.next_hop.unwrap_or(dst)))
    }

    /// True when the routes say that `ip` is next to the card on that port.
    fn adjacent(&self, ip: IpAddr, port: u32) -> bool {
        let hop = |route: &UnderlayRoute| route.port == port && route.next_hop == Some(ip);
        self.way(ip) == Some((port, ip)) || self.table.routes.iter().any(hop)
    }

    fn mac(&self, port: u32) -> Option<Mac> {
        self.table
            .port_macs
            .get(usize::try_from(port).ok()?)
            .copied()
    }

    fn pend(&mut self, port: u32, ip: IpAddr) {
        if self
            .table
            .neighbors
            .get(&ip)
            .is_none_or(|(_, on)| *on != port)
        {
            self.insert_pending(port, ip);
        }
    }

    fn insert_pending(&mut self, port: u32, ip: IpAddr) {
        if self.pending.len() < MAX_PENDING {
            self.pending.entry(ip).or_insert(Pending {
                port,
                tries: 0,
                last: None,
            });
        }
    }

    /// Sends one request, if there is an address to send it from.
    fn ask(&mut self, ip: IpAddr, vip: Option<Ipv4Addr>, now: Instant, out: &mut Out) {
        let Some(mac) = self
            .pending
            .get(&ip)
            .and_then(|pending| self.mac(pending.port))
        else {
            return;
        };
        let request = match (ip, vip) {
            (IpAddr::V4(ip), Some(vip)) => neighbor::arp_request(mac, vip, ip),
            // Without an appliance there is nobody to answer to.
            (IpAddr::V4(_), None) => return,
            (IpAddr::V6(ip), _) => neighbor::neighbor_solicitation(mac, link_local(mac), ip),
        };
        if let Some(pending) = self.pending.get_mut(&ip) {
            pending.tries = pending.tries.saturating_add(1);
            pending.last = Some(now);
            out.push((pending.port, request));
        }
    }

    fn learn(&mut self, ip: IpAddr, mac: Mac, port: u32, for_us: bool, now: Instant) {
        let known = self.learned.contains_key(&ip);
        let configured = !known && self.table.neighbors.contains_key(&ip);
        let asked = self
            .pending
            .get(&ip)
            .is_some_and(|pending| pending.port == port);
        if configured || !(known || asked || for_us) || !self.adjacent(ip, port) {
            return;
        }
        if !known && self.learned.len() >= MAX_LEARNED {
            tracing::warn!(%ip, "too many neighbours to learn another");
            return;
        }
        self.pending.remove(&ip);
        self.learned.insert(ip, now);
        if self.table.neighbors.insert(ip, (mac, port)) != Some((mac, port)) {
            self.changed = true;
        }
    }
}

/// Outermost destination of an untagged IP frame.
fn destination(frame: &[u8]) -> Option<IpAddr> {
    let ip: IpAddr = match *frame.get(12..)?.first_chunk()? {
        [0x08, 0x00] => Ipv4Addr::from(*frame.get(30..)?.first_chunk::<4>()?).into(),
        [0x86, 0xdd] => Ipv6Addr::from(*frame.get(38..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    (!ip.is_multicast() && !ip.is_unspecified()).then_some(ip)
}

/// Link-local address of a port (RFC 4291 appendix A): the VIP is IPv4, and a solicitation needs a
/// source.
fn link_local([a, b, c, d, e, f]: Mac) -> Ipv6Addr {
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

#[cfg(test)]
mod tests;
