//! Longest-prefix match with the semantics of Linux's `LPM_TRIE`.
//!
//! A key is a `u32` prefix length in native order and then the bits, most significant first. The
//! first four bytes of the bits are nearly always matched whole (route group, ENI, family), so they
//! choose a trie from a small hash table ([`heads`]); the trie is over the bytes that follow
//! ([`node`]), down to where few prefixes are left, which are looked at one by one ([`bucket`]). Prefixes of less than four bytes are in a trie of their own, asked when the first
//! finds nothing.
//!
//! Clones share nodes. A change copies the nodes on its way, a few hundred bytes to some kilobytes,
//! and what nobody else holds is changed in place: a bulk load copies nothing. A look-up reads one
//! or two cache lines a byte where routes branch, and none where they do not.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use dash_bpf::MapDef;

use super::MapOps;
use super::hash::HashKey;

mod block;
mod bucket;
mod gather;
mod heads;
mod leaf;
mod node;
#[cfg(test)]
mod tests;

use bucket::Tail;
use gather::gather;
use heads::{Head, Heads};
use leaf::Leaf;
use node::{Node, Parts, Rest, code, walk};

const LEN: usize = size_of::<u32>();
/// Bytes of a key that choose a trie.
const HEAD: usize = 4;
/// Most bytes behind them.
const REST: usize = 16;

/// A longest-prefix table that shares what is equal with its clones.
#[derive(Clone, Debug)]
pub struct Lpm {
    /// Bytes of a key after the length.
    data: usize,
    value: usize,
    heads: Heads,
    /// Prefixes of less than [`HEAD`] bytes.
    short: Head,
    len: usize,
    /// Rows written lately, so that routes with equal rows share one.
    recent: Arc<Mutex<Recent>>,
    popcnt: bool,
}

/// A prefix or an address, cut in two.
#[derive(Clone, Copy, Debug)]
struct Path {
    bits: u32,
    head: u32,
    rest: u128,
}

impl Lpm {
    /// An empty table.
    ///
    /// # Panics
    /// When keys have not 1 to 20 bytes after the length.
    pub fn new(def: &MapDef) -> Self {
        let key = def.key_size as usize;
        assert!(key > LEN && key <= LEN + HEAD + REST, "keys of {key} bytes");
        Self {
            data: key - LEN,
            value: def.value_size as usize,
            heads: Heads::default(),
            short: Head::default(),
            len: 0,
            recent: Arc::default(),
            #[cfg(target_arch = "x86_64")]
            popcnt: std::arch::is_x86_feature_detected!("popcnt"),
            #[cfg(not(target_arch = "x86_64"))]
            popcnt: false,
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `None` when the length is more than the bits there are.
    #[inline]
    fn path(&self, key: &[u8]) -> Option<Path> {
        let (bits, data) = key.split_first_chunk::<LEN>()?;
        let bits = u32::from_ne_bytes(*bits);
        if bits as usize > self.data * 8 || data.len() != self.data {
            return None;
        }
        let (head, rest) = match data.split_first_chunk::<HEAD>() {
            Some((head, rest)) => (u32::from_be_bytes(*head), rest),
            None => (padded::<HEAD>(data).map_or(0, u32::from_be_bytes), &[][..]),
        };
        let rest = match rest.len() {
            // Sizes of the tables there are, so that no bytes are copied one by one.
            4 => u128::from(u32::from_be_bytes(rest.try_into().ok()?)) << 96,
            16 => u128::from_be_bytes(rest.try_into().ok()?),
            _ => u128::from_be_bytes(padded(rest)?),
        };
        Some(Path { bits, head, rest })
    }

    #[inline]
    fn find(&self, key: &[u8]) -> *mut u8 {
        match self.path(key) {
            Some(path) if path.bits as usize == self.data * 8 => self.longest(path),
            // Nobody asks so on the packet path: every length in turn.
            Some(path) => (0..=path.bits)
                .rev()
                .find_map(|bits| self.exact(Path { bits, ..path }))
                .map_or(std::ptr::null_mut(), Leaf::addr),
            None => std::ptr::null_mut(),
        }
    }

    #[inline]
    fn longest(&self, path: Path) -> *mut u8 {
        let found = match self.heads.get(path.head) {
            Some(head) if self.data <= HEAD + 8 => self.walk(head, (path.rest >> 64) as u64),
            Some(head) => self.walk(head, path.rest),
            None => std::ptr::null_mut(),
        };
        if found.is_null() && !self.short.is_empty() {
            return self.walk(&self.short, u64::from(path.head) << 32);
        }
        found
    }

    #[inline]
    fn walk(&self, head: &Head, rest: impl Rest) -> *mut u8 {
        let (entry, best) = head.start();
        #[cfg(target_arch = "x86_64")]
        if self.popcnt {
            // SAFETY: the processor has the instruction; the head keeps its trie.
            return unsafe { walk_popcnt(entry, rest, best) };
        }
        // SAFETY: the head keeps its trie.
        unsafe { walk(entry, rest, best) }
    }

    /// The row of exactly this prefix.
    fn exact(&self, path: Path) -> Option<&Leaf> {
        let (head, rest, bits) = match path.bits.checked_sub(HEAD as u32 * 8) {
            Some(bits) => (self.heads.get(path.head)?, path.rest, bits),
            None => (&self.short, u128::from(path.head) << 96, path.bits),
        };
        if bits == 0 {
            return head.best.as_ref();
        }
        exact(head.root.as_ref()?, rest, bits)
    }

    /// Copy of the value of the longest prefix that holds `key`'s bits.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.find(key);
        // SAFETY: a value of `self.value` bytes in a leaf that `self` keeps; leaves are not written
        // after they are made.
        (!value.is_null())
            .then(|| unsafe { std::slice::from_raw_parts(value, self.value) }.to_vec())
    }

    /// Inserts or replaces a prefix; false (unchanged) when its length is more than its bits.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> bool {
        assert_eq!(value.len(), self.value);
        let Some(path) = self.path(key) else {
            return false;
        };
        let leaf = self
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .leaf(value);
        let (head, rest, bits) = match path.bits.checked_sub(HEAD as u32 * 8) {
            Some(bits) => (self.heads.get_or_add(path.head), path.rest, bits),
            None => (&mut self.short, u128::from(path.head) << 96, path.bits),
        };
        let mut new = true;
        if bits == 0 {
            new = head.best.replace(leaf).is_none();
        } else {
            head.root = Some(match head.root.take() {
                Some(node) => put(node, Tail { rest, bits, leaf }, &mut new),
                None => gather(vec![Tail { rest, bits, leaf }]),
            });
        }
        self.len += usize::from(new);
        true
    }

    /// Removes exactly this prefix; false when absent.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(path) = self.path(key) else {
            return false;
        };
        // Looked up first: a row that is absent copies nothing.
        if self.exact(path).is_none() {
            return false;
        }
        let (head, rest, bits) = match path.bits.checked_sub(HEAD as u32 * 8) {
            Some(bits) => (self.heads.get_or_add(path.head), path.rest, bits),
            None => (&mut self.short, u128::from(path.head) << 96, path.bits),
        };
        if bits == 0 {
            head.best = None;
        } else {
            head.root = head.root.take().and_then(|node| remove(node, rest, bits));
        }
        if head.is_empty() && path.bits >= HEAD as u32 * 8 {
            self.heads.remove(path.head);
        }
        self.len -= 1;
        true
    }

    /// Bytes of memory held, shared ones included. Takes time in proportion to the rows.
    pub fn memory(&self) -> usize {
        let mut rows = HashSet::new();
        let heads = self.heads.iter().chain([&self.short]);
        let tries: usize = heads
            .filter_map(|head| Some(head.root.as_ref()?.memory(&mut rows)))
            .sum();
        self.heads.memory() + tries
    }
}

/// Bytes with zeros behind them; `None` when there are more than `N`.
fn padded<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let mut padded = [0; N];
    padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(padded)
}

/// [`walk`], counting bits by one instruction.
///
/// # Safety
/// As [`walk`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "popcnt")]
unsafe fn walk_popcnt(entry: usize, rest: impl Rest, best: *mut u8) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { walk(entry, rest, best) }
}

/// Where a prefix leaves what a node skips: the byte, when it does.
fn parts_at(node: &Node, rest: u128, bits: u32) -> Option<usize> {
    let (skip, skip_len) = node.skip();
    let skipped = skip_len as u32 * 8;
    let common = (rest.first() ^ skip).leading_zeros().min(skipped);
    (common < skipped || bits <= skipped).then(|| common.min(bits - 1) as usize / 8)
}

/// The row of a prefix of 1 bit or more below a node.
fn exact(node: &Node, rest: u128, bits: u32) -> Option<&Leaf> {
    if let Some(bucket) = node.bucket() {
        return bucket.exact(rest, bits);
    }
    if parts_at(node, rest, bits).is_some() {
        return None;
    }
    let skip_len = node.skip().1;
    let (rest, bits) = (rest.after(skip_len), bits - skip_len as u32 * 8);
    let byte = (rest >> 120) as u8;
    if bits <= 8 {
        return node.local(code(byte, bits));
    }
    exact(node.child(byte)?, rest.after(1), bits - 8)
}

/// Adds a prefix below a node; tells whether it is new.
fn put(node: Node, tail: Tail, new: &mut bool) -> Node {
    if let Some(bucket) = node.bucket() {
        let mut tails = bucket.tails();
        let same = |known: &Tail| {
            let differ = (known.rest ^ tail.rest).leading_zeros();
            known.bits == tail.bits && differ >= tail.bits
        };
        match tails.iter_mut().find(|known| same(known)) {
            Some(known) => {
                known.leaf = tail.leaf;
                *new = false;
            }
            None => tails.push(tail),
        }
        return instead(&node, tails);
    }
    if let Some(at) = parts_at(&node, tail.rest, tail.bits) {
        return put(part(node, at), tail, new);
    }
    let below = node.skip().1;
    let (rest, bits) = (tail.rest.after(below), tail.bits - below as u32 * 8);
    let byte = (rest >> 120) as u8;
    if bits <= 8 {
        let code = code(byte, bits);
        let mut parts = node.take();
        match parts.locals.binary_search_by_key(&code, |(code, _)| *code) {
            Ok(at) => {
                parts.locals[at].1 = tail.leaf;
                *new = false;
            }
            Err(at) => parts.locals.insert(at, (code, tail.leaf)),
        }
        return parts.build();
    }
    let tail = Tail {
        rest: rest.after(1),
        bits: bits - 8,
        ..tail
    };
    if node.child(byte).is_none() {
        return node.add_child(byte, gather(vec![tail]));
    }
    let changed = node.change_child(byte, |child| Some(put(child, tail, new)));
    changed.expect("a node with a child is something")
}

/// A node of these prefixes in the place of another.
fn instead(node: &Node, tails: Vec<Tail>) -> Node {
    let mut new = gather(tails);
    new.set_best(node.best());
    new
}

/// A node that stands at byte `at` of what `node` skips, above it.
fn part(node: Node, at: usize) -> Node {
    let best = node.best();
    let mut below = node.take();
    let skip = below.skip;
    let mut above = Parts::new(skip & !(u64::MAX >> (at * 8)), at).best(best);
    let byte = (skip << (at * 8) >> 56) as u8;
    below.skip_len -= at + 1;
    // `at` is below 7, so the shift is below 64.
    below.skip = skip << ((at + 1) * 8);
    above.children.push((byte, below.build()));
    above.build()
}

/// Removes a prefix that is there; `None` when nothing is left.
fn remove(node: Node, rest: u128, bits: u32) -> Option<Node> {
    if let Some(bucket) = node.bucket() {
        let mut tails = bucket.tails();
        tails.retain(|tail| tail.bits != bits || (tail.rest ^ rest).leading_zeros() < bits);
        return (!tails.is_empty()).then(|| instead(&node, tails));
    }
    let left = remove_in_branch(node, rest, bits)?;
    // Half a bucket, so that a prefix that comes and goes does not rebuild the branch each time.
    if left.bucket().is_none()
        && let Some(tails) = left.few(bucket::MOST / 2)
        && bucket::fits(&tails)
    {
        return Some(instead(&left, tails));
    }
    Some(left)
}

fn remove_in_branch(node: Node, rest: u128, bits: u32) -> Option<Node> {
    let skip_len = node.skip().1;
    let (rest, bits) = (rest.after(skip_len), bits - skip_len as u32 * 8);
    let byte = (rest >> 120) as u8;
    if bits > 8 {
        return node.change_child(byte, |child| remove(child, rest.after(1), bits - 8));
    }
    let code = code(byte, bits);
    let mut parts = node.take();
    parts.locals.retain(|(c, _)| *c != code);
    let something = !parts.locals.is_empty() || !parts.children.is_empty();
    something.then(|| parts.build_merged())
}

/// A small cache of rows by their contents. Route tables have many routes with one row.
#[derive(Debug)]
struct Recent([Option<Leaf>; 256]);

impl Default for Recent {
    fn default() -> Self {
        Self([const { None }; 256])
    }
}

impl Recent {
    fn leaf(&mut self, value: &[u8]) -> Leaf {
        let slot = &mut self.0[(HashKey::process().hash(value) >> 56) as usize];
        match slot {
            Some(leaf) if leaf.value() == value => leaf.clone(),
            _ => slot.insert(Leaf::new(value)).clone(),
        }
    }
}

// SAFETY: values are in leaves that the table keeps.
unsafe impl MapOps for Lpm {
    unsafe fn lookup(&self, key: *const u8) -> *mut u8 {
        // SAFETY: `key_size` readable bytes by contract; nothing is written in this call.
        let key = unsafe { std::slice::from_raw_parts(key, LEN + self.data) };
        self.find(key)
    }
}
