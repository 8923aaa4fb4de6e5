//! What is known at one instruction on the paths that lead there.

use std::fmt::Write;
use std::rc::Rc;

use dash_bpf::op::{Reg, Registers};

use super::fault::Fault;
use super::frame::Frame;
use super::relate::{Joining, Matching, Proven};
use super::scalar::Scalar;
use super::value::{Id, Packet, Part, Value};

/// Registers, frames and what is proven of the packet.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// r0 to r9 of the running function.
    regs: [Value; 10],
    /// r6 to r9 of the functions that wait, the main program first.
    saved: Vec<[Value; 4]>,
    /// The last is the running function's.
    frames: Vec<Rc<Frame>>,
    pub(crate) proven: Proven,
    /// Records of ring buffers that were not given back yet: no more are out than these.
    held: Vec<Id>,
    /// And one at least, or more, that no value names any more.
    lost: bool,
    /// Only one path leads here: what is refused then is refused for good.
    pub(crate) exact: bool,
}

impl State {
    pub(crate) fn entry() -> Self {
        let mut regs = [Value::Unwritten; 10];
        regs[1] = Value::Context(0);
        Self {
            regs,
            saved: Vec::new(),
            frames: vec![Rc::default()],
            proven: Proven::NOTHING,
            held: Vec::new(),
            lost: false,
            exact: true,
        }
    }

    pub(crate) fn get(&self, r: Reg) -> Value {
        match self.regs.get(r.index()) {
            Some(value) => *value,
            None => Value::Stack {
                frame: self.depth(),
                off: Scalar::constant(0),
            },
        }
    }

    /// r10 is never set: the decoder sees to that.
    pub(crate) fn set(&mut self, r: Reg, value: Value) {
        if let Some(to) = self.regs.get_mut(r.index()) {
            *to = value;
        }
    }

    /// Frames below the running one.
    pub(crate) fn depth(&self) -> usize {
        self.frames.len() - 1
    }

    pub(crate) fn frame(&self, index: usize) -> Option<&Frame> {
        self.frames.get(index).map(|f| &**f)
    }

    pub(crate) fn frame_mut(&mut self, index: usize) -> Option<&mut Frame> {
        self.frames.get_mut(index).map(Rc::make_mut)
    }

    /// r1 to r5 are gone; r0 is for the caller to set.
    pub(crate) fn clobber(&mut self) {
        self.regs[..6].fill(Value::Unwritten);
    }

    /// Enters a function: r6 to r9 are saved and cannot be read in it, as in Linux.
    pub(crate) fn enter(&mut self) {
        let [.., r6, r7, r8, r9] = self.regs;
        self.saved.push([r6, r7, r8, r9]);
        self.regs[6..].fill(Value::Unusable);
        self.regs[0] = Value::Unusable;
        self.frames.push(Rc::default());
    }

    /// Leaves a function. Pointers into its frame are worth nothing any more.
    pub(crate) fn leave(&mut self) {
        let gone = self.depth();
        self.frames.pop();
        let result = self.regs[0];
        self.clobber();
        self.regs[0] = result;
        if let Some(saved) = self.saved.pop() {
            self.regs[6..].copy_from_slice(&saved);
        }
        self.forget(|value| matches!(value, Value::Stack { frame, .. } if *frame >= gone));
    }

    fn registers_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.regs.iter_mut().chain(self.saved.iter_mut().flatten())
    }

    /// Makes these pointers invalid wherever they are: copies of them may be left, and may be copied.
    fn forget(&mut self, which: impl Fn(&Value) -> bool) {
        self.update(|value| which(value).then_some(Value::Opaque));
    }

    /// The packet moved: pointers into it are worth nothing.
    pub(crate) fn forget_packet(&mut self) {
        self.forget(|value| matches!(value, Value::Packet(_) | Value::PacketEnd));
        self.proven = Proven::NOTHING;
    }

    /// Replaces values wherever they are.
    pub(crate) fn update(&mut self, new: impl Fn(&Value) -> Option<Value>) {
        for value in self.registers_mut() {
            if let Some(new) = new(value) {
                *value = new;
            }
        }
        for frame in &mut self.frames {
            if frame.cells().iter().any(|c| new(&c.value).is_some()) {
                for value in Rc::make_mut(frame).values_mut() {
                    if let Some(new) = new(value) {
                        *value = new;
                    }
                }
            }
        }
    }

    /// A number learnt to be in this set, wherever it is.
    pub(crate) fn learn(&mut self, r: Reg, set: Scalar) {
        if let Value::Number { id, .. } = self.get(r) {
            self.set(r, Value::Number { set, id });
            if id != 0 {
                self.update(|value| match value {
                    Value::Number { id: i, .. } if *i == id => Some(Value::Number { set, id }),
                    _ => None,
                });
            }
        }
    }

    /// `bytes` bytes from where `p`'s fixed offset counts are there.
    pub(crate) fn prove(&mut self, p: &Packet, bytes: i64) {
        /// Packets are shorter (Linux's `MAX_PACKET_OFF`); larger offsets would prove nothing.
        const LONGEST: i64 = 0xffff;
        let start = p.var.wide;
        if start.smin < 0 || start.smax.saturating_add(bytes) > LONGEST || bytes <= 0 {
            return;
        }
        let from_start = start.smin + bytes;
        match p.part {
            Part::Data => self.proven.data = self.proven.data.max(from_start),
            Part::Meta => self.proven.meta = self.proven.meta.max(from_start),
        }
        if p.id != 0 {
            let (part, id) = (p.part, p.id);
            self.update(|value| match value {
                Value::Packet(q) if q.part == part && q.id == id && q.range < bytes => {
                    Some(Value::Packet(Packet { range: bytes, ..*q }))
                }
                _ => None,
            });
        }
    }

    /// A look-up turned out to have found something, or not.
    pub(crate) fn found(&mut self, lookup: Id, found: bool) {
        self.update(|value| {
            let is_it = value.maybe_null() == Some(lookup);
            is_it.then(|| value.resolved(found))
        });
        if !found {
            self.held.retain(|id| *id != lookup);
        }
    }

    /// A record that must be given back.
    pub(crate) fn hold(&mut self, id: Id) {
        self.held.push(id);
    }

    /// Gives a record back: no pointer to it is left.
    pub(crate) fn give_back(&mut self, record: Id) {
        self.held.retain(|id| *id != record);
        self.forget(|value| matches!(value, Value::Memory(m) if m.id == record));
    }

    /// Records that were not given back.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether every record was given back.
    pub(crate) fn nothing_held(&self) -> Result<(), Fault> {
        match self.held.first() {
            _ if self.lost => Err(Fault::Lost),
            Some(record) => Err(Fault::NotGivenBack { record: *record }),
            None => Ok(()),
        }
    }

    /// Registers nothing will read hold nothing: states that differ in them alone are the same.
    pub(crate) fn keep(&mut self, live: Registers) {
        for (index, value) in self.regs.iter_mut().enumerate() {
            if live.bits() >> index & 1 == 0 {
                *value = Value::Unusable;
            }
        }
    }

    /// As [`Self::keep`], for the words of a frame.
    pub(crate) fn keep_words(&mut self, frame: usize, words: u64) {
        if let Some(frame) = self.frames.get_mut(frame)
            && frame.stores_outside(words)
        {
            Rc::make_mut(frame).keep(words);
        }
    }

    /// As [`Self::keep`], for the function that waits for the running one.
    pub(crate) fn keep_saved(&mut self, live: Registers) {
        if let Some(saved) = self.saved.last_mut() {
            for (index, value) in (6..).zip(saved) {
                if live.bits() >> index & 1 == 0 {
                    *value = Value::Unusable;
                }
            }
        }
    }

    /// Every machine state `new` stands for, `self` stands for.
    pub(crate) fn includes(&self, new: &Self) -> bool {
        let mut matching = Matching::new(&new.proven);
        let matching = &mut matching;
        self.proven.data <= new.proven.data
            && self.proven.meta <= new.proven.meta
            && self
                .values()
                .zip(new.values())
                .all(|(a, b)| a.includes(*b, matching))
            && self
                .frames
                .iter()
                .zip(&new.frames)
                // One frame shared holds the same values, whose ids still have to be paired.
                .all(|(a, b)| a.includes(b, matching))
            && (self.lost || !new.lost)
            && new.held.iter().all(|id| {
                let holder = matching.holder(*id);
                self.lost || holder.is_some_and(|holder| self.held.contains(&holder))
            })
    }

    fn values(&self) -> impl Iterator<Item = &Value> {
        self.regs.iter().chain(self.saved.iter().flatten())
    }

    /// A state that includes both. `next` is the last id given out.
    pub(crate) fn join(&self, other: &Self, next: &mut Id) -> Self {
        let mut joining = Joining::new(next, self.proven, other.proven);
        let joining = &mut joining;
        let mut regs = self.regs;
        for (a, b) in regs.iter_mut().zip(&other.regs) {
            *a = a.join(*b, joining);
        }
        let mut saved = self.saved.clone();
        for (a, b) in saved.iter_mut().flatten().zip(other.saved.iter().flatten()) {
            *a = a.join(*b, joining);
        }
        let frames = self
            .frames
            .iter()
            .zip(&other.frames)
            .map(|(a, b)| Rc::new(a.join(b, joining)))
            .collect();
        let (held, lost) = joining.all_held(&self.held, &other.held);
        Self {
            regs,
            saved,
            frames,
            held,
            lost: self.lost || other.lost || lost,
            proven: Proven {
                data: self.proven.data.min(other.proven.data),
                meta: self.proven.meta.min(other.proven.meta),
            },
            exact: false,
        }
    }

    /// This where it goes on to change to `next`, which includes it: a state that includes `next`, and after
    /// a bounded number of such steps all that follows.
    pub(crate) fn widen(&self, mut next: Self) -> Self {
        for (new, old) in next.regs.iter_mut().zip(&self.regs) {
            *new = old.widen(*new);
        }
        let saved = next.saved.iter_mut().flatten();
        for (new, old) in saved.zip(self.saved.iter().flatten()) {
            *new = old.widen(*new);
        }
        for (new, old) in next.frames.iter_mut().zip(&self.frames) {
            *new = Rc::new(old.widen(new));
        }
        if next.proven != self.proven {
            next.proven = Proven::NOTHING;
        }
        next
    }

    /// How much is lost when these are joined; only compared with other such numbers.
    pub(crate) fn distance(&self, other: &Self) -> u32 {
        let values = self.values().zip(other.values());
        let of_values: u32 = values.map(|(a, b)| 2 * a.distance(*b)).sum();
        let frames = self.frames.iter().zip(&other.frames);
        let of_frames: u32 = frames
            .filter(|(a, b)| !Rc::ptr_eq(a, b))
            .map(|(a, b)| a.distance(b))
            .sum();
        let proven = u32::from(self.proven != other.proven) * 4;
        of_values + of_frames + proven
    }

    /// About how much memory it takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        let cells: usize = self.frames.iter().map(|f| f.cells().len()).sum();
        size_of::<Self>()
            + self.saved.len() * size_of::<[Value; 4]>()
            + self.frames.len() * size_of::<Frame>()
            + cells * size_of::<super::frame::Cell>()
    }

    /// One line: registers, stored values, packet.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (index, value) in self.regs.iter().enumerate() {
            if *value != Value::Unusable {
                let _ = write!(text, " r{index}={value}");
            }
        }
        for (depth, frame) in self.frames.iter().enumerate() {
            for cell in frame.cells() {
                let _ = write!(
                    text,
                    " stack{depth}[{}..{}]={}",
                    cell.off,
                    i32::from(cell.off) + i32::from(cell.size),
                    cell.value
                );
            }
        }
        if self.lost {
            text.push_str(" lost a record");
        }
        for id in &self.held {
            let _ = write!(text, " holds record#{id}");
        }
        if self.proven.data > 0 {
            let _ = write!(text, " packet>={}", self.proven.data);
        }
        text
    }
}
