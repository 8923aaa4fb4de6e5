//! Map definitions: what a program and whoever runs it agree on about a table.

/// Kinds of maps, with Linux's numbers where Linux has them (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "names of enum bpf_map_type")]
pub enum MapKind {
    Hash = 1,
    #[default]
    Array = 2,
    ProgArray = 3,
    PerfEventArray = 4,
    PercpuHash = 5,
    PercpuArray = 6,
    LruHash = 9,
    LruPercpuHash = 10,
    LpmTrie = 11,
    ArrayOfMaps = 12,
    HashOfMaps = 13,
    DevMap = 14,
    CpuMap = 16,
    XskMap = 17,
    Queue = 22,
    Stack = 23,
    DevMapHash = 25,
    RingBuf = 27,
    /// Ours: an ACL classifier. Key `dash_wire::AclKey`, value of the first matching rule; look-up
    /// only. Not a Linux map.
    Acl = 0x4441_0001,
}

impl MapKind {
    /// The kind with this number, ours included.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Hash,
        Self::Array,
        Self::ProgArray,
        Self::PerfEventArray,
        Self::PercpuHash,
        Self::PercpuArray,
        Self::LruHash,
        Self::LruPercpuHash,
        Self::LpmTrie,
        Self::ArrayOfMaps,
        Self::HashOfMaps,
        Self::DevMap,
        Self::CpuMap,
        Self::XskMap,
        Self::Queue,
        Self::Stack,
        Self::DevMapHash,
        Self::RingBuf,
        Self::Acl,
    ];

    /// Linux's number, `None` for kinds Linux does not have.
    pub fn linux(self) -> Option<u32> {
        (self != Self::Acl).then_some(self as u32)
    }
    /// Element addresses are `base + index * stride`: look-ups can be inlined.
    pub fn is_array(self) -> bool {
        matches!(self, Self::Array | Self::PercpuArray)
    }
    /// Values are maps, made after [`MapDef::inner`].
    pub fn holds_maps(self) -> bool {
        matches!(self, Self::ArrayOfMaps | Self::HashOfMaps)
    }
}

/// `BPF_F_NO_PREALLOC`: required by LPM tries.
pub const F_NO_PREALLOC: u32 = 1;

/// `BPF_F_MMAPABLE`: an array whose elements a process can map into its memory.
pub const F_MMAPABLE: u32 = 1 << 10;

/// `BPF_F_RDONLY_PROG`: programs may read the map and not write it.
pub const F_RDONLY_PROG: u32 = 1 << 7;

/// Where a map lives on after its object, as its definition asks (`enum libbpf_pin_type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pinning {
    /// Nowhere.
    #[default]
    None,
    /// Under its name, in the loader's folder of pins: a map that is pinned there already is used
    /// (`LIBBPF_PIN_BY_NAME`).
    ByName,
}

/// What an array or hash of maps holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InnerMaps {
    /// Definition that every map put there must have; its name says nothing.
    pub template: MapDef,
    /// Initial contents: slot `i` holds the object's map `slots[i]`, if any. For a hash, `i` is the
    /// key.
    pub slots: Vec<Option<u32>>,
}

/// Shape of one map, and what is in it when it is made. Sizes are in bytes.
///
/// The default is an array of nothing, for `..MapDef::default()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MapDef {
    /// Unique in its object, at most 15 characters where a kernel shall show the whole of it.
    pub name: String,
    /// Kind.
    pub kind: MapKind,
    /// Key size; 0 for queues and stacks.
    pub key_size: u32,
    /// Value size.
    pub value_size: u32,
    /// Capacity in elements.
    pub max_entries: u32,
    /// `BPF_F_*` creation flags.
    pub flags: u32,
    /// Initial bytes of the only value of an array, as many as it has; empty for zeros. Global
    /// variables come this way.
    pub contents: Vec<u8>,
    /// For kinds that [hold maps](MapKind::holds_maps), and for no others.
    pub inner: Option<Box<InnerMaps>>,
    /// Whether it outlives its object.
    pub pinning: Pinning,
}

impl MapKind {
    /// Whether programs write records into it that are taken out one by one, and it has no elements.
    pub fn holds_records(self) -> bool {
        matches!(self, Self::RingBuf | Self::PerfEventArray)
    }
}

impl MapDef {
    /// Whether programs may not write it.
    pub fn read_only(&self) -> bool {
        self.flags & F_RDONLY_PROG != 0
    }

    /// Bytes between two elements of an array map: values are kept 8-byte aligned, as Linux does.
    pub fn stride(&self) -> u32 {
        self.value_size.next_multiple_of(8)
    }
}
