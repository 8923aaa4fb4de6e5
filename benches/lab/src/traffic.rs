//! Packets by formula: what the generator sends as packet `k`, without a list of packets.
//!
//! A [`Template`] is a finished packet whose VM address and VM port stand for those of flow 0; writing
//! flow `m` copies its headers and adds `m` to both, checksums included. [`Traffic`] says which
//! template and which flow come next. Thirty-two million flows thus cost the generator no memory and
//! no cache, and a run with the same seed is the same run.

use nic_target::Frame;

/// Bytes of a packet that are copied; what comes after is whatever the buffer holds, as the payload of
/// a packet that a NIC wrote by DMA is memory the core never touched.
const HEAD: usize = 192;
/// Flows that differ in the port alone before the address moves on.
const PORT_BITS: u32 = 14;
const FIRST_PORT: u16 = 1024;
/// Outer Ethernet, IPv4, UDP, VXLAN.
const OUTER: usize = 50;

/// Which side of the inner packet is the VM, and so varies by flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vm {
    /// The source: a packet from the VM.
    Source,
    /// The destination: a packet to the VM.
    Destination,
}

/// What must come out, as the sampling check of the port knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A VXLAN packet of this VNI to this underlay address.
    Vxlan {
        /// VNI.
        vni: u32,
        /// Outer destination.
        dip: [u8; 4],
    },
    /// A VXLAN packet of this VNI to one of these underlay addresses.
    VxlanToAny {
        /// VNI.
        vni: u32,
        /// Outer destinations.
        dips: &'static [[u8; 4]],
    },
    /// An NVGRE packet of this VSID to this underlay address.
    Nvgre {
        /// VSID.
        vsid: u32,
        /// Outer destination.
        dip: [u8; 4],
    },
    /// The inner frame without any encap.
    Bare,
    /// Something, and what changes meanwhile.
    Any,
    /// Nothing: it is dropped.
    Nothing,
}

impl Expect {
    /// Is this packet what must come out?
    pub fn holds(self, packet: &[u8]) -> bool {
        match self {
            Self::Vxlan { vni, dip } => {
                let [_, a, b, c] = vni.to_be_bytes();
                packet.get(30..34) == Some(&dip[..]) && packet.get(46..49) == Some(&[a, b, c][..])
            }
            Self::VxlanToAny { vni, dips } => dips
                .iter()
                .any(|dip| Self::Vxlan { vni, dip: *dip }.holds(packet)),
            Self::Nvgre { vsid, dip } => {
                let [_, a, b, c] = vsid.to_be_bytes();
                let gre = [0x20, 0, 0x65, 0x58, a, b, c];
                packet.get(30..34) == Some(&dip[..]) && packet.get(34..41) == Some(&gre[..])
            }
            Self::Bare => packet.get(36..38) != Some(&[0x12, 0xb5][..]) && packet.len() >= 34,
            Self::Any => true,
            Self::Nothing => false,
        }
    }
}

/// A packet of every flow: flow 0's bytes, and where flows differ.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Box<[u8]>,
    len: usize,
    expect: Expect,
    /// Offset of the low half of the VM's address.
    address: usize,
    /// Offset of the VM's port.
    port: usize,
    /// Offsets of checksums that cover the address alone, and address and port; 0 for none.
    ip_sum: usize,
    l4_sum: usize,
    first_address: u16,
    /// Sums (not inverted) of everything those checksums cover but the fields that vary.
    ip_rest: u32,
    l4_rest: u32,
    /// A checksum of 0 would mean none (UDP).
    never_zero: bool,
}

/// Folds carries into 16 bits.
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl Template {
    /// Makes a template of a VXLAN packet over IPv4 with a UDP or TCP packet inside.
    ///
    /// # Errors
    /// It is another kind of packet.
    pub fn new(packet: Vec<u8>, vm: Vm, expect: Expect) -> anyhow::Result<Self> {
        let short = || anyhow::anyhow!("a template of {} bytes is no VXLAN packet", packet.len());
        let ethertype = packet.get(OUTER + 12..OUTER + 14).ok_or_else(short)?;
        let ip = OUTER + 14;
        let (l4, protocol, address, ip_sum) = match (ethertype, vm) {
            ([8, 0], Vm::Source) => (ip + 20, packet.get(ip + 9), ip + 14, ip + 10),
            ([8, 0], Vm::Destination) => (ip + 20, packet.get(ip + 9), ip + 18, ip + 10),
            ([0x86, 0xdd], Vm::Source) => (ip + 40, packet.get(ip + 6), ip + 22, 0),
            ([0x86, 0xdd], Vm::Destination) => (ip + 40, packet.get(ip + 6), ip + 38, 0),
            _ => anyhow::bail!("a template's inner packet is not IP"),
        };
        let (l4_sum, never_zero) = match protocol {
            Some(17) => (l4 + 6, true),
            Some(6) => (l4 + 16, false),
            _ => anyhow::bail!("a template's inner packet is neither UDP nor TCP"),
        };
        anyhow::ensure!(packet.len() >= l4_sum + 2, short());
        let port = match vm {
            Vm::Source => l4,
            Vm::Destination => l4 + 2,
        };
        // Not inverted: the sum of what is covered. Taking a field out is adding its complement.
        let without = |sum: u16, fields: &[u16]| {
            let fields = fields.iter().map(|f| u32::from(!f));
            u32::from(fold(u32::from(!sum) + fields.sum::<u32>()))
        };
        let (first_address, first_port) = (word(&packet, address), word(&packet, port));
        Ok(Self {
            len: packet.len(),
            expect,
            address,
            port,
            ip_sum,
            l4_sum,
            first_address,
            ip_rest: if ip_sum == 0 {
                0
            } else {
                without(word(&packet, ip_sum), &[first_address])
            },
            l4_rest: without(word(&packet, l4_sum), &[first_address, first_port]),
            never_zero,
            bytes: packet.into(),
        })
    }

    /// A packet that is sent as it is, whatever the flow: one of a capture.
    pub fn fixed(packet: Vec<u8>) -> Self {
        Self {
            len: packet.len(),
            expect: Expect::Nothing,
            address: 0,
            port: 0,
            ip_sum: 0,
            l4_sum: 0,
            first_address: 0,
            ip_rest: 0,
            l4_rest: 0,
            never_zero: false,
            bytes: packet.into(),
        }
    }

    /// The packet of one flow of this template, whatever the flow asked for.
    pub fn of_flow(&self, m: u32) -> Self {
        Self {
            expect: self.expect,
            ..Self::fixed(self.packet(m))
        }
    }

    /// The same, its packets going where control says at the time.
    pub fn unchecked(self) -> Self {
        Self {
            expect: Expect::Any,
            ..self
        }
    }

    /// Length of its packets, bytes, without FCS.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a template is a whole packet.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What its packets become.
    pub fn expect(&self) -> Expect {
        self.expect
    }

    /// Writes flow `m`'s packet into a frame; false when the frame is too small.
    #[inline]
    pub fn write(&self, m: u32, frame: &mut Frame) -> bool {
        if !frame.set_len(self.len) {
            return false;
        }
        let data = frame.data_mut();
        if self.port == 0 {
            data.copy_from_slice(&self.bytes);
            return true;
        }
        let head = self.len.min(HEAD);
        data[..head].copy_from_slice(&self.bytes[..head]);
        self.patch(m, data);
        true
    }

    /// The whole packet of flow `m`, payload too.
    pub fn packet(&self, m: u32) -> Vec<u8> {
        let mut packet = self.bytes.to_vec();
        if self.port != 0 {
            self.patch(m, &mut packet);
        }
        packet
    }

    #[inline]
    fn patch(&self, m: u32, data: &mut [u8]) {
        let address = self.first_address.wrapping_add((m >> PORT_BITS) as u16);
        let port = FIRST_PORT + (m & ((1 << PORT_BITS) - 1)) as u16;
        let mut put =
            |at: usize, value: u16| data[at..at + 2].copy_from_slice(&value.to_be_bytes());
        put(self.address, address);
        put(self.port, port);
        if self.ip_sum != 0 {
            put(self.ip_sum, !fold(self.ip_rest + u32::from(address)));
        }
        let sum = !fold(self.l4_rest + u32::from(address) + u32::from(port));
        put(
            self.l4_sum,
            if sum == 0 && self.never_zero {
                0xffff
            } else {
                sum
            },
        );
    }
}

/// How the packets of a connection follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Each packet is of a flow of the [`Order`]; with several steps they take turns (IMIX).
    Mix,
    /// Every connection sends its steps in order; this many connections are in flight, and step `s` of
    /// all of them comes before step `s + 1` of any.
    Script {
        /// Connections in flight.
        window: u32,
    },
}

/// Templates by variant (an ENI, a route) and step (a packet of a script, a size of a mix).
#[derive(Clone, Debug)]
pub struct Traffic {
    templates: Vec<Template>,
    steps: u32,
    variants: u32,
    pattern: Pattern,
}

impl Traffic {
    /// Traffic of one packet a flow.
    pub fn of(template: Template) -> Self {
        Self::mix(vec![template])
    }

    /// Traffic whose packets take turns among these.
    pub fn mix(templates: Vec<Template>) -> Self {
        Self {
            steps: templates.len() as u32,
            variants: 1,
            templates,
            pattern: Pattern::Mix,
        }
    }

    /// Traffic whose flows take turns among these: flow `n` is the `n / variants`th flow of variant
    /// `n % variants`.
    pub fn spread(templates: Vec<Template>) -> Self {
        Self {
            steps: 1,
            variants: templates.len() as u32,
            templates,
            pattern: Pattern::Mix,
        }
    }

    /// Connections of `steps` packets each, their variants taking turns; `templates` is by variant, then
    /// by step.
    ///
    /// # Errors
    /// The templates are not a whole number of scripts.
    pub fn script(templates: Vec<Template>, steps: u32, window: u32) -> anyhow::Result<Self> {
        anyhow::ensure!(
            steps > 0 && !templates.is_empty() && templates.len().is_multiple_of(steps as usize),
            "{} templates are no scripts of {steps} packets",
            templates.len()
        );
        Ok(Self {
            variants: templates.len() as u32 / steps,
            steps,
            templates,
            pattern: Pattern::Script { window },
        })
    }

    /// Packets a connection takes; 1 where packets stand alone.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Number of variants.
    pub fn variants(&self) -> u32 {
        self.variants
    }

    /// Its templates.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// Are packets meant to come out?
    pub fn forwards(&self) -> bool {
        self.templates
            .iter()
            .any(|template| template.expect != Expect::Nothing)
    }
}

/// Which flows, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// From this one up, each once.
    Sequential {
        /// First flow.
        from: u32,
    },
    /// Any of `from..from + flows`, at random, as the seed says.
    Random {
        /// First flow.
        from: u32,
        /// How many.
        flows: u32,
        /// Of the random numbers.
        seed: u64,
    },
}

/// Where a generator stands in its traffic.
#[derive(Clone, Debug)]
pub struct Cursor {
    order: Order,
    state: u64,
    step: u32,
    lane: u32,
    base: u32,
}

impl Cursor {
    /// At the beginning.
    pub fn new(order: Order) -> Self {
        let (base, state) = match order {
            Order::Sequential { from } => (from, 0),
            Order::Random { from, seed, .. } => (from, seed),
        };
        Self {
            order,
            state,
            step: 0,
            lane: 0,
            base,
        }
    }

    /// Template and flow of the next packet.
    #[inline]
    pub fn next<'a>(&mut self, traffic: &'a Traffic) -> (&'a Template, u32) {
        match traffic.pattern {
            Pattern::Mix => {
                let flow = self.flow();
                let (variant, flow) = if traffic.variants == 1 {
                    (0, flow)
                } else {
                    (flow % traffic.variants, flow / traffic.variants)
                };
                let step = self.step;
                self.step += 1;
                if self.step == traffic.steps {
                    self.step = 0;
                }
                let at = variant * traffic.steps + step;
                (&traffic.templates[at as usize], flow)
            }
            Pattern::Script { window } => {
                let flow = self.base.wrapping_add(self.lane);
                let at = flow % traffic.variants * traffic.steps + self.step;
                self.lane += 1;
                if self.lane == window {
                    self.lane = 0;
                    self.step += 1;
                    if self.step == traffic.steps {
                        self.step = 0;
                        self.base = self.base.wrapping_add(window);
                    }
                }
                (&traffic.templates[at as usize], flow / traffic.variants)
            }
        }
    }

    #[inline]
    fn flow(&mut self) -> u32 {
        match self.order {
            Order::Sequential { .. } => {
                let flow = self.base;
                self.base = self.base.wrapping_add(1);
                flow
            }
            Order::Random { from, flows, .. } => {
                // The high half of a 32 by 32 bit product is below `flows`.
                let random = splitmix(&mut self.state) >> 32;
                from.wrapping_add(((random * u64::from(flows)) >> 32) as u32)
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, the same everywhere.
pub fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use nic_sim::Packet;
    use nic_target::Frame;
    use proptest::prelude::*;

    use super::*;

    fn outer() -> nic_sim::packet::Layers<nic_sim::packet::last::Eth> {
        Packet::eth([2; 6], [4; 6])
            .ipv4([25, 1, 1, 1], [10, 0, 0, 1])
            .udp(5137, 4789)
            .vxlan(7)
            .eth([6; 6], [8; 6])
    }

    fn source(m: u32) -> ([u8; 4], u16) {
        let [a, b] = ((m >> PORT_BITS) as u16).to_be_bytes();
        ([10, 9, a, b], FIRST_PORT + (m & 0x3fff) as u16)
    }

    proptest! {
        #[test]
        fn a_template_writes_what_the_packet_builder_builds(m in 0u32..1 << 30, payload in 0usize..400, tcp: bool) {
            let build = |m| {
                let (ip, port) = source(m);
                let ip = outer().ipv4(ip, [20, 0, 0, 5]);
                let bytes = vec![0x5a; payload];
                match tcp {
                    true => ip.tcp(port, 80).payload(&bytes).build(),
                    false => ip.udp(port, 80).payload(&bytes).build(),
                }
            };
            let template = Template::new(build(0), Vm::Source, Expect::Bare).unwrap();
            prop_assert_eq!(template.packet(m), build(m));
            let mut frame = Frame::new();
            frame.fill(&vec![0x5a; 600]);
            prop_assert!(template.write(m, &mut frame));
            prop_assert_eq!(frame.data(), build(m));
        }

        #[test]
        fn packets_to_the_vm_and_over_ipv6_too(m in 0u32..1 << 30) {
            let (ip, port) = source(m);
            let to_vm = |ip: [u8; 4], port| outer().ipv4([20, 0, 0, 5], ip).udp(80, port).payload([1, 2, 3]).build();
            let template = Template::new(to_vm(source(0).0, source(0).1), Vm::Destination, Expect::Bare).unwrap();
            prop_assert_eq!(template.packet(m), to_vm(ip, port));

            let low = (m >> PORT_BITS) as u16;
            let six = |low: u16, port| outer()
                .ipv6([0xfd00, 0, 0, 0, 0, 0, 0, low], [0xfd00, 1, 0, 0, 0, 0, 0, 1])
                .tcp(port, 80).payload([]).build();
            let template = Template::new(six(0, FIRST_PORT), Vm::Source, Expect::Bare).unwrap();
            prop_assert_eq!(template.packet(m), six(low, port));
        }
    }

    fn template(n: u8) -> Template {
        let packet = outer()
            .ipv4([10, 9, 0, 0], [20, 0, 0, n])
            .udp(FIRST_PORT, 80)
            .payload([n])
            .build();
        Template::new(packet, Vm::Source, Expect::Bare).unwrap()
    }

    #[test]
    fn a_template_of_one_flow_is_that_flow_always() {
        let all = template(7);
        let one = all.of_flow(12_345);
        for m in [0, 1, 12_345, 1 << 20] {
            assert_eq!(one.packet(m), all.packet(12_345));
        }
        assert_eq!(one.expect(), all.expect());
    }

    #[test]
    fn orders_visit_what_they_say() {
        let traffic = Traffic::spread(vec![template(1), template(2), template(3)]);
        let mut cursor = Cursor::new(Order::Sequential { from: 0 });
        let seen: HashSet<Vec<u8>> = (0..9_000)
            .map(|_| {
                let (t, m) = cursor.next(&traffic);
                t.packet(m)
            })
            .collect();
        assert_eq!(seen.len(), 9_000);

        let order = Order::Random {
            from: 5,
            flows: 64,
            seed: 1,
        };
        let flows = |order| {
            let traffic = Traffic::of(template(1));
            let mut cursor = Cursor::new(order);
            (0..2_000)
                .map(|_| cursor.next(&traffic).1)
                .collect::<Vec<_>>()
        };
        assert_eq!(flows(order), flows(order), "seeded");
        let seen: HashSet<u32> = flows(order).into_iter().collect();
        assert_eq!(seen, (5..69).collect());
    }

    #[test]
    fn a_script_sends_each_step_of_each_connection_in_order() {
        let templates = vec![template(1), template(2), template(3), template(4)];
        // Two variants of two steps.
        let traffic = Traffic::script(templates, 2, 4).unwrap();
        let mut cursor = Cursor::new(Order::Sequential { from: 0 });
        let sent: Vec<(u8, u32)> = (0..12)
            .map(|_| {
                let (t, m) = cursor.next(&traffic);
                (t.packet(0)[OUTER + 33], m)
            })
            .collect();
        let window = |base: u32| {
            [
                (1, base),
                (3, base),
                (1, base + 1),
                (3, base + 1),
                (2, base),
                (4, base),
                (2, base + 1),
                (4, base + 1),
            ]
        };
        assert_eq!(sent[..8], window(0));
        assert_eq!(sent[8..], window(2)[..4]);
        assert!(Traffic::script(vec![template(1)], 2, 4).is_err());
    }
}
