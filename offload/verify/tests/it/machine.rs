//! A machine that believes nothing, for programs that are said to be safe. The fuzz targets
//! `verify` and `verify_own` run programs on it too.

use dash_bpf::helper;
use dash_bpf::interp::{
    CTX_BASE, CallFault, Env, HelperResult, Interp, MemFault, STACK_BASE, StackView, Trap,
};
use dash_bpf::map::{F_RDONLY_PROG, InnerMaps};
use dash_bpf::op::Size;
use dash_bpf::{MapDef, MapKind, Op};

fn map(name: &str, kind: MapKind, key_size: u32, value_size: u32, max_entries: u32) -> MapDef {
    MapDef {
        name: name.to_owned(),
        kind,
        key_size,
        value_size,
        max_entries,
        flags: 0,
        ..MapDef::default()
    }
}

/// What maps found in map 9 are.
fn template() -> MapDef {
    map("", MapKind::Hash, 4, 24, 10)
}

/// Numbered as the programs name them: `map[0]` and so on.
pub(crate) fn maps() -> Vec<MapDef> {
    vec![
        map("hash", MapKind::Hash, 4, 16, 100),       // 0
        map("array", MapKind::Array, 4, 64, 8),       // 1
        map("meta", MapKind::PercpuArray, 4, 256, 1), // 2
        map("lpm", MapKind::LpmTrie, 8, 16, 100),     // 3
        map("acl", MapKind::Acl, 40, 8, 100),         // 4
        map("queue", MapKind::Queue, 0, 24, 100),     // 5
        map("programs", MapKind::ProgArray, 4, 4, 4), // 6
        map("ports", MapKind::DevMap, 4, 4, 4),       // 7
        map("one", MapKind::Array, 4, 32, 1),         // 8
        MapDef {
            inner: Some(Box::new(InnerMaps {
                template: template(),
                slots: Vec::new(),
            })),
            ..map("outer", MapKind::ArrayOfMaps, 4, 4, 4) // 9
        },
        map("ring", MapKind::RingBuf, 0, 0, 4096), // 10
        map("events", MapKind::PerfEventArray, 4, 4, 1), // 11
        MapDef {
            flags: F_RDONLY_PROG,
            contents: b"eth0\0port\0no end...".to_vec(),
            ..map("rodata", MapKind::Array, 4, 19, 1) // 12
        },
        map("sockets", MapKind::XskMap, 4, 4, 4), // 13
    ]
}

const PACKET: u64 = 0x1000_0000;
const VALUES: u64 = 0x4000_0000;
const HANDLES: u64 = 0x8000_0000;
const KEYS: u64 = 0x6000_0000;
const RECORDS: u64 = 0x7000_0000;
const HEADROOM: usize = 256;

/// Every address and argument is checked.
pub(crate) struct Machine {
    maps: Vec<MapDef>,
    /// One value a map.
    values: Vec<Vec<u8>>,
    packet: Vec<u8>,
    meta: usize,
    data: usize,
    end: usize,
    /// Packet memory moves when the packet is adjusted: old pointers fault.
    moves: u64,
    /// Keys that helpers show to functions.
    keys: [u8; 64],
    /// Records of the ring buffer, by number; those that are given back are gone.
    records: Vec<Option<Vec<u8>>>,
    random: u64,
}

impl Machine {
    pub(crate) fn new(seed: u64, len: usize) -> Self {
        let mut machine = Self {
            // What is found in a map of maps is a map of the machine's alone.
            maps: [maps(), vec![template()]].concat(),
            values: Vec::new(),
            packet: Vec::new(),
            meta: HEADROOM,
            data: HEADROOM,
            end: HEADROOM + len,
            moves: 0,
            keys: [7; 64],
            records: Vec::new(),
            random: seed,
        };
        machine.packet = (0..HEADROOM + len + HEADROOM)
            .map(|_| machine.next() as u8)
            .collect();
        for index in 0..machine.maps.len() {
            let MapDef {
                value_size,
                contents,
                ..
            } = machine.maps[index].clone();
            let random = (0..value_size).map(|_| machine.next() as u8).collect();
            let is_fixed = !contents.is_empty();
            machine
                .values
                .push(if is_fixed { contents } else { random });
        }
        machine
    }

    /// xorshift64*; small numbers are as likely as large ones.
    pub(crate) fn next(&mut self) -> u64 {
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
        if let Some(at) = addr
            .checked_sub(RECORDS)
            .filter(|at| *at < HANDLES - RECORDS)
        {
            let (record, at) = ((at >> 16) as usize, (at & 0xffff) as usize);
            let record = self.records.get_mut(record).and_then(Option::as_mut);
            let record = record.ok_or(MemFault::Unmapped)?;
            return record.get_mut(at..at + len).ok_or(MemFault::Unmapped);
        }
        if let Some(at) = addr.checked_sub(KEYS).filter(|at| *at < RECORDS - KEYS) {
            let at = at as usize;
            return self.keys.get_mut(at..at + len).ok_or(MemFault::Unmapped);
        }
        if let Some(at) = addr.checked_sub(VALUES).filter(|at| *at < KEYS - VALUES) {
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

/// What programs may look into and not change.
const FIXED: &[MapKind] = &[
    MapKind::LpmTrie,
    MapKind::Acl,
    MapKind::DevMap,
    MapKind::XskMap,
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
        let fixed = map.is_some_and(|m| FIXED.contains(&m.kind));
        let key = (KEYS..RECORDS).contains(&addr);
        if fixed || key || map.is_some_and(MapDef::read_only) {
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

    fn round(&mut self, number: u32, args: [u64; 5], round: u64, _: usize) -> Option<[u64; 4]> {
        if number == helper::LOOP {
            return (round < args[0].min(20)).then_some([round, args[2], 0, 0]);
        }
        let map = args[0].checked_sub(HANDLES)?;
        (round < 3).then_some([args[0], KEYS, VALUES + (map << 20), args[2]])
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
            helper::MAP_LOOKUP_ELEM if self.map(args[0], &[MapKind::ArrayOfMaps]).is_ok() => {
                self.bytes(2, args[1], 4, stack)?;
                let found = HANDLES + self.maps.len() as u64 - 1;
                return Ok(HelperResult::Value(if luck.is_multiple_of(4) {
                    0
                } else {
                    found
                }));
            }
            helper::TRACE_PRINTK => {
                if args[1] == 0 {
                    return Err(CallFault::Argument {
                        argument: 2,
                        why: "no text",
                    });
                }
                self.bytes(1, args[0], args[1] as usize, stack)?;
            }
            helper::PERF_EVENT_OUTPUT => {
                self.map(args[1], &[MapKind::PerfEventArray])?;
                if args[4] > 0 {
                    self.bytes(4, args[3], args[4] as usize, stack)?;
                }
            }
            helper::RINGBUF_OUTPUT => {
                self.map(args[0], &[MapKind::RingBuf])?;
                if args[2] > 0 {
                    self.bytes(2, args[1], args[2] as usize, stack)?;
                }
            }
            helper::RINGBUF_RESERVE => {
                self.map(args[0], &[MapKind::RingBuf])?;
                let size = args[1] as usize;
                if luck.is_multiple_of(3) || size > 4096 {
                    return Ok(HelperResult::Value(0));
                }
                let record = RECORDS + ((self.records.len() as u64) << 16);
                self.records.push(Some(vec![0; size]));
                return Ok(HelperResult::Value(record));
            }
            helper::RINGBUF_SUBMIT | helper::RINGBUF_DISCARD => {
                let at = args[0].wrapping_sub(RECORDS);
                let record = self.records.get_mut((at >> 16) as usize);
                let gone = record.filter(|_| at & 0xffff == 0).and_then(Option::take);
                if gone.is_none() {
                    return Err(CallFault::Argument {
                        argument: 1,
                        why: "not a record that is out",
                    });
                }
            }
            helper::RINGBUF_QUERY => {
                self.map(args[0], &[MapKind::RingBuf])?;
                return Ok(HelperResult::Value(luck));
            }
            helper::LOOP => return Ok(HelperResult::CallBack(args[1])),
            helper::FOR_EACH_MAP_ELEM => {
                self.map(args[0], TABLES)?;
                return Ok(HelperResult::CallBack(args[1]));
            }
            helper::STRNCMP => {
                self.bytes(1, args[0], args[1] as usize, stack)?;
                let mut at = args[2];
                while self
                    .memory(at, 1)
                    .map_err(|fault| CallFault::Memory { argument: 3, fault })?
                    != [0]
                {
                    at += 1;
                }
            }
            helper::XDP_LOAD_BYTES | helper::FIB_LOOKUP => {
                let (argument, len) = if number == helper::FIB_LOOKUP {
                    self.bytes(2, args[1], args[2] as usize, stack)?;
                    (2, args[2] as usize)
                } else {
                    (3, args[3] as usize)
                };
                let bytes: Vec<u8> = (0..len).map(|_| self.next() as u8).collect();
                let addr = args[usize::from(argument) - 1];
                let to = if stack.owns(addr) {
                    stack.write(addr, len)
                } else {
                    self.memory(addr, len)
                };
                to.map_err(|fault| CallFault::Memory { argument, fault })?
                    .copy_from_slice(&bytes);
            }
            helper::XDP_STORE_BYTES => {
                self.bytes(3, args[2], args[3] as usize, stack)?;
            }
            helper::MAP_LOOKUP_ELEM => {
                let map = self.map(args[0], &[TABLES, FIXED].concat())?;
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
            // What is behind the hook may move the packet.
            helper::DASH_HOOK => {
                self.adjust(args[0])?;
                return Ok(HelperResult::Value(luck));
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
            helper::JIFFIES64
            | helper::KTIME_GET_BOOT_NS
            | helper::KTIME_GET_COARSE_NS
            | helper::KTIME_GET_TAI_NS
            | helper::GET_NUMA_NODE_ID
            | helper::XDP_GET_BUFF_LEN
            | helper::KTIME_GET_NS
            | helper::GET_PRANDOM_U32
            | helper::GET_SMP_PROCESSOR_ID
            | helper::REDIRECT => return Ok(HelperResult::Value(luck)),
            _ => return Err(CallFault::UnknownHelper),
        }
        Ok(HelperResult::Value(status))
    }
}

/// Runs a program on a packet of `len` bytes; it ends by itself, if in long.
pub(crate) fn run(ops: &[Op], seed: u64, len: usize) -> Result<u64, Trap> {
    let mut machine = Machine::new(seed, len);
    let result = Interp::new(10_000_000).run(&[ops], 0, &[CTX_BASE], &mut machine)?;
    let out = machine.records.iter().flatten().count();
    assert_eq!(out, 0, "records that were not given back");
    Ok(result)
}
