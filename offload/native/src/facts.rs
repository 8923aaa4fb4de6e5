//! What is known of a value: the lattice of the forward analysis and its state.
//!
//! ```text
//!        Mixed                 may be the context: accesses through it are refused
//!        /   \
//!    Other    \                neither the context nor an address in a tracked frame
//!   /  |  \    \
//! Const Map Element  Ctx  Frame
//!        \  |  /
//!         Dead                 never read
//! ```
//!
//! `Frame` joins with anything else to `Other` only after its frame was marked *escaped*: then all
//! of that frame lives in memory and stores through unknown pointers may hit it.

use dash_bpf::Reg;

/// What is known of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    /// Nothing reads it.
    Dead,
    /// This number.
    Const(u64),
    /// The context plus a byte offset.
    Ctx(i64),
    /// Address of a map object.
    Map(u32),
    /// Address of an element of an array map: not null.
    Element,
    /// r10 of the frame at `depth` plus a byte offset.
    Frame { depth: u8, off: i64 },
    /// Neither the context nor an address in a frame that has not escaped.
    Other,
    /// May be the context or not.
    Mixed,
}

/// Known contents of stack bytes, stored by one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    depth: u8,
    off: i16,
    size: u8,
    fact: Fact,
}

impl Slot {
    fn overlaps(&self, depth: u8, off: i16, size: usize) -> bool {
        self.depth == depth
            && i32::from(self.off) < i32::from(off) + size as i32
            && i32::from(off) < i32::from(self.off) + i32::from(self.size)
    }
}

/// Frames whose addresses were lost track of, bit by depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Escaped(u8);

impl Escaped {
    pub(crate) fn contains(self, depth: u8) -> bool {
        self.0 >> depth & 1 != 0
    }

    /// Forgets where a value points; what stays known of it.
    pub(crate) fn lose(&mut self, fact: Fact) -> Fact {
        match fact {
            Fact::Frame { depth, .. } => {
                self.0 |= 1 << depth;
                Fact::Other
            }
            Fact::Ctx(_) | Fact::Mixed => Fact::Mixed,
            _ => Fact::Other,
        }
    }

    pub(crate) fn join(&mut self, a: Fact, b: Fact) -> Fact {
        match (a, b) {
            _ if a == b => a,
            (Fact::Dead, x) | (x, Fact::Dead) => x,
            _ => match (self.lose(a), self.lose(b)) {
                (Fact::Mixed, _) | (_, Fact::Mixed) => Fact::Mixed,
                _ => Fact::Other,
            },
        }
    }
}

/// What is known at one point of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Registers of each frame entered.
    frames: Vec<[Fact; 11]>,
    /// Known stack contents, ordered, never overlapping.
    slots: Vec<Slot>,
}

impl State {
    /// At a program's entry. Registers that hold nothing read as 0, as compiled code sets them.
    pub(crate) fn entry(r1: Fact, r2: Fact) -> Self {
        let mut registers = [Fact::Const(0); 11];
        registers[Reg::R1.index()] = r1;
        registers[Reg::R2.index()] = r2;
        registers[Reg::R10.index()] = Fact::Frame { depth: 0, off: 0 };
        Self {
            frames: vec![registers],
            slots: Vec::new(),
        }
    }

    pub(crate) fn get(&self, reg: Reg) -> Fact {
        self.frames.last().map_or(Fact::Other, |f| f[reg.index()])
    }

    pub(crate) fn set(&mut self, reg: Reg, fact: Fact) {
        if let Some(frame) = self.frames.last_mut() {
            frame[reg.index()] = fact;
        }
    }

    /// Enters a local function: it sees the caller's registers and a frame of its own.
    pub(crate) fn enter(&mut self) {
        let depth = self.frames.len() as u8;
        if let Some(mut frame) = self.frames.last().copied() {
            frame[Reg::R10.index()] = Fact::Frame { depth, off: 0 };
            self.frames.push(frame);
        }
    }

    /// Leaves a local function: r0 is its result, the caller's r1 to r5 are cleared.
    pub(crate) fn leave(&mut self, escaped: &mut Escaped) {
        let depth = self.frames.len().saturating_sub(1) as u8;
        let result = match self.get(Reg::R0) {
            // The address of a frame that is gone.
            f @ Fact::Frame { depth: d, .. } if d == depth => escaped.lose(f),
            f => f,
        };
        self.frames.pop();
        self.slots.retain(|s| s.depth < depth);
        self.clobber(result);
    }

    /// Enters a function that a helper calls with these arguments.
    pub(crate) fn enter_with(&mut self, args: [Fact; 4]) {
        let depth = self.frames.len() as u8;
        let mut frame = [Fact::Const(0); 11];
        frame[Reg::R1.index()..=Reg::R4.index()].copy_from_slice(&args);
        frame[Reg::R10.index()] = Fact::Frame { depth, off: 0 };
        self.frames.push(frame);
    }

    /// Leaves a function that a helper called: the helper goes on.
    pub(crate) fn leave_round(&mut self, escaped: &mut Escaped) {
        escaped.lose(self.get(Reg::R0));
        self.frames.pop();
        let depth = self.frames.len() as u8;
        self.slots.retain(|s| s.depth < depth);
    }

    /// After any call: r0 is the result, r1 to r5 are cleared.
    pub(crate) fn clobber(&mut self, result: Fact) {
        self.set(Reg::R0, result);
        for r in [Reg::R1, Reg::R2, Reg::R3, Reg::R4, Reg::R5] {
            self.set(r, Fact::Const(0));
        }
    }

    /// A store to known stack bytes.
    pub(crate) fn store(
        &mut self,
        depth: u8,
        off: i16,
        size: usize,
        fact: Fact,
        escaped: &mut Escaped,
    ) {
        self.slots.retain(|s| !s.overlaps(depth, off, size));
        let fact = match fact {
            // A narrow store takes a pointer apart; what remains is a number.
            Fact::Frame { .. } if size < 8 => escaped.lose(fact),
            Fact::Ctx(_) | Fact::Mixed if size < 8 => Fact::Other,
            Fact::Map(_) | Fact::Element if size < 8 => Fact::Other,
            Fact::Const(c) if size < 8 => Fact::Const(c & ((1 << (size * 8)) - 1)),
            f => f,
        };
        if fact == Fact::Other || fact == Fact::Dead {
            return;
        }
        let slot = Slot {
            depth,
            off,
            size: size as u8,
            fact,
        };
        let at = self
            .slots
            .partition_point(|s| (s.depth, s.off) < (depth, off));
        self.slots.insert(at, slot);
    }

    /// A load of known stack bytes, zero-extended.
    pub(crate) fn load(&self, depth: u8, off: i16, size: usize, escaped: &mut Escaped) -> Fact {
        let mut found = Fact::Other;
        for slot in self.slots.iter().filter(|s| s.overlaps(depth, off, size)) {
            let within = slot.off <= off
                && i32::from(off) + size as i32 <= i32::from(slot.off) + i32::from(slot.size);
            match slot.fact {
                Fact::Const(c) if within => {
                    let shifted = c >> ((off - slot.off) * 8);
                    let mask = if size == 8 {
                        u64::MAX
                    } else {
                        (1 << (size * 8)) - 1
                    };
                    return Fact::Const(shifted & mask);
                }
                fact if slot.off == off && usize::from(slot.size) == size => return fact,
                fact => {
                    if escaped.lose(fact) == Fact::Mixed {
                        found = Fact::Mixed;
                    }
                }
            }
        }
        found
    }

    /// Something wrote to stack bytes: nothing is known of them any more.
    pub(crate) fn forget(&mut self, depth: u8, off: i16, size: usize) {
        self.slots.retain(|s| !s.overlaps(depth, off, size));
    }

    /// Something may have written anywhere in the escaped frames.
    pub(crate) fn forget_escaped(&mut self, escaped: &mut Escaped) {
        let known = *escaped;
        self.slots.retain_mut(|s| {
            if known.contains(s.depth) {
                s.fact = escaped.lose(s.fact);
            }
            s.fact != Fact::Other
        });
    }

    /// Joins another state that reaches the same step, dropping what `live` says is never read.
    /// Returns whether anything changed.
    pub(crate) fn join(&mut self, other: &Self, live: u128, escaped: &mut Escaped) -> bool {
        let mut changed = false;
        for (depth, (mine, theirs)) in self.frames.iter_mut().zip(&other.frames).enumerate() {
            for (r, (a, b)) in mine.iter_mut().zip(theirs).enumerate() {
                if live >> (depth * 11 + r) & 1 != 0 {
                    let joined = escaped.join(*a, *b);
                    changed |= std::mem::replace(a, joined) != joined;
                }
            }
        }
        // Slots that are not the same bytes in both states hold something unknown in one.
        for slot in &other.slots {
            if self.slots.iter().any(|s| s.same_bytes(slot)) {
                continue;
            }
            if escaped.lose(slot.fact) != Fact::Mixed {
                continue;
            }
            let (depth, off, size) = (slot.depth, slot.off, slot.size.into());
            let mut clear = true;
            for s in self
                .slots
                .iter_mut()
                .filter(|s| s.overlaps(depth, off, size))
            {
                changed |= std::mem::replace(&mut s.fact, Fact::Mixed) != Fact::Mixed;
                clear = false;
            }
            if clear {
                let at = self
                    .slots
                    .partition_point(|s| (s.depth, s.off) < (depth, off));
                let fact = Fact::Mixed;
                self.slots.insert(at, Slot { fact, ..*slot });
                changed = true;
            }
        }
        self.slots.retain_mut(|s| {
            let theirs = other.slots.iter().find(|t| t.same_bytes(s));
            let joined = escaped.join(s.fact, theirs.map_or(Fact::Other, |t| t.fact));
            changed |= joined != s.fact;
            s.fact = joined;
            joined != Fact::Other
        });
        changed
    }

    /// Forgets registers that are never read.
    pub(crate) fn prune(&mut self, live: u128) {
        for (depth, frame) in self.frames.iter_mut().enumerate() {
            for (r, fact) in frame.iter_mut().enumerate() {
                if live >> (depth * 11 + r) & 1 == 0 {
                    *fact = Fact::Dead;
                }
            }
        }
    }
}

impl Slot {
    fn same_bytes(&self, other: &Self) -> bool {
        (self.depth, self.off, self.size) == (other.depth, other.off, other.size)
    }
}
