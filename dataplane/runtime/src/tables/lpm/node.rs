//! Nodes of a trie: 256 ways a byte, runs of equal ways stored once, counted references.
//!
//! A branch stands at a byte of the key. For each value of the byte it has one entry: nothing, the row
//! of the longest of the branch's own prefixes (those that end inside this byte), or a child. Entries
//! that are equal to the one before are left out; a bit map says where a run begins, so an entry is
//! found by counting bits. A branch with many runs has all 256 entries instead. Before its byte it may
//! skip up to 7 bytes in which nothing branches. Where few prefixes are left, a bucket has them
//! ([`super::bucket`]). A child keeps what its entry would have been without it: the best row so far.
//!
//! Header, entries, rows and own prefixes are one block of memory, so a step reads one or two cache
//! lines. Blocks are counted as `Arc` counts, by hand because a pointer also tells (in its low bits)
//! how the node is to be read.

use std::alloc::Layout;
use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::block;
use super::bucket::{self, Bucket};
use super::leaf::Leaf;

/// Most bytes a node skips.
pub(super) const MOST_SKIP: usize = 7;
/// More runs than these, and all entries are stored.
const MOST_RUNS: usize = 64;
/// Blocks are aligned to this; the bits below are tags.
pub(super) const ALIGN: usize = 16;
/// Tag: the entry is a branch, not a row.
const BRANCH: usize = 1;
/// Tag: the branch has all 256 entries.
const DENSE: usize = 2;
/// Tag: the branch skips bytes or has a best row.
const EXTRA: usize = 4;
/// Tag: the entry is a bucket.
const BUCKET: usize = 8;
/// One of these: the entry is a node, and refers to it.
const NODE: usize = BRANCH | BUCKET;

/// Start of a node's block, of either kind.
#[repr(C)]
pub(super) struct Common {
    /// Row of the longest prefix that ends before this node, or null. It is owned by the parent.
    best: *mut u8,
    count: AtomicU32,
    /// A branch's runs in the words before each word of `runs`; a bucket's prefixes in the first.
    pub(super) small: [u8; 4],
}

impl Common {
    /// The row of the longest prefix that ends before this node, or null.
    #[inline(always)]
    pub(super) fn best(&self) -> *mut u8 {
        self.best
    }

    /// Of a node with one reference.
    pub(super) fn new(best: *mut u8, small: [u8; 4]) -> Self {
        Self {
            best,
            count: AtomicU32::new(1),
            small,
        }
    }
}

/// Start of a branch's block. Entries follow, then the leaves of its own prefixes, then their codes.
#[repr(C, align(16))]
struct Head {
    common: Common,
    /// Bit `p`: the entry of byte `p` is not that of `p - 1`. Bit 0 is always set.
    runs: [u64; 4],
    /// Skipped bytes, from the most significant.
    skip: u64,
    entries: u16,
    children: u16,
    locals: u16,
    skip_len: u8,
}

/// A counted reference to a node; the low bits of the pointer are tags.
#[derive(Debug)]
#[repr(transparent)]
pub(super) struct Node(NonNull<u8>);

// SAFETY: what references share is not changed (`head_mut` and `common_mut` ask for a sole reference),
// and counts are atomic: nodes are `Arc`s of plain bytes and of references to nodes and leaves.
unsafe impl Send for Node {}
// SAFETY: as above.
unsafe impl Sync for Node {}

/// A prefix that ends inside a node's byte: its length (1 to 8) and bits in one number, a 1 before
/// the bits. Ascending codes are ascending lengths.
pub(super) type Code = u16;

/// The code of the first `bits` bits of a byte.
pub(super) fn code(byte: u8, bits: u32) -> Code {
    1 << bits | u16::from(byte) >> (8 - bits)
}

/// What a node is made of.
pub(super) struct Parts {
    pub(super) skip: u64,
    pub(super) skip_len: usize,
    best: *mut u8,
    /// By code.
    pub(super) locals: Vec<(Code, Leaf)>,
    /// By byte.
    pub(super) children: Vec<(u8, Node)>,
}

impl Parts {
    pub(super) fn new(skip: u64, skip_len: usize) -> Self {
        Self {
            skip,
            skip_len,
            best: std::ptr::null_mut(),
            locals: Vec::new(),
            children: Vec::new(),
        }
    }

    pub(super) fn best(mut self, best: *mut u8) -> Self {
        self.best = best;
        self
    }

    /// Puts the parts together.
    pub(super) fn build(self) -> Node {
        // The entry of each byte: shorter prefixes first, so that longer ones paint over them.
        let mut all = [0usize; 256];
        for (code, leaf) in &self.locals {
            let bits = code.ilog2();
            let width = 1usize << (8 - bits);
            let first = (usize::from(*code) << (8 - bits)) & 0xff;
            all[first..first + width].fill(leaf.addr().expose_provenance());
        }
        let children = self.children.len();
        for (byte, mut child) in self.children {
            let entry = &mut all[usize::from(byte)];
            child.set_best(std::ptr::with_exposed_provenance_mut(*entry));
            *entry = child.into_entry();
        }

        let mut runs = [0u64; 4];
        let mut ranks = [0u8; 4];
        let mut entries = [0usize; 256];
        let mut n = 0;
        for (byte, entry) in all.iter().enumerate() {
            if byte % 64 == 0 {
                ranks[byte / 64] = n as u8;
            }
            if n == 0 || entries[n - 1] != *entry {
                runs[byte / 64] |= 1 << (byte % 64);
                entries[n] = *entry;
                n += 1;
            }
        }
        let entries = if n > MOST_RUNS {
            &all[..]
        } else {
            &entries[..n]
        };
        let head = Head {
            common: Common::new(self.best, ranks),
            runs,
            skip: self.skip,
            entries: entries.len() as u16,
            children: children as u16,
            locals: self.locals.len() as u16,
            skip_len: self.skip_len as u8,
        };
        let layout = Node::layout(&head);
        let block = block::new(layout);
        // SAFETY: the block is laid out for this head, its entries, leaves and codes.
        unsafe {
            block.cast::<Head>().write(head);
            let mut node = Node(block.map_addr(|at| at | BRANCH));
            node.entries_ptr()
                .copy_from_nonoverlapping(entries.as_ptr(), entries.len());
            let (leaves, codes) = node.locals_ptr();
            for (n, (code, leaf)) in self.locals.into_iter().enumerate() {
                leaves.add(n).write(leaf);
                codes.add(n).write(code);
            }
            node.retag();
            node
        }
    }
}

impl Node {
    /// Takes a bucket's block over.
    ///
    /// # Safety
    /// The block is one of [`Bucket`]'s, with a reference that nobody else has.
    pub(super) unsafe fn of_bucket(block: NonNull<u8>) -> Self {
        Self(block.map_addr(|at| at | BUCKET))
    }

    /// The bucket that it is, if it is one.
    pub(super) fn bucket(&self) -> Option<&Bucket> {
        // SAFETY: the tag says what the block is; it lives as long as the reference.
        (self.entry() & BUCKET != 0).then(|| unsafe { self.block().cast().as_ref() })
    }

    fn layout(head: &Head) -> Layout {
        let words = usize::from(head.entries) + usize::from(head.locals);
        let codes = usize::from(head.locals) * size_of::<Code>();
        Layout::from_size_align(size_of::<Head>() + words * 8 + codes, ALIGN)
            .expect("a node is small")
    }

    fn own_layout(&self) -> Layout {
        match self.bucket() {
            Some(bucket) => bucket.layout(),
            None => Self::layout(self.head()),
        }
    }

    /// The pointer with its tags, as entries hold it.
    pub(super) fn entry(&self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    fn into_entry(self) -> usize {
        let entry = self.entry();
        std::mem::forget(self);
        entry
    }

    /// Takes over the reference an entry stands for.
    ///
    /// # Safety
    /// The entry came from `into_entry`, and is not used as one again.
    unsafe fn from_entry(entry: usize) -> Self {
        Self(NonNull::new(std::ptr::with_exposed_provenance_mut(entry)).expect("tagged, so not 0"))
    }

    fn block(&self) -> NonNull<u8> {
        self.0
            .map_addr(|at| std::num::NonZero::new(at.get() & !(ALIGN - 1)).expect("not below 16"))
    }

    fn common(&self) -> &Common {
        // SAFETY: blocks of both kinds start so; it is written only by `common_mut` and `head_mut`.
        unsafe { self.block().cast().as_ref() }
    }

    /// # Safety
    /// This is the only reference to the node.
    unsafe fn common_mut(&mut self) -> &mut Common {
        // SAFETY: the only reference is `self`, borrowed uniquely.
        unsafe { self.block().cast().as_mut() }
    }

    /// Of a branch.
    fn head(&self) -> &Head {
        assert!(self.entry() & BRANCH != 0, "a bucket has no head");
        // SAFETY: a branch's block starts with its head, which is written only by `head_mut`.
        unsafe { self.block().cast().as_ref() }
    }

    /// # Safety
    /// This is the only reference to the node.
    unsafe fn head_mut(&mut self) -> &mut Head {
        assert!(self.entry() & BRANCH != 0, "a bucket has no head");
        // SAFETY: the only reference is `self`, borrowed uniquely.
        unsafe { self.block().cast().as_mut() }
    }

    fn entries_ptr(&self) -> *mut usize {
        // SAFETY: entries follow the head in the same block.
        unsafe { self.block().add(size_of::<Head>()).as_ptr().cast() }
    }

    fn locals_ptr(&self) -> (*mut Leaf, *mut Code) {
        let head = self.head();
        // SAFETY: leaves follow the entries, codes the leaves, in the same block.
        unsafe {
            let leaves = self.entries_ptr().add(head.entries.into());
            let codes = leaves.add(head.locals.into());
            (leaves.cast(), codes.cast())
        }
    }

    fn entries(&self) -> &[usize] {
        // SAFETY: `build` wrote as many entries; they change only through a sole reference.
        unsafe { std::slice::from_raw_parts(self.entries_ptr(), self.head().entries.into()) }
    }

    /// Of a branch's own prefixes, ascending.
    pub(super) fn codes(&self) -> &[Code] {
        // SAFETY: `build` wrote as many codes.
        unsafe { std::slice::from_raw_parts(self.locals_ptr().1, self.head().locals.into()) }
    }

    /// Rows of a branch's own prefixes, in the order of their codes.
    pub(super) fn leaves(&self) -> &[Leaf] {
        // SAFETY: `build` wrote as many leaves.
        unsafe { std::slice::from_raw_parts(self.locals_ptr().0, self.head().locals.into()) }
    }

    fn retag(&mut self) {
        let head = self.head();
        let extra = head.skip_len > 0 || !head.common.best.is_null();
        let tags =
            BRANCH | if head.entries == 256 { DENSE } else { 0 } | if extra { EXTRA } else { 0 };
        self.0 = self.block().map_addr(|at| at | tags);
    }

    fn is_sole(&self) -> bool {
        // Acquire: what others did before they let go is done.
        self.common().count.load(Ordering::Acquire) == 1
    }

    /// Makes this the only reference to the node, by copying it if it is not.
    fn make_sole(&mut self) {
        if self.is_sole() {
            return;
        }
        let layout = self.own_layout();
        let block = block::new(layout);
        if let Some(bucket) = self.bucket() {
            bucket.leaves().iter().cloned().for_each(std::mem::forget);
        } else {
            let children = (0..=255).filter_map(|byte| self.child(byte));
            children.cloned().for_each(std::mem::forget);
            self.leaves().iter().cloned().for_each(std::mem::forget);
        }
        // SAFETY: two blocks of one layout; the references in the copy were counted above.
        unsafe {
            block.copy_from_nonoverlapping(self.block(), layout.size());
            block.cast::<Common>().as_mut().count = AtomicU32::new(1);
        }
        let tags = self.entry() & (ALIGN - 1);
        *self = Self(block.map_addr(|at| at | tags));
    }

    /// Takes a branch apart.
    pub(super) fn take(mut self) -> Parts {
        self.make_sole();
        let head = self.head();
        let mut parts = Parts::new(head.skip, head.skip_len.into()).best(head.common.best);
        for byte in 0..=255u8 {
            let at = self.index(byte);
            let entry = self.entries()[at];
            // A child's run is one byte long: no two children are equal.
            if entry & NODE != 0 {
                // SAFETY: the block, which holds the entry's reference, is freed below as memory.
                parts
                    .children
                    .push((byte, unsafe { Self::from_entry(entry) }));
            }
        }
        let codes = self.codes().iter().copied();
        // SAFETY: as for children; each leaf is read once.
        let leaf = |n| unsafe { self.locals_ptr().0.add(n).read() };
        parts.locals = codes.enumerate().map(|(n, code)| (code, leaf(n))).collect();
        let (block, layout) = (self.block(), Self::layout(self.head()));
        std::mem::forget(self);
        // SAFETY: the only reference was ours and is forgotten; `build` or `make_sole` allocated it.
        unsafe { block::free(block, layout) };
        parts
    }

    /// Where the entry of a byte is.
    fn index(&self, byte: u8) -> usize {
        let head = self.head();
        if head.entries == 256 {
            byte.into()
        } else {
            rank(head, byte)
        }
    }

    /// What a node skips: a bucket, nothing.
    pub(super) fn skip(&self) -> (u64, usize) {
        if self.bucket().is_some() {
            return (0, 0);
        }
        (self.head().skip, self.head().skip_len.into())
    }

    pub(super) fn best(&self) -> *mut u8 {
        self.common().best
    }

    /// Makes a row the best before this node.
    pub(super) fn set_best(&mut self, best: *mut u8) {
        if self.best() != best {
            self.make_sole();
            // SAFETY: just made the only one.
            unsafe { self.common_mut() }.best = best;
            if self.bucket().is_none() {
                self.retag();
            }
        }
    }

    /// A branch's children.
    pub(super) fn children(&self) -> usize {
        self.head().children.into()
    }

    /// The child of a byte.
    pub(super) fn child(&self, byte: u8) -> Option<&Self> {
        let entry = &self.entries()[self.index(byte)];
        // SAFETY: a `Node` is a pointer that is not null, and an entry with the tag is the bits of
        // one; it is borrowed as long as the entry is.
        (entry & NODE != 0).then(|| unsafe { &*std::ptr::from_ref(entry).cast::<Self>() })
    }

    /// The row of one of the node's own prefixes.
    pub(super) fn local(&self, code: Code) -> Option<&Leaf> {
        let at = self.codes().binary_search(&code).ok()?;
        self.leaves().get(at)
    }

    /// Changes a child that is there; it may go. `None` when nothing is left of the node itself.
    pub(super) fn change_child(
        mut self,
        byte: u8,
        change: impl FnOnce(Self) -> Option<Self>,
    ) -> Option<Self> {
        self.make_sole();
        let at = self.index(byte);
        // SAFETY: the only reference to the node is ours, and `at` is below its entries. The entry
        // is emptied first, so its reference exists once whatever `change` does.
        let child = unsafe { Self::from_entry(self.entries_ptr().add(at).replace(0)) };
        let best = child.best();
        if let Some(mut child) = change(child) {
            child.set_best(best);
            // SAFETY: as above.
            unsafe { self.entries_ptr().add(at).write(child.into_entry()) };
            return Some(self);
        }
        // SAFETY: as above: the entry is what it would be without the child.
        unsafe {
            self.entries_ptr().add(at).write(best.expose_provenance());
            self.head_mut().children -= 1;
        }
        let (children, locals) = (self.head().children, self.head().locals);
        if children > 8 && self.head().entries == 256 {
            // It stays as it is until it is much too large.
            return Some(self);
        }
        if children == 0 && locals == 0 {
            return None;
        }
        let parts = self.take();
        Some(parts.build_merged())
    }

    /// Adds a child where there is none.
    pub(super) fn add_child(mut self, byte: u8, mut child: Self) -> Self {
        if self.head().entries == 256 {
            self.make_sole();
            let at = usize::from(byte);
            child.set_best(std::ptr::with_exposed_provenance_mut(self.entries()[at]));
            // SAFETY: the only reference is ours, and there are 256 entries.
            unsafe {
                self.entries_ptr().add(at).write(child.into_entry());
                self.head_mut().children += 1;
            }
            return self;
        }
        let mut parts = self.take();
        let at = parts.children.partition_point(|(b, _)| *b < byte);
        parts.children.insert(at, (byte, child));
        parts.build()
    }

    /// Bytes of memory below and in this node, rows counted once.
    pub(super) fn memory(&self, rows: &mut HashSet<usize>) -> usize {
        let (leaves, below) = match self.bucket() {
            Some(bucket) => (bucket.leaves(), 0),
            None => {
                let children = (0..=255).filter_map(|byte| self.child(byte));
                (self.leaves(), children.map(|c| c.memory(rows)).sum())
            }
        };
        let new = leaves.iter().filter(|leaf| rows.insert(leaf.addr().addr()));
        self.own_layout().size() + new.map(Leaf::memory).sum::<usize>() + below
    }
}

impl Parts {
    /// As [`build`](Self::build), but a node that only leads to one child becomes part of it.
    pub(super) fn build_merged(mut self) -> Node {
        if self.locals.is_empty()
            && self.children.len() == 1
            && let Some((byte, child)) = self.children.pop()
        {
            let skipped = child.skip().1;
            if child.bucket().is_some() || self.skip_len + 1 + skipped > MOST_SKIP {
                self.children.push((byte, child));
                return self.build();
            }
            let mut parts = child.take().best(self.best);
            let before = self.skip_len * 8;
            parts.skip = self.skip | u64::from(byte) << (56 - before) | parts.skip >> (before + 8);
            parts.skip_len = self.skip_len + 1 + skipped;
            return parts.build();
        }
        self.build()
    }
}

impl Clone for Node {
    fn clone(&self) -> Self {
        // Relaxed: as for a leaf.
        let before = self.common().count.fetch_add(1, Ordering::Relaxed);
        assert!(
            before < u32::MAX / 2,
            "a node is referred to by tables only"
        );
        Self(self.0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.common().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let layout = self.own_layout();
        let leaves = if let Some(bucket) = self.bucket() {
            bucket.leaves()
        } else {
            for entry in self.entries().iter().filter(|entry| *entry & NODE != 0) {
                // SAFETY: the entry's reference ends with the block that holds it.
                drop(unsafe { Self::from_entry(*entry) });
            }
            self.leaves()
        };
        for leaf in leaves {
            // SAFETY: as for entries: the block is not read again.
            drop(unsafe { std::ptr::from_ref(leaf).read() });
        }
        // SAFETY: no reference is left; the block was allocated with this layout.
        unsafe { block::free(self.block(), layout) }
    }
}

#[inline(always)]
fn rank(head: &Head, byte: u8) -> usize {
    let (word, bit) = (usize::from(byte >> 6), byte & 63);
    let upto = head.runs[word] & (u64::MAX >> (63 - bit));
    usize::from(head.common.small[word]) + upto.count_ones() as usize - 1
}

/// Bits of a key that are still to be read, from the most significant.
pub(super) trait Rest: Copy {
    /// The first 8 bytes.
    fn first(self) -> u64;
    /// Without the first `bytes` bytes.
    fn after(self, bytes: usize) -> Self;
}

impl Rest for u64 {
    #[inline(always)]
    fn first(self) -> u64 {
        self
    }
    #[inline(always)]
    fn after(self, bytes: usize) -> Self {
        self << (bytes * 8)
    }
}

impl Rest for u128 {
    #[inline(always)]
    fn first(self) -> u64 {
        (self >> 64) as u64
    }
    #[inline(always)]
    fn after(self, bytes: usize) -> Self {
        self << (bytes * 8)
    }
}

/// Address of the row of the longest prefix below an entry, or `best` when there is none.
///
/// # Safety
/// `entry` is a live node's, or 0.
#[inline(always)]
pub(super) unsafe fn walk(mut entry: usize, mut rest: impl Rest, mut best: *mut u8) -> *mut u8 {
    while entry & BRANCH != 0 {
        let head: *const Head = std::ptr::with_exposed_provenance(entry & !(ALIGN - 1));
        // SAFETY: an entry with this tag is a live node's: a parent keeps its children.
        let node = unsafe { &*head };
        if entry & EXTRA != 0 {
            if !node.common.best.is_null() {
                best = node.common.best;
            }
            let skip = usize::from(node.skip_len);
            // Skipped bytes are at the top, zero behind; at most 7, so the shift is below 64.
            let differ = (rest.first() ^ node.skip) & !(u64::MAX >> (skip * 8));
            if differ != 0 {
                return best;
            }
            rest = rest.after(skip);
        }
        let byte = (rest.first() >> 56) as u8;
        rest = rest.after(1);
        let at = if entry & DENSE != 0 {
            usize::from(byte)
        } else {
            rank(node, byte)
        };
        // SAFETY: entries follow the head: 256 of them, or as many as there are runs.
        entry = unsafe { *head.add(1).cast::<usize>().add(at) };
    }
    if entry & BUCKET != 0 {
        let block = std::ptr::with_exposed_provenance(entry & !(ALIGN - 1));
        // SAFETY: as for branches.
        return unsafe { bucket::find(block, rest, best) };
    }
    if entry == 0 {
        best
    } else {
        std::ptr::with_exposed_provenance_mut(entry)
    }
}
