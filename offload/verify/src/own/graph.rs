//! The control flow of a function: where paths meet, how loops nest, and which registers are read
//! later.
//!
//! Loops are nested strongly connected components: a component's head is the place first reached
//! in it, and what stays connected without the head is a loop inside. This gives every place an
//! order in which each edge goes forward or back to the head of a loop around it, whatever the
//! shape of the graph. The walk unrolls loops along it.

use std::collections::HashMap;

use dash_bpf::helper;
use dash_bpf::op::{Op, Reg, Registers, Size};

use super::fault::Fault;
use super::frame::FRAME;
use super::tnum::low_bits;

/// Loops inside each other; more are not worth their cost.
const DEEPEST: usize = 32;

/// One instruction of a function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Point {
    /// Paths meet here, or a function starts or goes on after a call.
    pub(crate) merge: bool,
    /// Registers read before they are written.
    pub(crate) live: Registers,
    /// Words of the frame read through r10 before they are written: bit `n` is for the 8 bytes from
    /// `r10 - 512 + 8n`. What is read through other registers is not in it.
    pub(crate) words: u64,
    /// Heads of the loops around it, outermost first; itself if it is one.
    pub(crate) loops: Vec<usize>,
    /// Its place among the parts of the function, then among those of each loop around it.
    pub(crate) order: Vec<u32>,
}

/// A function: what is reached from its entry without entering calls.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) entry: usize,
    points: HashMap<usize, Point>,
    /// Slot and target of its calls, and of functions whose address it takes.
    pub(crate) calls: Vec<(usize, usize)>,
}

/// Where an instruction goes on to in its function, taken branch last.
pub(crate) fn successors(ops: &[Op], pc: usize) -> [Option<usize>; 2] {
    match ops.get(pc) {
        None | Some(Op::Exit) => [None, None],
        Some(Op::Jump { target }) => [Some(*target), None],
        Some(Op::JumpIf { target, .. }) => [Some(pc + 1), Some(*target)],
        Some(Op::LoadImm64 { .. }) => [Some(pc + 2), None],
        Some(_) => [Some(pc + 1), None],
    }
}

impl Function {
    pub(crate) fn new(ops: &[Op], entry: usize) -> Result<Self, (usize, Fault)> {
        let order = reverse_postorder(ops, entry);
        let mut points: HashMap<usize, Point> =
            order.iter().map(|pc| (*pc, Point::default())).collect();
        let mut incoming: HashMap<usize, u32> = HashMap::from([(entry, 1)]);
        let mut calls = Vec::new();
        for pc in &order {
            for to in successors(ops, *pc).into_iter().flatten() {
                *incoming.entry(to).or_default() += 1;
            }
            match ops.get(*pc) {
                Some(Op::CallLocal { target }) => {
                    calls.push((*pc, *target));
                    *incoming.entry(pc + 1).or_default() += 1;
                }
                // Whoever takes a function's address has it called.
                Some(Op::LoadImm64 { imm, .. }) => {
                    calls.extend(imm.function(*pc).map(|target| (*pc, target)));
                }
                _ => {}
            }
        }
        for (pc, point) in &mut points {
            point.merge = *pc == entry || incoming.get(pc).is_some_and(|n| *n > 1);
        }
        nest(ops, order.clone(), &mut points)?;
        live(ops, &order, &mut points);
        Ok(Self {
            entry,
            points,
            calls,
        })
    }

    /// Everything reached is a point of the function.
    pub(crate) fn point(&self, pc: usize) -> Option<&Point> {
        self.points.get(&pc)
    }

    pub(crate) fn reached(&self) -> impl Iterator<Item = usize> {
        self.points.keys().copied()
    }
}

fn reverse_postorder(ops: &[Op], entry: usize) -> Vec<usize> {
    let mut seen = vec![false; ops.len()];
    let mut order = Vec::new();
    let mut stack = vec![(entry, 0)];
    if let Some(seen) = seen.get_mut(entry) {
        *seen = true;
    }
    while let Some((pc, next)) = stack.last_mut() {
        let successors = successors(ops, *pc);
        match successors.get(*next) {
            None => {
                order.push(*pc);
                stack.pop();
            }
            Some(to) => {
                *next += 1;
                if let Some(to) = to
                    && seen.get(*to) == Some(&false)
                {
                    seen[*to] = true;
                    stack.push((*to, 0));
                }
            }
        }
    }
    order.reverse();
    order
}

/// Part of a function whose loops are still to be found.
struct Part {
    nodes: Vec<usize>,
    loops: Vec<usize>,
    order: Vec<u32>,
}

fn nest(
    ops: &[Op],
    nodes: Vec<usize>,
    points: &mut HashMap<usize, Point>,
) -> Result<(), (usize, Fault)> {
    // Which part a node is in; edges that leave the part do not count.
    let mut part_of: HashMap<usize, usize> = HashMap::new();
    let mut parts = vec![Part {
        nodes,
        loops: Vec::new(),
        order: Vec::new(),
    }];
    let mut number = 0;
    while let Some(part) = parts.pop() {
        number += 1;
        for node in &part.nodes {
            part_of.insert(*node, number);
        }
        // A loop's head is part 0 of it.
        let first = u32::from(!part.loops.is_empty());
        let inside = |pc: &usize| part_of.get(pc) == Some(&number);
        let components = components(ops, &part.nodes, inside);
        for (place, component) in (first..).zip(components.into_iter().rev()) {
            let mut order = part.order.clone();
            order.push(place);
            let head = component.head;
            let is_loop = !component.others.is_empty()
                || successors(ops, head)
                    .into_iter()
                    .flatten()
                    .any(|to| to == head);
            let mut loops = part.loops.clone();
            if !is_loop {
                if let Some(point) = points.get_mut(&head) {
                    (point.loops, point.order) = (loops, order);
                }
                continue;
            }
            if loops.len() == DEEPEST {
                let what = "loops inside each other";
                let limit = DEEPEST as u64;
                return Err((head, Fault::TooComplex { what, limit }));
            }
            loops.push(head);
            if let Some(point) = points.get_mut(&head) {
                point.merge = true;
                point.loops = loops.clone();
                point.order = order.clone();
                point.order.push(0);
            }
            part_of.remove(&head);
            parts.push(Part {
                nodes: component.others,
                loops,
                order,
            });
        }
    }
    Ok(())
}

/// Strongly connected components, each after all it leads to (Tarjan's algorithm without
/// recursion).
fn components(ops: &[Op], nodes: &[usize], inside: impl Fn(&usize) -> bool) -> Vec<Component> {
    let mut index: HashMap<usize, usize> = HashMap::new();
    let mut low: HashMap<usize, usize> = HashMap::new();
    let mut on_stack: HashMap<usize, bool> = HashMap::new();
    let mut stack = Vec::new();
    let mut found = Vec::new();
    for root in nodes {
        if index.contains_key(root) {
            continue;
        }
        let mut calls = vec![(*root, 0)];
        while let Some((pc, next)) = calls.last().copied() {
            if next == 0 {
                let number = index.len();
                index.insert(pc, number);
                low.insert(pc, number);
                stack.push(pc);
                on_stack.insert(pc, true);
            }
            let successors = successors(ops, pc);
            if let Some(to) = successors.get(next) {
                if let Some(last) = calls.last_mut() {
                    last.1 += 1;
                }
                if let Some(to) = to.filter(&inside) {
                    match index.get(&to) {
                        None => calls.push((to, 0)),
                        Some(number) if on_stack.get(&to) == Some(&true) => {
                            lower(&mut low, pc, *number);
                        }
                        Some(_) => {}
                    }
                }
                continue;
            }
            calls.pop();
            let mine = low.get(&pc).copied().unwrap_or_default();
            if let Some((caller, _)) = calls.last() {
                lower(&mut low, *caller, mine);
            }
            if Some(&mine) == index.get(&pc) {
                let mut component = Vec::new();
                while let Some(node) = stack.pop() {
                    on_stack.insert(node, false);
                    if node == pc {
                        break;
                    }
                    component.push(node);
                }
                component.sort_unstable_by_key(|node| index.get(node).copied());
                found.push(Component {
                    head: pc,
                    others: component,
                });
            }
        }
    }
    found
}

fn lower(low: &mut HashMap<usize, usize>, pc: usize, to: usize) {
    if let Some(low) = low.get_mut(&pc) {
        *low = (*low).min(to);
    }
}

struct Component {
    /// Reached first.
    head: usize,
    /// As they were reached.
    others: Vec<usize>,
}

fn arity(number: u32) -> usize {
    helper::arity(number).unwrap_or(5)
}

/// Words of the frame that bytes `[from, to)` lie in, offsets from r10.
pub(crate) fn words(from: i64, to: i64) -> u64 {
    let word = |at: i64| ((at + FRAME) / 8).clamp(0, 64) as u32;
    let (first, end) = (word(from), word(to.saturating_add(7)));
    low_bits(end) & !low_bits(first)
}

/// Words that an instruction reads through r10, and those it writes whole.
fn words_of(op: &Op) -> (u64, u64) {
    let range = |off: i16, size: Size| {
        let from = i64::from(off);
        words(from, from + size.bytes() as i64)
    };
    match *op {
        Op::Load {
            base: Reg::R10,
            off,
            size,
            ..
        }
        | Op::Atomic {
            base: Reg::R10,
            off,
            size,
            ..
        } => (range(off, size), 0),
        Op::Store {
            base: Reg::R10,
            off,
            size: Size::Dw,
            ..
        } if off % 8 == 0 => (0, range(off, Size::Dw)),
        _ => (0, 0),
    }
}

fn live(ops: &[Op], order: &[usize], points: &mut HashMap<usize, Point>) {
    let mut changed = true;
    while changed {
        changed = false;
        for pc in order.iter().rev() {
            let after = successors(ops, *pc)
                .into_iter()
                .flatten()
                .filter_map(|to| points.get(&to))
                .fold(Registers::NONE, |live, point| live | point.live);
            let before = ops
                .get(*pc)
                .map_or(after, |op| op.reads(arity) | (after & !op.writes()));
            let words_after = successors(ops, *pc)
                .into_iter()
                .flatten()
                .filter_map(|to| points.get(&to))
                .fold(0, |live, point| live | point.words);
            let (read, written) = ops.get(*pc).map_or((0, 0), words_of);
            let words = read | (words_after & !written);
            if let Some(point) = points.get_mut(pc)
                && (point.live, point.words) != (before, words)
            {
                (point.live, point.words) = (before, words);
                changed = true;
            }
        }
    }
}
