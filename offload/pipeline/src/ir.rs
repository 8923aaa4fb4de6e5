//! The pipeline IR: stages of structured statements over typed fields. No loops.
//!
//! Stages run from the first; each ends in `goto`, `drop`, `pass`, `send` or `forward`, so the
//! stages form a DAG. Match statements only write metadata ([`dash_wire::tables::Meta`]); `apply` is
//! the only statement that writes the packet, and it reads nothing but the frozen
//! [`FlowActions`](dash_wire::tables::FlowActions) and what the parsers left.
//!
//! The text form round-trips: `parse(&print(p)) == p` ([`crate::text`]).

use dash_wire::drop::DropReason;
use dash_wire::stats::EniStat;
use nic_target::Table;

use crate::fields::Ty;

/// A whole pipeline. Stage 0 is the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Stages in order; `goto` only goes down the list.
    pub stages: Vec<Stage>,
}

/// One stage: verified and, in a kernel, loaded as a program of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Unique name, a C identifier of at most 15 characters.
    pub name: String,
    /// Statements.
    pub body: Vec<Stmt>,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stmt {
    /// `parse underlay;`: outer Ethernet and IPv4. Sets `outer_*`, `frame_len`, `now_ns`, and
    /// clears `drop` and `acl`. ARP and IPv6 neighbour discovery pass to control; anything else
    /// that is not IPv4 drops `vip-miss`; a bad header drops `outer-malformed`, a fragment
    /// `outer-fragment`.
    ParseUnderlay,
    /// `parse vxlan PORT;`: UDP to `PORT` (`b2`, network order), VXLAN with its I flag, an inner
    /// Ethernet header. Sets `vni`, `inner_smac`, `inner_dmac`; else drops `outer-malformed`.
    ParseVxlan(Expr),
    /// `parse encap PORT;`: as `parse vxlan`, or NVGRE: GRE of version 0 with a key and nothing
    /// else, over an inner Ethernet header. The VSID is `vni`.
    ParseEncap(Expr),
    /// `decap;`: the inner frame becomes the packet (after `parse vxlan` or `parse encap`, same
    /// stage).
    Decap,
    /// `parse inner;`: the customer's frame. Sets `key` (with `eni` and `direction`), `inner_len`,
    /// `tcp_flags`, `acl_sport`, `acl_dport`; drops `inner-*` and `ecn-not-capable`.
    ParseInner,
    /// `hook;`: the programs of users that are attached to the ENI see the packet, which they may
    /// change; it goes on when they say XDP_PASS. XDP_DROP drops `hook-drop`, XDP_ABORTED
    /// `hook-aborted`, others end the packet's way here. The model has no programs: it goes on.
    Hook,
    /// `account;`: from here on counts and drops go to the ENI `eni` names.
    Account,
    /// `match TABLE[KEY, ...] as ROW { hit } else { miss }`.
    Match {
        /// Table.
        table: Table,
        /// Key components in the order of the table's key schema.
        key: Vec<Expr>,
        /// Name of the row inside `hit`.
        row: String,
        /// When found.
        hit: Vec<Stmt>,
        /// When not found.
        miss: Vec<Stmt>,
    },
    /// `if COND { then } else { els }`.
    If {
        /// Condition.
        cond: Cond,
        /// When true.
        then: Vec<Stmt>,
        /// When false.
        els: Vec<Stmt>,
    },
    /// `var NAME: TY;`: a zeroed local of the stage.
    Var {
        /// Name, unique in the stage and not a field's.
        name: String,
        /// Type.
        ty: Ty,
    },
    /// `FIELD = EXPR;`: to a metadata field or a local, of the same type.
    Set {
        /// Destination.
        field: String,
        /// Source.
        value: Expr,
    },
    /// `entropy FIELD from key;`: the outer UDP source port of a flow: base + (hash & mask) from
    /// `globals` ([`crate::entropy`]), network order, into a `b2` field.
    Entropy {
        /// Destination.
        field: String,
        /// `key` or `rkey`.
        key: FlowSide,
    },
    /// `choose FIELD from key of N;`: one of the numbers below `N` (which is not 0), the same for
    /// every packet of a flow, into a `u32` field ([`crate::entropy::choose`]).
    Choose {
        /// Destination.
        field: String,
        /// How many there are.
        of: Expr,
    },
    /// `count STAT EXPR;`.
    Count {
        /// ENI counter.
        stat: EniStat,
        /// Amount.
        amount: Expr,
    },
    /// `flow lookup { hit } else { miss }`: looks `key` up. On a hit the stored actions are in
    /// `actions`, the entry is refreshed and its TCP state advanced (see [`crate::model::flow`]); a
    /// SYN on a live connection deletes the pair and is a miss.
    ///
    /// With `flow lookup pair`, a hit whose actions need it
    /// ([`NEEDS_PAIR`](dash_wire::tables::flow_action::NEEDS_PAIR)) sets `rkey`, `u1_dip` and
    /// `u1_vni` too.
    FlowLookup {
        /// `pair`.
        pair: bool,
        /// When found.
        hit: Vec<Stmt>,
        /// When not.
        miss: Vec<Stmt>,
    },
    /// `flow create;`: inserts `key`/`actions` and `rkey`/`ractions` as a pair, or drops
    /// `flow-table-full`. With `flow create pair`, `u1_dip` and `u1_vni` are kept where the actions
    /// have a second encap.
    FlowCreate {
        /// `pair`.
        pair: bool,
    },
    /// `translate;`: writes the inner addresses and ports anew where `actions` says so: they become
    /// those of `rkey`, turned round, and the checksums follow. A UDP packet over IPv4 without a
    /// checksum gets one over IPv6. Sets `inner_len`.
    Translate,
    /// `apply;`: writes the packet from `actions`. With `apply nvgre`, encaps may be NVGRE; with
    /// `apply u1`, there may be a second.
    Apply {
        /// `nvgre`.
        nvgre: bool,
        /// `u1`.
        u1: bool,
    },
    /// `goto STAGE;`.
    Goto(String),
    /// `drop REASON;`.
    Drop(DropReason),
    /// `pass;`: to control, uncounted.
    Pass,
    /// `send;`: out of the port it came from.
    Send,
    /// `forward ROW;`: out of the port an `underlay` row names, with its MACs if `apply`
    /// encapsulated; unresolved rows drop `neighbor-miss` and hand the packet to control.
    Forward(String),
}

/// Which of the two flow keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowSide {
    /// `key`.
    Key,
    /// `rkey`.
    Rkey,
}

/// An expression. Numbers are unsigned; operators wrap at 64 bits and the result is cut to the
/// destination's width. Byte strings (`bN`) can only be copied, compared and reshaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// A number.
    Num(u64),
    /// A metadata field or a local.
    Field(String),
    /// A field of a matched row.
    Row(String, String),
    /// `(A OP B)`.
    Bin(BinOp, Box<Expr>, Box<Expr>),
    /// `be16(N)`, `be24(N)`: a number's low bytes in network order, as `b2`, `b3`.
    ToBe(u8, Box<Expr>),
    /// `pad16(B4)`: `b4` followed by 12 zero bytes, as `b16`.
    Pad16(Box<Expr>),
    /// `v4(B16)`: the last 4 bytes, as `b4`.
    V4(Box<Expr>),
    /// `num(B2)`: the number that two bytes in network order are.
    FromBe(Box<Expr>),
    /// `mask(A, KEEP, SET)`, each `b16`: `A & KEEP | SET`.
    Mask(Box<[Expr; 3]>),
    /// `with4(B16, B4)`: the first 12 bytes of one, then the other, as `b16`.
    With4(Box<[Expr; 2]>),
}

/// Operators on numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "operators")]
pub enum BinOp {
    Add,
    Sub,
    And,
    Or,
    Shl,
    Shr,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cond {
    /// `A == B`: numbers, or byte strings of one length; a byte string may be compared with `0`.
    Eq(Expr, Expr),
    /// `A != B`.
    Ne(Expr, Expr),
    /// `(C && D)`.
    And(Box<Cond>, Box<Cond>),
    /// `(C || D)`.
    Or(Box<Cond>, Box<Cond>),
}
