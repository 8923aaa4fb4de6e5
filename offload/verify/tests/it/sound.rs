//! What is accepted does not trap: mutated programs that still verify run in the checking
//! interpreter, over packets and maps of any content.

use dash_bpf::helper;
use dash_bpf::interp::{
    CTX_BASE, CallFault, Env, HelperResult, Interp, MemFault, STACK_BASE, StackView,
};
use dash_bpf::op::Size;
use dash_bpf::{Insn, MapDef, MapKind, Object, Op, decode};
use dash_verify::{Judge, Limits, Options, Policy, Verifier, examine};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{maps, object};

const PACKET: u64 = 0x1000_0000;
const VALUES: u64 = 0x4000_0000;
const HANDLES: u64 = 0x8000_0000;
const HEADROOM: usize = 256;

/// A machine that believes nothing: every address and argument is checked.
struct Machine {
    maps: Vec<MapDef>,
    /// One value a map.
    values: Vec<Vec<u8>>,
    packet: Vec<u8>,
    meta: usize,
    data: usize,
    end: usize,
    /// Packet memory moves when the packet is adjusted: old pointers fault.
    moves: u64,
    random: u64,
}

impl Machine {
    fn new(seed: u64, len: usize) -> Self {
        let mut machine = Self {
            maps: maps(),
            values: Vec::new(),
            packet: Vec::new(),
            meta: HEADROOM,
            data: HEADROOM,
            end: HEADROOM + len,
            moves: 0,
            random: seed,
        };
        machine.packet = (0..HEADROOM + len + HEADROOM)
            .map(|_| machine.next() as u8)
            .collect();
        let sizes: Vec<u32> = machine.maps.iter().map(|m| m.value_size).collect();
        machine.values = sizes
            .iter()
            .map(|size| (0..*size).map(|_| machine.next() as u8).collect())
            .collect();
        machine
    }

    /// xorshift64*; small numbers are as likely as large ones.
    fn next(&mut self) -> u64 {
        self.random |= 1;
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let x = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d);
        x >> (x & 63)
    }

    fn packet_base(&self) -> u64 {
        PACKET + self.moves * 0x10_0000
    }

    fn memory(&mut self, addr: u64, len: usize) -> Result<&mut [u8], MemFault> {
        if let Some(at) = addr.checked_sub(VALUES).filter(|at| *at < HANDLES - VALUES) {
            let (map, at) = ((at >> 20) as usize, (at & 0xf_ffff) as usize);
            let value = self.values.get_mut(map).ok_or(MemFault::Unmapped)?;
            return value.get_mut(at..at + len).ok_or(MemFault::Unmapped);
        }
        let at = addr
            .checked_sub(self.packet_base())
            .ok_or(MemFault::Unmapped)?;
        let at = usize::try_from(at)
            .ok()
            .filter(|at| *at < 0x10_0000)
            .ok_or(MemFault::Unmapped)?;
        if at < self.meta || at + len > self.end {
            return Err(MemFault::Unmapped);
        }
        Ok(&mut self.packet[at..at + len])
    }

    fn bytes(
        &mut self,
        arg: u8,
        addr: u64,
        len: usize,
        s: &StackView<'_>,
    ) -> Result<(), CallFault> {
        let read = if s.owns(addr) {
            s.read(addr, len).map(|_| ())
        } else {
            self.memory(addr, len).map(|_| ())
        };
        read.map_err(|fault| CallFault::Memory {
            argument: arg,
            fault,
        })
    }

    fn map(&self, addr: u64, kinds: &[MapKind]) -> Result<usize, CallFault> {
        let index = addr
            .checked_sub(HANDLES)
            .and_then(|at| usize::try_from(at).ok());
        let index = index.filter(|i| self.maps.get(*i).is_some_and(|m| kinds.contains(&m.kind)));
        index.ok_or(CallFault::Argument {
            argument: 1,
            why: "not such a map",
        })
    }

    fn adjust(&mut self, context: u64) -> Result<(), CallFault> {
        if context != CTX_BASE {
            return Err(CallFault::Argument {
                argument: 1,
                why: "not the context",
            });
        }
        self.moves += 1;
        Ok(())
    }
}

const TABLES: &[MapKind] = &[
    MapKind::Hash,
    MapKind::Array,
    MapKind::PercpuArray,
    MapKind::LpmTrie,
    MapKind::Acl,
];

impl Env for Machine {
    fn load(&mut self, addr: u64, size: Size) -> Result<u64, MemFault> {
        let mut value = [0; 8];
        value[..size.bytes()].copy_from_slice(self.memory(addr, size.bytes())?);
        Ok(u64::from_le_bytes(value))
    }

    fn store(&mut self, addr: u64, size: Size, value: u64) -> Result<(), MemFault> {
        // As narrow as can be: map values are random numbers too.
        let is_pointer = [(STACK_BASE, 8 << 16), (CTX_BASE, 24)]
            .iter()
            .any(|(base, len)| (*base..base + len).contains(&value));
        assert!(
            size != Size::Dw || !is_pointer,
            "an address leaks to {addr:#x}"
        );
        let map = addr
            .checked_sub(VALUES)
            .and_then(|at| self.maps.get((at >> 20) as usize));
        if map.is_some_and(|m| matches!(m.kind, MapKind::LpmTrie | MapKind::Acl)) {
            return Err(MemFault::ReadOnly);
        }
        let bytes = value.to_le_bytes();
        self.memory(addr, size.bytes())?
            .copy_from_slice(&bytes[..size.bytes()]);
        Ok(())
    }

    fn load_ctx(&mut self, off: i64, size: Size) -> Result<u64, MemFault> {
        if size != Size::W {
            return Err(MemFault::Context);
        }
        match off {
            0 => Ok(self.packet_base() + self.data as u64),
            4 => Ok(self.packet_base() + self.end as u64),
            8 => Ok(self.packet_base() + self.meta as u64),
            12 | 16 | 20 => Ok(u64::from(self.next() as u32)),
            _ => Err(MemFault::Context),
        }
    }

    fn map_address(&mut self, map: u32) -> Result<u64, MemFault> {
        Ok(HANDLES + u64::from(map))
    }

    fn map_value_address(&mut self, map: u32, offset: u32) -> Result<u64, MemFault> {
        Ok(VALUES + (u64::from(map) << 20) + u64::from(offset))
    }

    fn call(
        &mut self,
        number: u32,
        args: [u64; 5],
        stack: &mut StackView<'_>,
    ) -> Result<HelperResult, CallFault> {
        let luck = self.next();
        let status = if luck & 1 == 0 { 0 } else { u64::MAX };
        match number {
            helper::MAP_LOOKUP_ELEM => {
                let map = self.map(args[0], TABLES)?;
                self.bytes(2, args[1], self.maps[map].key_size as usize, stack)?;
                let found = VALUES + ((map as u64) << 20);
                return Ok(HelperResult::Value(if luck.is_multiple_of(4) {
                    0
                } else {
                    found
                }));
            }
            helper::MAP_UPDATE_ELEM => {
                let map = self.map(args[0], &TABLES[..3])?;
                self.bytes(2, args[1], self.maps[map].key_size as usize, stack)?;
                self.bytes(3, args[2], self.maps[map].value_size as usize, stack)?;
            }
            helper::MAP_DELETE_ELEM => {
                let map = self.map(args[0], &TABLES[..1])?;
                self.bytes(2, args[1], self.maps[map].key_size as usize, stack)?;
            }
            helper::MAP_PUSH_ELEM => {
                let map = self.map(args[0], &[MapKind::Queue])?;
                self.bytes(2, args[1], self.maps[map].value_size as usize, stack)?;
            }
            helper::MAP_POP_ELEM | helper::MAP_PEEK_ELEM => {
                let map = self.map(args[0], &[MapKind::Queue])?;
                let size = self.maps[map].value_size as usize;
                let bytes: Vec<u8> = (0..size).map(|_| self.next() as u8).collect();
                let to = if stack.owns(args[1]) {
                    stack.write(args[1], size)
                } else {
                    self.memory(args[1], size)
                };
                let to = to.map_err(|fault| CallFault::Memory { argument: 2, fault })?;
                to.copy_from_slice(&bytes);
            }
            helper::CSUM_DIFF => {
                for (arg, addr, size) in [(1, args[0], args[1]), (3, args[2], args[3])] {
                    if size > 0 {
                        self.bytes(arg, addr, size as usize, stack)?;
                    }
                }
            }
            helper::XDP_ADJUST_HEAD => {
                self.adjust(args[0])?;
                let data = (self.data as i64).saturating_add(args[1] as i32 as i64);
                if !(0..=self.end as i64 - 14).contains(&data) {
                    return Ok(HelperResult::Value(u64::MAX));
                }
                (self.data, self.meta) = (data as usize, data as usize);
                return Ok(HelperResult::Value(0));
            }
            helper::XDP_ADJUST_META => {
                self.adjust(args[0])?;
                let meta = (self.meta as i64).saturating_add(args[1] as i32 as i64);
                if !(self.data as i64 - 64..=self.data as i64).contains(&meta) || meta < 0 {
                    return Ok(HelperResult::Value(u64::MAX));
                }
                self.meta = meta as usize;
                return Ok(HelperResult::Value(0));
            }
            helper::XDP_ADJUST_TAIL => {
                self.adjust(args[0])?;
                let end = (self.end as i64).saturating_add(args[1] as i32 as i64);
                if !(self.data as i64 + 14..=self.packet.len() as i64).contains(&end) {
                    return Ok(HelperResult::Value(u64::MAX));
                }
                self.end = end as usize;
                return Ok(HelperResult::Value(0));
            }
            helper::TAIL_CALL => {
                self.map(args[1], &[MapKind::ProgArray])?;
                if luck & 1 == 0 {
                    return Ok(HelperResult::Unwind(0));
                }
            }
            helper::REDIRECT_MAP => {
                self.map(args[0], &[MapKind::DevMap, MapKind::XskMap])?;
            }
            helper::KTIME_GET_NS
            | helper::GET_PRANDOM_U32
            | helper::GET_SMP_PROCESSOR_ID
            | helper::REDIRECT => return Ok(HelperResult::Value(luck)),
            _ => return Err(CallFault::UnknownHelper),
        }
        Ok(HelperResult::Value(status))
    }
}

/// Programs that touch everything once; mutations start from them. Those behind the line are for our
/// own verifier only.
const SEEDS: &str = include_str!("../seeds.txt");

fn seeds() -> (Vec<&'static str>, Vec<&'static str>) {
    let (both, ours) = SEEDS.split_once("=== ours\n").expect("two parts");
    (both.split("---\n").collect(), ours.split("---\n").collect())
}

/// One change of one slot; slots are counted modulo the program's length.
#[derive(Clone, Debug)]
enum Change {
    Field { at: usize, byte: usize, to: u8 },
    Nudge { at: usize, by: i16 },
    Copy { from: usize, to: usize },
    Swap { a: usize, b: usize },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), 0usize..8, any::<u8>()).prop_map(|(at, byte, to)| Change::Field {
            at,
            byte,
            to
        }),
        (any::<usize>(), -16i16..16).prop_map(|(at, by)| Change::Nudge { at, by }),
        any::<(usize, usize)>().prop_map(|(from, to)| Change::Copy { from, to }),
        any::<(usize, usize)>().prop_map(|(a, b)| Change::Swap { a, b }),
    ]
}

fn random_change(machine: &mut Machine) -> Change {
    let at = machine.next() as usize;
    let other = machine.next();
    match machine.next() % 8 {
        0..3 => Change::Field {
            at,
            byte: machine.next() as usize % 8,
            to: other as u8,
        },
        3..6 => Change::Nudge {
            at,
            by: (other % 32) as i16 - 16,
        },
        6 => Change::Copy {
            from: at,
            to: other as usize,
        },
        _ => Change::Swap {
            a: at,
            b: other as usize,
        },
    }
}

fn apply(insns: &mut [Insn], change: &Change) {
    let len = insns.len();
    match change {
        Change::Field { at, byte, to } => {
            let at = at % len;
            let mut bytes = insns[at].to_bytes();
            bytes[*byte] = *to;
            insns[at] = Insn::from_bytes(bytes);
        }
        Change::Nudge { at, by } => {
            let insn = &mut insns[at % len];
            if insn.off == 0 {
                insn.imm = insn.imm.wrapping_add(i32::from(*by));
            } else {
                insn.off = insn.off.wrapping_add(*by);
            }
        }
        Change::Copy { from, to } => insns[to % len] = insns[from % len],
        Change::Swap { a, b } => insns.swap(a % len, b % len),
    }
}

fn run(ops: &[Op], seed: u64, len: usize) -> Result<u64, dash_bpf::Trap> {
    Interp::new(10_000_000).run(&[ops], 0, &[CTX_BASE], &mut Machine::new(seed, len))
}

/// Runs until the budget's end: loops of an accepted program end, but not soon.
fn quick(judge: Judge) -> Options {
    Options {
        policy: Policy {
            judge,
            max_insns: 64,
            ..Policy::default()
        },
        ..Options::default()
    }
}

#[test]
fn the_seeds_are_accepted_and_run() {
    let (both, ours) = seeds();
    let both = both.into_iter().map(|seed| (seed, Judge::Both));
    let ours = ours.into_iter().map(|seed| (seed, Judge::Own));
    for (seed, judge) in both.chain(ours) {
        let object = object("seed", seed);
        Verifier::new(quick(judge))
            .verify(&object)
            .unwrap_or_else(|e| panic!("{e}\n{seed}"));
        let ops = decode(&object.programs[0].insns).expect("verified");
        for random in 0..200 {
            run(&ops, random * 77, (random * 7) as usize).unwrap_or_else(|e| panic!("{e}\n{seed}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_never_traps(
        seed in prop::sample::select(seeds().0),
        changes in vec(change(), 1..4),
        inputs in vec((any::<u64>(), 0usize..128), 8),
    ) {
        let mut object = object("mutant", seed);
        for change in &changes {
            apply(&mut object.programs[0].insns, change);
        }
        let accepts = |judge| Verifier::new(quick(judge)).verify(&object).is_ok();
        if accepts(Judge::Own) || accepts(Judge::Prevail) {
            let ops = decode(&object.programs[0].insns).expect("verified");
            for (random, len) in inputs {
                let text = dash_bpf::disassemble(&object.programs[0].insns).expect("verified");
                let result = run(&ops, random, len);
                prop_assert!(result.is_ok(), "{}\n{}", result.unwrap_err(), text);
            }
        }
    }

    #[test]
    fn arbitrary_slots_are_judged_without_a_panic(slots in vec(any::<[u8; 8]>(), 0..12)) {
        let mut object = object("noise", "exit");
        object.programs[0].insns = slots.into_iter().map(Insn::from_bytes).collect();
        let _ = Verifier::new(quick(Judge::Prevail)).verify(&object);
        let _ = Verifier::new(quick(Judge::Own)).verify(&object);
    }
}

/// More where time allows: `PROPTEST_CASES`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(400)
}

/// Mutants of mutants, each run on packets and maps of its own: `DASHWIRE_SOUND_RUNS` says how many
/// accepted programs are run.
#[test]
#[ignore = "runs for minutes; see the crate's documentation"]
fn what_ours_accepts_never_traps_in_a_long_run() {
    const POOL: usize = 400;
    const INPUTS: u64 = 4;
    let wanted: u64 = std::env::var("DASHWIRE_SOUND_RUNS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let first: u64 = std::env::var("DASHWIRE_SOUND_SEED")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let worker = |thread: u64| {
        let mut machine = Machine::new(first.wrapping_mul(0x9e37_79b9) + thread * 7919 + 1, 0);
        let (both, ours) = seeds();
        let texts = both.into_iter().chain(ours);
        let originals: Vec<Object> = texts.map(|text| object("seed", text)).collect();
        let mut pool = originals.clone();
        let (mut tried, mut accepted, mut runs) = (0u64, 0u64, 0u64);
        while runs < wanted / threads {
            tried += 1;
            let mut mutant = pool[machine.next() as usize % pool.len()].clone();
            for _ in 0..1 + machine.next() % 3 {
                let change = random_change(&mut machine);
                apply(&mut mutant.programs[0].insns, &change);
            }
            let limits = Limits::default();
            if examine(&mutant.programs[0], &mutant.maps, &limits, None).is_err() {
                continue;
            }
            accepted += 1;
            let ops = decode(&mutant.programs[0].insns).expect("verified");
            for _ in 0..INPUTS {
                runs += 1;
                let (random, len) = (machine.next(), machine.next() as usize % 160);
                if let Err(trap) = run(&ops, random, len) {
                    let text = dash_bpf::disassemble(&mutant.programs[0].insns);
                    panic!("{trap}, input {random}, {len}\n{}", text.expect("verified"));
                }
            }
            if pool.len() < POOL {
                pool.push(mutant);
            } else {
                // Now and then back to the roots: mutants lose what makes them interesting.
                let at = machine.next() as usize % POOL;
                pool[at] = if machine.next().is_multiple_of(4) {
                    originals[machine.next() as usize % originals.len()].clone()
                } else {
                    mutant
                };
            }
        }
        (tried, accepted, runs)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || worker(thread)))
            .collect();
        for worker in workers {
            let (tried, accepted, runs) = worker.join().expect("no trap");
            eprintln!("{tried} mutants, {accepted} accepted, {runs} runs, none trapped");
        }
    });
}
