//! The pipeline IR: stages of structured statements over typed fields. No loops.
//!
//! Stages run from the first; each ends in `goto`, `drop`, `pass`, `send` or `forward`, so the
//! stages form a DAG. Match statements only write metadata ([`dash_wire::tables::Meta`]); `apply` is
//! the only statement that writes the packet, and it reads nothing but the frozen
//! [`FlowActions`](dash_wire::tables::FlowActions) and what the parsers left.
//!
//! The text form round-trips: `parse(&print(p)) == p` ([`crate::text`]).

use dash_wire::drop::DropReason;
use dash_wire::stats::{EniStat, PortStat};
use nic_target::Table;

use crate::fields::Ty;

/// A whole pipeline. Stage 0 is the entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// How long connections stay without a packet; text begins with it where it is not the default.
    pub timeouts: Timeouts,
    /// Packets denied in the middle of a TCP connection go on, for the decisions that resets need
    /// ([`acl_state::RESETTING`](dash_wire::tables::acl_state)): whatever drops them after that drops
    /// them for `acl-deny`. Text then begins with `resets;`.
    pub resets: bool,
    /// Stages in order; `goto` only goes down the list.
    pub stages: Vec<Stage>,
}

/// How long connections stay without a packet, in milliseconds (DASH reference 4.5). None is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// TCP of which packets of one side were seen.
    pub half_open: u32,
    /// TCP of which packets of both sides were seen.
    pub tcp: u32,
    /// UDP.
    pub udp: u32,
    /// ICMP and ICMPv6.
    pub icmp: u32,
    /// Other protocols.
    pub other: u32,
    /// TCP after FIN of both sides.
    pub closing: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            half_open: 5_000,
            tcp: 30_000,
            udp: 30_000,
            icmp: 30_000,
            other: 30_000,
            closing: 2_000,
        }
    }
}

impl Timeouts {
    /// Names, as text and command lines have them.
    pub const NAMES: [&'static str; 6] = ["half_open", "tcp", "udp", "icmp", "other", "closing"];

    /// Values in the order of [`NAMES`](Self::NAMES).
    pub fn values(&self) -> [u32; 6] {
        [
            self.half_open,
            self.tcp,
            self.udp,
            self.icmp,
            self.other,
            self.closing,
        ]
    }

    /// The value of a name.
    pub fn value_mut(&mut self, name: &str) -> Option<&mut u32> {
        Some(match name {
            "half_open" => &mut self.half_open,
            "tcp" => &mut self.tcp,
            "udp" => &mut self.udp,
            "icmp" => &mut self.icmp,
            "other" => &mut self.other,
            "closing" => &mut self.closing,
            _ => return None,
        })
    }
}

/// `NAME=MS[,NAME=MS...]`: changes of the defaults.
impl std::str::FromStr for Timeouts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut timeouts = Self::default();
        for part in text.split(',') {
            let (name, ms) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not NAME=MILLISECONDS"))?;
            let value = timeouts.value_mut(name).ok_or_else(|| {
                format!("no timeout `{name}`; there are {}", Self::NAMES.join(", "))
            })?;
            *value =
                ms.parse().ok().filter(|ms| *ms > 0).ok_or_else(|| {
                    format!("{name}: `{ms}` is not a number of milliseconds above 0")
                })?;
        }
        Ok(timeouts)
    }
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
    /// `spot redirect;`: whether the NVGRE packet, still encapsulated, is a load balancer's redirect
    /// (after `parse encap`, same stage). Sets `redirect`. Never drops.
    SpotRedirect,
    /// `parse redirect;`: the inner frame of such a packet, in place of `parse inner`. Sets `key` to
    /// that of the answers to the packet it quotes, or `redirect` to malformed.
    ParseRedirect,
    /// `guard sport BASE, MASK;`: drops `vxlan-sport` when the packet is VXLAN and its UDP source port
    /// is none of `BASE..=BASE + MASK`, modulo 2^16 (between `parse vxlan` or `parse encap` and
    /// `decap`, same stage).
    GuardSport {
        /// Lowest.
        base: Expr,
        /// How many follow it.
        mask: Expr,
    },
    /// `origin;`: which encap the packet was received in (after `parse encap` and before `decap`, same
    /// stage). Sets `learn`. Never drops.
    Origin,
    /// `decap;`: the inner frame becomes the packet (after `parse vxlan` or `parse encap`, same
    /// stage).
    Decap,
    /// `parse inner;`: the customer's frame. Sets `key` (with `eni` and `direction`), `inner_len`,
    /// `tcp_flags`, `acl_sport`, `acl_dport`; drops `inner-*` and `ecn-not-capable`.
    ///
    /// IPv6 extension headers are walked, four at most. A first fragment's ports are remembered for a
    /// second; a later fragment gets them into its key, or drops `inner-fragment`. An ICMP error gets
    /// the key of an answer to the packet it quotes, or drops `icmp-error-miss`. Both are marked in
    /// `key.flags` ([`flow_flags`](dash_wire::tables::flow_flags)), so that they miss every flow.
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
    /// `count port STAT EXPR;`.
    CountPort {
        /// Counter of the card.
        stat: PortStat,
        /// Amount.
        amount: Expr,
    },
    /// `meter LEN;`: adds `LEN` bytes to the bucket of `eni` and `meter_class`, in `direction`. Class 0
    /// has none.
    Meter {
        /// Bytes.
        len: Expr,
    },
    /// `police LEN;`: takes `LEN` bytes of the bandwidth of `eni` in `direction`, or drops
    /// `bandwidth-limit`.
    ///
    /// `police LEN packets;` takes a packet of its packets a second there, too, or drops `packet-rate`;
    /// what is dropped takes of neither.
    Police {
        /// Bytes.
        len: Expr,
        /// The packets, too.
        packets: bool,
    },
    /// `admit;`: drops `flow-limit` when `eni` has as many flows as it may, and `connection-rate` when it
    /// makes more a second than it may.
    Admit,
    /// `flow lookup { hit } else { miss }`: looks `key` up. On a hit the stored actions are in
    /// `actions`, the entry is refreshed and its TCP state advanced (see [`crate::model::flow`]); a
    /// SYN on a live connection deletes the pair and is a miss.
    ///
    /// With `flow lookup epoch`, a packet of a flow's first side may be a miss that decides the flow
    /// again: the entry is of another epoch than `epoch`, the flow was not redirected, the packet is
    /// no RST, and the ENI's limit allows it. The flow is out of the table then, `renew` is its state,
    /// and drops count FLOW_DELETED until `flow create`.
    ///
    /// With `flow lookup epoch learn`, where `learn` is not 0, so is a packet of the first side that did not
    /// come from where the other side's underlay 0 leads, in its encap, and neither the limit nor a redirect
    /// keeps it from that. `renew` has [`MOVED`](dash_wire::tables::MOVED) too then.
    ///
    /// With `flow lookup pair`, a hit whose actions need it
    /// ([`NEEDS_PAIR`](dash_wire::tables::flow_action::NEEDS_PAIR)) sets `rkey`, `u1_dip` and
    /// `u1_vni` too. With `flow lookup marks`, flows may be marked: one that ends no longer counts among
    /// those that redirects changed. With `flow lookup peek` the entry stays as it is, and no SYN is
    /// one. With `flow lookup meter`, a hit sets `meter_class`. The words come in the order of the
    /// fields.
    FlowLookup {
        /// `peek`.
        peek: bool,
        /// `pair`.
        pair: bool,
        /// `marks`.
        marks: bool,
        /// `meter`.
        meter: bool,
        /// `epoch`.
        epoch: bool,
        /// `learn`.
        learn: bool,
        /// When found.
        hit: Vec<Stmt>,
        /// When not.
        miss: Vec<Stmt>,
    },
    /// `flow create;`: inserts `key`/`actions` and `rkey`/`ractions` as a pair, or drops
    /// `flow-table-full`. With `flow create pair`, `u1_dip` and `u1_vni` are kept where the actions
    /// have a second encap; with `flow create marks`, the entry has no marks of one before.
    ///
    /// With `flow create epoch`, the entry gets `epoch`; where `renew` is set it is the flow's that is
    /// decided again, with its history, and keeps the actions that its ENI says. With `flow create epoch
    /// learn`, one that is decided because it moved keeps none, or all of its first side where a redirect
    /// had changed them.
    FlowCreate {
        /// `pair`.
        pair: bool,
        /// `marks`.
        marks: bool,
        /// `epoch`.
        epoch: bool,
        /// `learn`.
        learn: bool,
    },
    /// `flow redirect;`: does what a redirect says to the flow whose packet it quotes, or drops
    /// `fast-path-malformed` or `fast-path-flow-miss`.
    FlowRedirect,
    /// `consume;`: the packet goes no further, and that is no drop.
    Consume,
    /// `translatable;`: drops what `translate` could not do: a fragment (`inner-fragment`), extension
    /// headers (`not-translatable`).
    Translatable,
    /// `translate;`: writes the inner addresses and ports anew where `actions` says so: they become
    /// those of `rkey`, turned round, and the checksums follow. A UDP packet over IPv4 without a
    /// checksum gets one over IPv6. Sets `inner_len`.
    Translate,
    /// `apply;`: writes the packet from `actions`. With `apply nvgre`, encaps may be NVGRE; with
    /// `apply u1`, there may be a second; with `apply smac`, the inner source MAC may become
    /// `inner_dmac`.
    Apply {
        /// `nvgre`.
        nvgre: bool,
        /// `u1`.
        u1: bool,
        /// `smac`.
        smac: bool,
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
    /// `ingress`: the port that the packet came by, as a number.
    Ingress,
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
