//! What is installed: code, and changes of table contents.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use dash_bpf::Object;

use crate::tables::Table;

/// Machine code of a verified object for the core that will run it.
#[derive(Clone)]
pub struct NativeImage {
    code: Arc<[u8]>,
    entry: usize,
    rest: Option<[usize; 2]>,
}

impl NativeImage {
    /// Wraps position-independent code whose entry is a `dash_wire::abi::EntryFn`.
    ///
    /// # Safety
    /// `code` must have been compiled, for this machine's instruction set, from a program that the
    /// verifier accepted, with the maps it was verified with; running it with a context that keeps
    /// the promises of `dash_wire::abi` must then be sound. The map of its `found_value` is
    /// `Table::FlowIndex`, that of its `memo` `Table::EniMac`.
    pub unsafe fn new(code: Arc<[u8]>, entry: usize) -> Self {
        Self {
            code,
            entry,
            rest: None,
        }
    }
    /// The same for code in parts. `entry` parses a packet and leaves its flow key in `meta`, then
    /// returns `dash_wire::abi::CONTINUE`. `hit` starts with the flow look-up and needs the same
    /// context and `meta`; packets of known flows it runs to the end, for others it returns `CONTINUE`
    /// and the number with which `miss` goes on as `RunCtx::resume`. Another core may run `hit` and
    /// `miss`, with its own tables, on a copy of `meta`.
    ///
    /// # Safety
    /// As [`new`](Self::new), for all.
    pub unsafe fn in_parts(code: Arc<[u8]>, entry: usize, hit: usize, miss: usize) -> Self {
        Self {
            code,
            entry,
            rest: Some([hit, miss]),
        }
    }
    /// The bytes.
    pub fn code(&self) -> &[u8] {
        &self.code
    }
    /// Offset of the entry.
    pub fn entry(&self) -> usize {
        self.entry
    }
    /// Offsets of what follows the entry in code in parts: for packets of known flows, and for others.
    pub fn rest(&self) -> Option<[usize; 2]> {
        self.rest
    }
}

impl fmt::Debug for NativeImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeImage({} bytes)", self.code.len())
    }
}

/// Hash of a pipeline's shape: same shape, same code.
pub type ShapeHash = [u8; 32];

/// Code of a generation, in every form its executors need.
#[derive(Clone, Debug)]
pub struct Image {
    /// Shape it was made for.
    pub shape: ShapeHash,
    /// The pipeline as IR text: what the reference model runs, and what is shown to people.
    pub ir: Arc<str>,
    /// eBPF; map index = [`Table`] number.
    pub object: Arc<Object>,
    /// Compiled form, when the target runs native code.
    pub native: Option<NativeImage>,
}

/// One change of a table's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableOp {
    /// Inserts or replaces a row. Sizes are those of the table's map definition.
    Put {
        /// Table, not `Acl`.
        table: Table,
        /// Key bytes (index, as `u32` in native order, for arrays).
        key: Box<[u8]>,
        /// Row bytes.
        value: Box<[u8]>,
    },
    /// Removes a row; for arrays, zeroes it. Absent rows are fine.
    Delete {
        /// Table, not `Acl`.
        table: Table,
        /// Key bytes.
        key: Box<[u8]>,
    },
    /// Replaces the rules of an ACL group; `None` removes the group.
    Acl {
        /// Group id, not 0.
        group: u32,
        /// Rules in the order of evaluation.
        rules: Option<Arc<[AclRuleRow]>>,
    },
}

/// A prefix of either family over 16-byte addresses (IPv4 in the last 4 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AclPrefix {
    /// Address, host bits zero.
    pub addr: [u8; 16],
    /// Mask length over the 128 bits: 96 + n for IPv4.
    pub len: u8,
}

/// Prefixes of a rule: the union of lists.
///
/// A list that many rules name, like that of a tag with 24,000 prefixes, is one list that all of
/// them share: memory is counted once, and a classifier may tell that it is the same by its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AclPrefixes(Box<[Arc<[AclPrefix]>]>);

impl AclPrefixes {
    /// The lists. The same prefix may be in several.
    pub fn lists(&self) -> &[Arc<[AclPrefix]>] {
        &self.0
    }

    /// Prefixes of all lists, one list after the other.
    pub fn iter(&self) -> impl Iterator<Item = &AclPrefix> + Clone {
        self.0.iter().flat_map(|list| list.iter())
    }
}

impl FromIterator<Arc<[AclPrefix]>> for AclPrefixes {
    fn from_iter<I: IntoIterator<Item = Arc<[AclPrefix]>>>(lists: I) -> Self {
        Self(lists.into_iter().filter(|list| !list.is_empty()).collect())
    }
}

impl From<Vec<AclPrefix>> for AclPrefixes {
    fn from(list: Vec<AclPrefix>) -> Self {
        Self::from_iter([Arc::from(list)])
    }
}

impl<const N: usize> From<[AclPrefix; N]> for AclPrefixes {
    fn from(list: [AclPrefix; N]) -> Self {
        Self::from(list.to_vec())
    }
}

/// One ACL rule for a classifier. `None` matches anything; an empty list matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "match fields as their names say")]
pub struct AclRuleRow {
    /// Row of the rule: `dash_wire::tables::acl_action`.
    pub action: u32,
    pub protocols: Option<Box<[u8]>>,
    pub src: Option<AclPrefixes>,
    pub dst: Option<AclPrefixes>,
    /// Inclusive ranges, host order.
    pub src_ports: Option<Box<[(u16, u16)]>>,
    pub dst_ports: Option<Box<[(u16, u16)]>>,
}

/// Changes that become visible together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDelta {
    /// In order; a later change of the same row wins.
    pub ops: Vec<TableOp>,
}

impl TableDelta {
    /// ENI indices whose rows are gone afterwards. Their flows must end with them, uncounted: the
    /// index may be another ENI's next.
    pub fn deleted_enis(&self) -> Vec<u32> {
        let mut gone = BTreeMap::new();
        for op in &self.ops {
            let (key, deleted) = match op {
                TableOp::Delete {
                    table: Table::Eni,
                    key,
                } => (key, true),
                TableOp::Put {
                    table: Table::Eni,
                    key,
                    ..
                } => (key, false),
                _ => continue,
            };
            if let Some(index) = key.first_chunk() {
                gone.insert(u32::from_ne_bytes(*index), deleted);
            }
        }
        gone.into_iter()
            .filter_map(|(index, deleted)| deleted.then_some(index))
            .collect()
    }
}

/// One generation: rows, and code when the shape changed.
#[derive(Clone, Debug)]
pub struct Update {
    /// Counts up from 1.
    pub generation: u64,
    /// New code; `None` keeps the installed one.
    pub image: Option<Arc<Image>>,
    /// New rows.
    pub delta: Arc<TableDelta>,
}
