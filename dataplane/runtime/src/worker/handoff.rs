//! Packets on their way from the worker that received them to the worker that has their flow.
//!
//! Between each two workers there is a ring in each direction, with one producer and one consumer,
//! so a packet costs each side a copy of what was parsed ([`Meta`]) and no shared counter. The frame
//! is not copied: its buffer changes hands, and goes back to its lender from there. A full ring drops
//! the packet and counts it: waiting would make one slow worker hold up all.
//!
//! Generations. A packet is parsed under the sender's generation and decided under the owner's, which
//! may be a later one. What is handed over are facts of the packet (its flow key, direction, VNIs,
//! MACs) and an ENI's index; policy is read by the owner alone, whole, from one generation. Parsing
//! again would count the packet twice, as ENIs count what they receive. What remains is that an index
//! could have become another ENI's meanwhile. It cannot: before an index is free again, control waits
//! until every worker has been round since the ENI was deleted, so all packets parsed under it are on
//! rings, and then has the flows of the ENI purged, which a worker does once it has run all that was
//! on its rings ([`Command::Purge`](super::rings::Command::Purge)). Until then the ENI has no row, and
//! such packets are dropped as an ENI's that is down, or follow a flow that is about to go.

use dash_wire::tables::Meta;
use nic_target::Frame;
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::BURST;

/// Packets that may wait for a worker, all senders together; a sender's share is bounded.
const WAITING: usize = 4_096;
/// Packets taken from a ring a round.
const BUDGET: usize = 2 * BURST;

/// Packets that a ring between two of so many workers holds.
fn room(workers: usize) -> usize {
    (WAITING / workers.saturating_sub(1).max(1)).clamp(128, 1_024)
}

/// Packets of one worker that may be on rings: as many frames it needs beyond its own.
pub(crate) fn under_way(workers: usize) -> usize {
    room(workers) * workers.saturating_sub(1)
}

/// A parsed packet.
#[derive(Debug)]
pub(crate) struct Handed {
    pub(crate) frame: Frame,
    pub(crate) meta: Meta,
}

/// A worker's ends of all rings.
#[derive(Debug)]
pub(crate) struct Crossing {
    /// By worker, `None` to itself.
    to: Vec<Option<Producer<Handed>>>,
    from: Vec<Consumer<Handed>>,
}

impl Crossing {
    /// The crossings of so many workers.
    pub(crate) fn between(workers: usize) -> Vec<Self> {
        let room = room(workers);
        let fresh = || Self {
            to: Vec::with_capacity(workers),
            from: Vec::with_capacity(workers),
        };
        let mut all: Vec<Self> = std::iter::repeat_with(fresh).take(workers).collect();
        for sender in 0..workers {
            for owner in 0..workers {
                let ring = (sender != owner).then(|| RingBuffer::new(room));
                let (producer, consumer) = ring.unzip();
                all[sender].to.push(producer);
                all[owner].from.extend(consumer);
            }
        }
        all
    }

    /// Hands a packet to a worker; gives it back when there is no room.
    pub(crate) fn hand(&mut self, owner: u32, packet: Handed) -> Result<(), Frame> {
        match self.to.get_mut(owner as usize) {
            Some(Some(ring)) => ring
                .push(packet)
                .map_err(|PushError::Full(packet)| packet.frame),
            _ => Err(packet.frame),
        }
    }

    /// Rings that lead here.
    pub(crate) fn rings(&self) -> usize {
        self.from.len()
    }

    /// How many packets of a ring to run this round: all that are there now, or a budget.
    pub(crate) fn due(&self, ring: usize, all: bool) -> usize {
        let waiting = self.from[ring].slots();
        if all { waiting } else { waiting.min(BUDGET) }
    }

    /// The next packet of a ring.
    pub(crate) fn take(&mut self, ring: usize) -> Option<Handed> {
        self.from[ring].pop().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{Crossing, Handed};
    use dash_wire::tables::Meta;
    use nic_target::Frame;

    fn packet(n: u32) -> Handed {
        let mut frame = Frame::new();
        assert!(frame.fill(&n.to_be_bytes()));
        let meta = Meta {
            vni: n,
            ..Meta::default()
        };
        Handed { frame, meta }
    }

    fn number(packet: &Handed) -> u32 {
        let bytes = packet.frame.data().try_into().unwrap();
        assert_eq!(u32::from_be_bytes(bytes), packet.meta.vni);
        packet.meta.vni
    }

    #[test]
    fn a_full_ring_gives_the_packet_back_and_others_go_on() {
        let mut all = Crossing::between(3);
        let mut sent = 0;
        let back = loop {
            match all[0].hand(2, packet(sent)) {
                Ok(()) => sent += 1,
                Err(frame) => break frame,
            }
        };
        assert!(sent >= 128);
        assert_eq!(back.data(), sent.to_be_bytes());
        assert!(all[0].hand(1, packet(7)).is_ok(), "another ring");
        assert!(
            all[0].hand(0, packet(8)).is_err(),
            "there is no ring to itself"
        );
        assert_eq!(all[2].rings(), 2);
        let due: Vec<usize> = (0..2).map(|ring| all[2].due(ring, true)).collect();
        assert_eq!(due.iter().sum::<usize>(), sent as usize);
        let ring = due.iter().position(|due| *due > 0).unwrap();
        assert!(all[2].due(ring, false) < sent as usize);
        for n in 0..sent {
            assert_eq!(number(&all[2].take(ring).unwrap()), n, "in order");
        }
        assert!(all[2].take(ring).is_none());
    }

    #[test]
    fn packets_between_threads_arrive_once_in_order_and_whole() {
        const PACKETS: u32 = 50_000;
        let all = Crossing::between(3);
        let threads: Vec<_> = all
            .into_iter()
            .enumerate()
            .map(|(me, mut crossing)| {
                std::thread::spawn(move || {
                    let others: Vec<u32> = (0..3).filter(|other| *other != me as u32).collect();
                    let mut next = [0; 2];
                    let mut expected = [0; 2];
                    let mut free: Vec<Frame> = Vec::new();
                    while next.iter().chain(&expected).any(|n| *n < PACKETS) {
                        for (at, owner) in others.iter().enumerate() {
                            if next[at] == PACKETS {
                                continue;
                            }
                            let mut frame = free.pop().unwrap_or_default();
                            assert!(frame.fill(&next[at].to_be_bytes()));
                            let meta = Meta {
                                vni: next[at],
                                ..Meta::default()
                            };
                            match crossing.hand(*owner, Handed { frame, meta }) {
                                Ok(()) => next[at] += 1,
                                Err(frame) => {
                                    free.push(frame);
                                    std::thread::yield_now();
                                }
                            }
                        }
                        for (ring, expected) in expected.iter_mut().enumerate() {
                            for _ in 0..crossing.due(ring, false) {
                                let got = crossing.take(ring).expect("it was due");
                                assert_eq!(number(&got), *expected);
                                *expected += 1;
                                free.push(got.frame);
                            }
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
