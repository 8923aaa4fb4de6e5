//! How each helper call is compiled, decided from what is known of its arguments.
//!
//! Helpers that only read or write the context are inlined; look-ups in arrays become address
//! arithmetic; other maps known when compiling are reached through the operations at the head of
//! the map object; the rest goes through the helper table.

use dash_bpf::{MapDef, MapKind, Object, Reg, helper};
use dash_wire::abi::{HELPER_SLOTS, hash_map};

use crate::analysis::Place;
use crate::code::Options;
use crate::error::Reason;
use crate::facts::{Escaped, Fact, State};

/// Bytes of a key that is remembered.
const MEMO_KEY: u32 = 8;

/// How a call is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callee {
    /// Through the helper table.
    Helper(u32),
    /// Address arithmetic on an array map's elements.
    ArrayLookup {
        map: u32,
        key: Key,
    },
    /// A look-up in a hash map whose memory is known.
    HashLookup {
        map: u32,
        /// Where in a frame the key is; else r2 points to it.
        key: Option<Place>,
    },
    /// A look-up in a map of another kind.
    Lookup {
        map: u32,
    },
    /// The same, answered from the context's memory of earlier ones if it can be. The key is 8 bytes.
    Remembered {
        /// Where in a frame the key is; else r2 points to it.
        key: Option<Place>,
    },
    /// Another operation at the head of a known map object.
    Map(MapOperation),
    /// To this program of the object; `None` fails, as the slot is empty.
    TailCall(Option<u32>),
    /// To wherever the helper says.
    TailCallAnywhere,
    KtimeGetNs,
    GetSmpProcessorId,
    Redirect,
    /// Inlined for packets without metadata, which moves along with the head: the runtime does that.
    AdjustHead,
    /// Inlined for shrinking; growing zeroes memory, which the runtime does.
    AdjustTail,
}

/// Where the key of an array look-up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Const(u32),
    Stack(Place),
    /// In the memory r2 points to.
    Memory,
}

/// Operations at the head of a map object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapOperation {
    Update,
    Delete,
    Push,
    Pop,
    Peek,
}

/// Memory a call reads or writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Register that holds its address.
    pub(crate) base: Reg,
    /// Bytes after that address.
    pub(crate) off: u32,
    pub(crate) size: usize,
    pub(crate) written: bool,
    /// It is read in place of the call, so its address does not matter.
    pub(crate) value: bool,
}

/// A call as it will be compiled.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) callee: Callee,
    /// What the call does to memory through its arguments.
    pub(crate) memory: Vec<Memory>,
    /// `memory` is all it does to memory a program can name by a stack address.
    pub(crate) followed: bool,
    pub(crate) result: Fact,
}

impl Plan {
    fn followed(callee: Callee, memory: Vec<Memory>) -> Self {
        Self {
            callee,
            memory,
            followed: true,
            result: Fact::Other,
        }
    }
}

fn reads(base: Reg, size: u32) -> Memory {
    Memory {
        base,
        off: 0,
        size: size as usize,
        written: false,
        value: false,
    }
}

fn writes(base: Reg, size: u32) -> Memory {
    Memory {
        written: true,
        ..reads(base, size)
    }
}

/// Decides how to compile a call.
pub(crate) fn plan(
    object: &Object,
    options: &Options,
    state: &State,
    number: u32,
    depth: u8,
    escaped: &mut Escaped,
) -> Result<Plan, Reason> {
    if number as usize >= HELPER_SLOTS {
        return Err(Reason::UnknownHelper(number));
    }
    if matches!(number, helper::LOOP | helper::FOR_EACH_MAP_ELEM) {
        return Err(Reason::Unsupported(
            "a helper that calls a function and is itself called by a register's number",
        ));
    }
    if number == helper::TAIL_CALL {
        let target = tail_call(object, state, depth)?;
        let mut plan = Plan::followed(Callee::TailCall(target), Vec::new());
        plan.result = Fact::Const(u64::MAX);
        return Ok(plan);
    }
    let known_map = match state.get(Reg::R1) {
        Fact::Map(index) => object.maps.get(index as usize).map(|def| (index, def)),
        _ => None,
    };
    let ctx = state.get(Reg::R1) == Fact::Ctx(0);
    let inline = |callee| Ok(Plan::followed(callee, Vec::new()));
    match number {
        helper::KTIME_GET_NS => inline(Callee::KtimeGetNs),
        helper::GET_SMP_PROCESSOR_ID => inline(Callee::GetSmpProcessorId),
        helper::REDIRECT => inline(Callee::Redirect),
        helper::XDP_ADJUST_HEAD if ctx => inline(Callee::AdjustHead),
        helper::XDP_ADJUST_TAIL if ctx => inline(Callee::AdjustTail),
        helper::MAP_LOOKUP_ELEM
        | helper::MAP_UPDATE_ELEM
        | helper::MAP_DELETE_ELEM
        | helper::MAP_PUSH_ELEM
        | helper::MAP_POP_ELEM
        | helper::MAP_PEEK_ELEM => match known_map {
            Some((index, def))
                if number == helper::MAP_LOOKUP_ELEM && Some(index) == options.memo =>
            {
                remembered(index, def, state)
            }
            Some((index, def))
                if number == helper::MAP_LOOKUP_ELEM && options.hash_maps && searchable(def) =>
            {
                Ok(hash_lookup(index, def, state))
            }
            Some((index, def)) => Ok(map_call(index, def, state, number, escaped)),
            None => Ok(by_table(number, state)),
        },
        _ => Ok(by_table(number, state)),
    }
}

/// Raw programs bring helpers of their own: all go through the table.
pub(crate) fn plan_raw(number: u32) -> Result<Plan, Reason> {
    if number as usize >= HELPER_SLOTS {
        return Err(Reason::UnknownHelper(number));
    }
    Ok(Plan {
        followed: false,
        ..Plan::followed(Callee::Helper(number), Vec::new())
    })
}

fn map_call(index: u32, def: &MapDef, state: &State, number: u32, escaped: &mut Escaped) -> Plan {
    if number == helper::MAP_LOOKUP_ELEM && def.kind.is_array() && def.key_size == 4 {
        return array_lookup(index, def, state, escaped);
    }
    if number == helper::MAP_LOOKUP_ELEM {
        let memory = vec![reads(Reg::R2, def.key_size)];
        return Plan::followed(Callee::Lookup { map: index }, memory);
    }
    let (operation, memory) = match number {
        helper::MAP_UPDATE_ELEM => (
            MapOperation::Update,
            vec![reads(Reg::R2, def.key_size), reads(Reg::R3, def.value_size)],
        ),
        helper::MAP_DELETE_ELEM => (MapOperation::Delete, vec![reads(Reg::R2, def.key_size)]),
        helper::MAP_PUSH_ELEM => (MapOperation::Push, vec![reads(Reg::R2, def.value_size)]),
        helper::MAP_POP_ELEM => (MapOperation::Pop, vec![writes(Reg::R2, def.value_size)]),
        _ => (MapOperation::Peek, vec![writes(Reg::R2, def.value_size)]),
    };
    // Through a pointer that is not followed, a value may be written into a frame that escaped.
    Plan {
        followed: !matches!(operation, MapOperation::Pop | MapOperation::Peek)
            || matches!(state.get(Reg::R2), Fact::Frame { .. }),
        ..Plan::followed(Callee::Map(operation), memory)
    }
}

/// Whether compiled code may search the map itself, where its memory is known.
fn searchable(def: &MapDef) -> bool {
    let key = 1..=hash_map::KEY_WORDS as u32 * 8;
    def.kind == MapKind::Hash && key.contains(&def.key_size)
}

/// The place of the key that r2 points to, if it is on the stack.
fn key_place(state: &State) -> Option<Place> {
    match state.get(Reg::R2) {
        Fact::Frame { depth, off } => i16::try_from(off).ok().map(|off| Place { depth, off }),
        _ => None,
    }
}

/// Accesses that read `size` bytes: offset and bytes of each.
pub(crate) fn parts(size: u32) -> impl Iterator<Item = (u32, usize)> {
    let words = (0..size / 8).map(|word| (word * 8, 8));
    let rest = size % 8;
    let from = size - rest;
    // 4, 2 and 1 where the rest has them, in this order.
    let parts = [4u32, 2, 1]
        .into_iter()
        .filter(move |part| rest & part != 0);
    words.chain(parts.map(move |part| (from + (rest & !(2 * part - 1)), part as usize)))
}

/// A look-up in a hash map whose memory is known.
fn hash_lookup(map: u32, def: &MapDef, state: &State) -> Plan {
    let key = key_place(state);
    let memory = match key {
        Some(_) => parts(def.key_size)
            .map(|(off, size)| Memory {
                off,
                value: true,
                ..reads(Reg::R2, size as u32)
            })
            .collect(),
        None => vec![reads(Reg::R2, def.key_size)],
    };
    Plan::followed(Callee::HashLookup { map, key }, memory)
}

/// A look-up in the map that the options say is remembered.
fn remembered(index: u32, def: &MapDef, state: &State) -> Result<Plan, Reason> {
    if def.kind != MapKind::Hash || def.key_size != MEMO_KEY {
        return Err(Reason::MemoMap(index));
    }
    let place = key_place(state);
    let key = Memory {
        value: place.is_some(),
        ..reads(Reg::R2, MEMO_KEY)
    };
    let callee = Callee::Remembered { key: place };
    Ok(Plan::followed(callee, vec![key]))
}

fn array_lookup(index: u32, def: &MapDef, state: &State, escaped: &mut Escaped) -> Plan {
    let (key, memory) = match state.get(Reg::R2) {
        Fact::Frame { depth, off } => {
            let place = i16::try_from(off).map(|off| Place { depth, off });
            match place.map(|p| (p, state.load(p.depth, p.off, 4, escaped))) {
                Ok((_, Fact::Const(c))) => (Key::Const(c as u32), Vec::new()),
                Ok((place, _)) => {
                    let key = Memory {
                        value: true,
                        ..reads(Reg::R2, 4)
                    };
                    (Key::Stack(place), vec![key])
                }
                // Far outside any frame: refused when the use is checked.
                Err(_) => (Key::Memory, vec![reads(Reg::R2, 4)]),
            }
        }
        _ => (Key::Memory, Vec::new()),
    };
    let mut plan = Plan::followed(Callee::ArrayLookup { map: index, key }, memory);
    plan.result = match key {
        Key::Const(k) if k < def.max_entries => Fact::Element,
        Key::Const(_) => Fact::Const(0),
        _ => Fact::Other,
    };
    plan
}

/// A call through the helper table. Those whose pointer arguments have known sizes leave the rest
/// of a frame alone.
fn by_table(number: u32, state: &State) -> Plan {
    let callee = Callee::Helper(number);
    let size = |r| match state.get(r) {
        Fact::Const(c) => u32::try_from(c).ok(),
        _ => None,
    };
    if number == helper::CSUM_DIFF
        && let (Some(from), Some(to)) = (size(Reg::R2), size(Reg::R4))
    {
        let mut memory = vec![reads(Reg::R1, from), reads(Reg::R3, to)];
        memory.retain(|m| m.size > 0);
        return Plan::followed(callee, memory);
    }
    Plan {
        followed: false,
        ..Plan::followed(callee, Vec::new())
    }
}

/// A tail call of a program that is compiled alone.
pub(crate) fn tail_call_anywhere(state: &State, depth: u8) -> Result<Plan, Reason> {
    if depth > 0 {
        return Err(Reason::TailCallNested);
    }
    if state.get(Reg::R1) != Fact::Ctx(0) {
        return Err(Reason::TailCallCtx);
    }
    let mut plan = Plan::followed(Callee::TailCallAnywhere, Vec::new());
    plan.result = Fact::Const(u64::MAX);
    Ok(plan)
}

fn tail_call(object: &Object, state: &State, depth: u8) -> Result<Option<u32>, Reason> {
    if depth > 0 {
        return Err(Reason::TailCallNested);
    }
    if state.get(Reg::R1) != Fact::Ctx(0) {
        return Err(Reason::TailCallCtx);
    }
    let (Fact::Map(map), Fact::Const(slot)) = (state.get(Reg::R2), state.get(Reg::R3)) else {
        return Err(Reason::TailCallTarget);
    };
    let is_program_array = object
        .maps
        .get(map as usize)
        .is_some_and(|def| def.kind == MapKind::ProgArray);
    let contents = object.tail_calls.iter().find(|t| t.map == map);
    let (true, Some(contents)) = (is_program_array, contents) else {
        return Err(Reason::TailCallTarget);
    };
    // The index is 32 bits wide in Linux.
    let slot = slot as u32 as usize;
    match contents.programs.get(slot).copied().flatten() {
        Some(p) if p as usize >= object.programs.len() => Err(Reason::TailCallProgram(p)),
        target => Ok(target),
    }
}

/// Whether `struct xdp_md` has a field that a load of `size` bytes at `off` reads: packet pointers
/// whole, numbers also in part.
pub(crate) fn ctx_field(off: i64, size: usize) -> bool {
    use helper::xdp_md;
    let end = off + size as i64;
    if off < 0 || end > i64::from(xdp_md::SIZE) || size > 4 {
        return false;
    }
    if off < i64::from(xdp_md::INGRESS_IFINDEX) {
        size == 4 && off % 4 == 0
    } else {
        off / 4 == (end - 1) / 4
    }
}
