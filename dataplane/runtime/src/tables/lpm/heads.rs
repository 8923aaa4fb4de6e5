//! The tries of a table by the first four bytes of their keys.
//!
//! Open addressing, at most half full. The numbers are control's own, so any spreading will do. A
//! clone copies the table: 24 bytes a head, and heads are few (route groups, ENIs).

use super::leaf::Leaf;
use super::node::Node;

/// A trie and the row of its empty prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) best: Option<Leaf>,
    pub(super) root: Option<Node>,
}

impl Head {
    pub(super) fn is_empty(&self) -> bool {
        self.best.is_none() && self.root.is_none()
    }

    /// Where a walk begins: the root's entry, and the best row before it.
    #[inline]
    pub(super) fn start(&self) -> (usize, *mut u8) {
        let best = self.best.as_ref().map(Leaf::addr);
        (
            self.root.as_ref().map_or(0, Node::entry),
            best.unwrap_or(std::ptr::null_mut()),
        )
    }
}

/// Heads by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads {
    /// A power of two of them, or none.
    slots: Box<[Option<(u32, Head)>]>,
    len: usize,
}

impl Heads {
    #[inline]
    fn home(&self, head: u32) -> usize {
        // Numbers count up from 1 and may be in either byte order: spread all bits.
        let spread = u64::from(head).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (spread >> 32) as usize & (self.slots.len() - 1)
    }

    #[inline]
    pub(super) fn get(&self, head: u32) -> Option<&Head> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(head);
        loop {
            match &self.slots[at] {
                Some((known, found)) if *known == head => return Some(found),
                Some(_) => at = (at + 1) & (self.slots.len() - 1),
                None => return None,
            }
        }
    }

    /// The slot of a head, or the free one where it would be. There are slots.
    fn slot(&self, head: u32) -> usize {
        let mut at = self.home(head);
        while let Some((known, _)) = &self.slots[at]
            && *known != head
        {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    pub(super) fn get_or_add(&mut self, head: u32) -> &mut Head {
        if self.get(head).is_none() {
            if (self.len + 1) * 2 > self.slots.len() {
                let slots = (self.slots.len() * 2).max(4);
                self.rebuild(slots);
            }
            self.len += 1;
        }
        let at = self.slot(head);
        &mut self.slots[at]
            .get_or_insert_with(|| (head, Head::default()))
            .1
    }

    /// Removes a head and whatever it holds.
    pub(super) fn remove(&mut self, head: u32) {
        if self.get(head).is_none() {
            return;
        }
        let at = self.slot(head);
        self.slots[at] = None;
        self.len -= 1;
        // Those behind it up to the next free slot may have been pushed on by it.
        let mut next = (at + 1) & (self.slots.len() - 1);
        while let Some((known, moved)) = self.slots[next].take() {
            let to = self.slot(known);
            self.slots[to] = Some((known, moved));
            next = (next + 1) & (self.slots.len() - 1);
        }
    }

    fn rebuild(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![None; slots].into());
        for (head, moved) in old.into_iter().flatten() {
            let at = self.slot(head);
            self.slots[at] = Some((head, moved));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Head> {
        self.slots.iter().flatten().map(|(_, head)| head)
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.slots)
    }
}
