//! One stage: prologue, statements, and the shared exits of its drops.

use dash_bpf::builder::{Builder, Label};
use dash_bpf::helper::{self, XdpAction};
use dash_bpf::insn::Insn;
use dash_bpf::op::{AluOp, Cond as C};
use dash_bpf::{Reg, Size};
use dash_wire::drop::DropReason;
use dash_wire::stats::{EniStat, PortStat};
use dash_wire::tables::{Direction, Meta, MeterBucket, acl_state, meter};
use nic_target::Table;
use std::mem::offset_of;

use super::flow::Old;
use super::{Flows, LowerError};
use crate::fields::{FieldDef, Ty, key_schema, meta_field, row_field};
use crate::ir::{Cond, Expr, Pipeline, Stage, Stmt, Timeouts};

pub(super) const CTX: Reg = Reg::R6;
pub(super) const META: Reg = Reg::R7;
const FP: Reg = Reg::R10;

/// Where the row of an enclosing `match` is.
#[derive(Clone, Copy)]
enum RowPlace {
    Reg(Reg),
    Stack(i16),
}

struct Row {
    name: String,
    table: Table,
    place: RowPlace,
}

struct Local {
    name: String,
    ty: Ty,
    off: i16,
}

/// Something the code can load from or store to.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) base: Reg,
    pub(super) off: i16,
    pub(super) ty: Ty,
}

pub(super) struct StageLower<'a> {
    pub(super) b: Builder,
    pipeline: &'a Pipeline,
    pub(super) timeouts: Timeouts,
    stage: &'a Stage,
    pub(super) flows: Flows,
    rows: Vec<Row>,
    locals: Vec<Local>,
    /// Bytes of stack in use below r10.
    stack: i16,
    deepest: i16,
    /// Scratch `u32` for indices of arrays. Nothing else is kept here: a place whose address no call
    /// sees becomes a register of compiled code.
    array_slot: i16,
    /// Scratch `u32` for the values of queues and maps.
    pub(super) value_slot: i16,
    /// Spilled address of the ENI's counter block.
    stats_slot: i16,
    /// The stage counts whatever becomes of the packet, so the address is found where the stage says
    /// `account`; otherwise where it is needed.
    counts_always: bool,
    /// Packets of the stage may be those that decide a flow again.
    decides_again: bool,
    /// Packets of the stage may have been denied.
    denied: bool,
    /// The stage takes NVGRE too.
    pub(super) any_encap: bool,
    aborted: Label,
    drops: Vec<(DropReason, XdpAction, Label)>,
}

pub(super) fn lower_stage(
    pipeline: &Pipeline,
    stage: &Stage,
    flows: Flows,
) -> Result<Vec<Insn>, LowerError> {
    let mut b = Builder::new();
    let aborted = b.label();
    let mut s = StageLower {
        b,
        pipeline,
        timeouts: pipeline.timeouts,
        stage,
        flows,
        rows: Vec::new(),
        locals: Vec::new(),
        stack: 0,
        deepest: 0,
        array_slot: 0,
        value_slot: 0,
        stats_slot: 0,
        counts_always: counts_always(&stage.body),
        decides_again: behind_lookup(pipeline, stage, true),
        denied: pipeline.resets && behind_lookup(pipeline, stage, false),
        any_encap: false,
        aborted,
        drops: Vec::new(),
    };
    s.array_slot = s.alloc(8);
    s.stats_slot = s.alloc(8);
    s.value_slot = s.alloc(8);
    s.prologue();
    s.block(&stage.body)?;
    s.exits();
    if s.deepest > 512 {
        return Err(LowerError::Stack {
            stage: stage.name.clone(),
            need: s.deepest as usize,
        });
    }
    s.b.finish().map_err(|source| LowerError::Build {
        stage: stage.name.clone(),
        source,
    })
}

impl StageLower<'_> {
    /// Takes `size` bytes of stack, 8-byte aligned; returns the offset from r10.
    pub(super) fn alloc(&mut self, size: usize) -> i16 {
        self.stack += size.next_multiple_of(8) as i16;
        self.deepest = self.deepest.max(self.stack);
        -self.stack
    }

    /// Gives the last allocation back.
    pub(super) fn release(&mut self, size: usize) {
        self.stack -= size.next_multiple_of(8) as i16;
    }

    pub(super) fn unsupported(&self, what: impl Into<String>) -> LowerError {
        LowerError::Unsupported {
            stage: self.stage.name.clone(),
            what: what.into(),
        }
    }

    fn prologue(&mut self) {
        self.b.mov(CTX, Reg::R1);
        let aborted = self.aborted;
        self.lookup_array(Table::Meta, 0);
        self.b.jump_if(C::Eq, Reg::R0, 0, aborted);
        self.b.mov(META, Reg::R0);
    }

    /// r0 = address of the element with a constant index.
    pub(super) fn lookup_array(&mut self, table: Table, index: i32) {
        self.b.store(Size::W, FP, self.array_slot, index);
        self.call_with_key(table, (FP, self.array_slot), helper::MAP_LOOKUP_ELEM);
    }

    /// r0 = address of the element whose index is in a register.
    pub(super) fn lookup_element(&mut self, table: Table, index: Reg) {
        self.b.store(Size::W, FP, self.array_slot, index);
        self.call_with_key(table, (FP, self.array_slot), helper::MAP_LOOKUP_ELEM);
    }

    /// r0 = helper(map, address of a key or value); further arguments are the caller's to set before.
    pub(super) fn call_with_key(&mut self, table: Table, (base, off): (Reg, i16), helper: u32) {
        self.address(Reg::R2, base, off);
        self.b.load_map(Reg::R1, table.index());
        self.b.call(helper);
    }

    pub(super) fn address(&mut self, dst: Reg, base: Reg, off: i16) {
        self.b.mov(dst, base);
        self.b.alu(AluOp::Add, dst, i32::from(off));
    }

    fn block(&mut self, body: &[Stmt]) -> Result<(), LowerError> {
        for stmt in body {
            self.stmt(stmt)?;
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt) -> Result<(), LowerError> {
        match stmt {
            Stmt::Origin => self.origin(),
            Stmt::ParseUnderlay => self.parse_underlay(),
            Stmt::ParseVxlan(port) => self.parse_vxlan(port)?,
            Stmt::ParseEncap(port) => self.parse_encap(port)?,
            Stmt::SpotRedirect => self.spot_redirect(),
            Stmt::ParseRedirect => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("parse redirect inside a match"));
                }
                self.parse_redirect();
            }
            Stmt::FlowRedirect => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("flow redirect inside a match"));
                }
                self.flow_redirect();
            }
            Stmt::Consume => self.exit(XdpAction::Drop),
            Stmt::CountPort { stat, amount } => {
                let aborted = self.aborted;
                self.lookup_array(Table::PortStats, 0);
                self.b.jump_if(C::Eq, Reg::R0, 0, aborted);
                self.eval(amount, Reg::R2)?;
                let off = PortStat::offset(*stat) as i16;
                self.b.load(Size::Dw, Reg::R3, Reg::R0, off);
                self.b.alu(AluOp::Add, Reg::R3, Reg::R2);
                self.b.store(Size::Dw, Reg::R0, off, Reg::R3);
            }
            Stmt::GuardSport { base, mask } => self.guard_sport(base, mask)?,
            Stmt::Decap => self.decap(),
            Stmt::ParseInner => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("parse inner inside a match"));
                }
                self.parse_inner()?;
            }
            Stmt::Hook => self.hook(),
            Stmt::Account if self.counts_always => {
                self.find_counters();
                self.b.store(Size::Dw, FP, self.stats_slot, Reg::R0);
            }
            Stmt::Account => {}
            Stmt::Match {
                table,
                key,
                row,
                hit,
                miss,
            } => self.match_table(*table, key, row, hit, miss)?,
            Stmt::If { cond, then, els } => {
                let (els_label, end) = (self.b.label(), self.b.label());
                self.cond(cond, els_label)?;
                self.block(then)?;
                if !els.is_empty() && !ends(then) {
                    self.b.jump(end);
                }
                self.b.bind(els_label);
                self.block(els)?;
                self.b.bind(end);
            }
            Stmt::Var { name, ty } => {
                let size = ty.size().next_multiple_of(8);
                let off = self.alloc(size);
                for k in 0..size / 8 {
                    self.b.store(Size::Dw, FP, off + (k * 8) as i16, 0);
                }
                self.locals.push(Local {
                    name: name.clone(),
                    ty: *ty,
                    off,
                });
            }
            Stmt::Set { field, value } => self.set(field, value)?,
            Stmt::Entropy { field, key } => self.entropy(field, *key)?,
            Stmt::Choose { field, of } => self.choose(field, of)?,
            Stmt::Count { stat, amount } => {
                self.counters();
                self.eval(amount, Reg::R2)?;
                self.add(*stat, Reg::R2);
            }
            Stmt::Police { len, packets } => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("police inside a match"));
                }
                self.police(len, *packets)?;
            }
            Stmt::Admit => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("admit inside a match"));
                }
                self.admit();
            }
            Stmt::Meter { len } => self.meter(len)?,
            Stmt::FlowLookup {
                peek,
                pair,
                marks,
                meter,
                epoch,
                learn,
                hit,
                miss,
            } => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("flow lookup inside a match"));
                }
                let (miss_label, end) = (self.b.label(), self.b.label());
                match self.flows {
                    _ if *peek => self.flow_peek((*pair, *meter), miss_label),
                    Flows::Owned => {
                        let old = Old {
                            epoch: *epoch,
                            learn: *learn,
                        };
                        self.flow_lookup((*pair, *meter), *marks, old, miss_label);
                    }
                    Flows::Shared => {
                        let old = Old {
                            epoch: *epoch,
                            learn: *learn,
                        };
                        self.flow_touch((*pair, *meter), old, miss_label);
                    }
                }
                self.block(hit)?;
                if !ends(hit) {
                    self.b.jump(end);
                }
                self.b.bind(miss_label);
                self.block(miss)?;
                self.b.bind(end);
            }
            Stmt::FlowCreate {
                pair,
                marks,
                epoch,
                learn,
            } => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("flow create inside a match"));
                }
                let old = Old {
                    epoch: *epoch,
                    learn: *learn,
                };
                self.flow_create(*pair, *marks, old);
            }
            Stmt::Translatable => self.translatable(),
            Stmt::Translate => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("translate inside a match"));
                }
                self.translate();
            }
            Stmt::Apply { nvgre, u1, smac } => {
                if !self.rows.is_empty() {
                    return Err(self.unsupported("apply inside a match"));
                }
                self.apply(*nvgre, *u1, *smac);
            }
            Stmt::Goto(name) => self.goto(name)?,
            Stmt::Drop(reason) => {
                let label = self.drop_label(*reason);
                self.b.jump(label);
            }
            Stmt::Pass => self.exit(XdpAction::Pass),
            Stmt::Send => self.exit(XdpAction::Tx),
            Stmt::Forward(row) => self.forward(row)?,
        }
        Ok(())
    }

    /// Programs of users: what they say ends the packet's way here, unless they let it pass.
    fn hook(&mut self) {
        let dropped = self.drop_label(DropReason::HookDrop);
        let aborted = self.drop_label(DropReason::HookAborted);
        let pass = self.b.label();
        self.b.mov(Reg::R1, CTX);
        self.b.mov(Reg::R2, 0);
        self.b.call(helper::DASH_HOOK);
        self.b.jump_if(C::Eq, Reg::R0, XdpAction::Pass as i32, pass);
        self.b
            .jump_if(C::Eq, Reg::R0, XdpAction::Drop as i32, dropped);
        self.b
            .jump_if(C::Eq, Reg::R0, XdpAction::Aborted as i32, aborted);
        self.b.exit();
        self.b.bind(pass);
    }

    pub(super) fn exit(&mut self, action: XdpAction) {
        self.b.mov(Reg::R0, action as i32);
        self.b.exit();
    }

    fn goto(&mut self, name: &str) -> Result<(), LowerError> {
        let index = self
            .pipeline
            .stages
            .iter()
            .position(|s| s.name == name)
            .ok_or_else(|| self.unsupported(format!("goto {name}: no such stage")))?;
        self.b.mov(Reg::R1, CTX);
        self.b.load_map(Reg::R2, Table::Stages.index());
        self.b.mov(Reg::R3, index as i32);
        self.b.call(helper::TAIL_CALL);
        // Reached only when the chain was not filled in: the packet is lost and it shows.
        self.exit(XdpAction::Aborted);
        Ok(())
    }

    /// r0 = address of the ENI's counter block. Uses r1 to r5.
    fn find_counters(&mut self) {
        let aborted = self.aborted;
        self.b
            .load(Size::W, Reg::R1, META, offset_of!(Meta, eni) as i16);
        self.lookup_element(Table::EniStats, Reg::R1);
        self.b.jump_if(C::Eq, Reg::R0, 0, aborted);
    }

    /// r0 = address of the ENI's counter block. May use r1 to r5.
    pub(super) fn counters(&mut self) {
        if self.counts_always {
            self.b.load(Size::Dw, Reg::R0, FP, self.stats_slot);
        } else {
            self.find_counters();
        }
    }

    /// Where a program goes that failed.
    pub(super) fn aborted(&self) -> Label {
        self.aborted
    }

    /// Adds a register (r6 to r9) to an ENI counter. May use r0 to r5.
    pub(super) fn count(&mut self, stat: EniStat, amount: Reg) {
        self.counters();
        self.add(stat, amount);
    }

    /// Adds a register (not r3) to a counter of the block at r0. Uses r3.
    fn add(&mut self, stat: EniStat, amount: Reg) {
        let off = stat.offset() as i16;
        self.b.load(Size::Dw, Reg::R3, Reg::R0, off);
        self.b.alu(AluOp::Add, Reg::R3, amount);
        self.b.store(Size::Dw, Reg::R0, off, Reg::R3);
    }

    /// Adds to a bucket of the ENI and the packet's metering class, if it has one.
    fn meter(&mut self, len: &Expr) -> Result<(), LowerError> {
        let (aborted, inbound, done) = (self.aborted, self.b.label(), self.b.label());
        self.b
            .load(Size::W, Reg::R1, META, offset_of!(Meta, meter_class) as i16);
        self.b.jump_if(C::Eq, Reg::R1, 0, done);
        self.b
            .load(Size::W, Reg::R2, META, offset_of!(Meta, eni) as i16);
        self.b.alu(AluOp::Lsh, Reg::R2, meter::ENI_SHIFT as i32);
        self.b.alu(AluOp::Or, Reg::R1, Reg::R2);
        self.lookup_element(Table::MeterStats, Reg::R1);
        self.b.jump_if(C::Eq, Reg::R0, 0, aborted);
        self.eval(len, Reg::R2)?;
        self.b
            .load(Size::B, Reg::R1, META, offset_of!(Meta, direction) as i16);
        let is_inbound = i32::from(Direction::Inbound as u8);
        self.b.jump_if(C::Eq, Reg::R1, is_inbound, inbound);
        for (at, offset) in [
            (None, offset_of!(MeterBucket, outbound)),
            (Some(inbound), offset_of!(MeterBucket, inbound)),
        ] {
            if let Some(label) = at {
                self.b.jump(done);
                self.b.bind(label);
            }
            let off = offset as i16;
            self.b.load(Size::Dw, Reg::R3, Reg::R0, off);
            self.b.alu(AluOp::Add, Reg::R3, Reg::R2);
            self.b.store(Size::Dw, Reg::R0, off, Reg::R3);
        }
        self.b.bind(done);
        Ok(())
    }

    /// Adds 1 to an ENI counter. May use r0 to r5.
    pub(super) fn count_one(&mut self, stat: EniStat) {
        self.counters();
        self.bump(stat.offset() as i16);
    }

    /// Takes 1 from an ENI counter that says how many there are. May use r0 to r5.
    pub(super) fn uncount_one(&mut self, stat: EniStat) {
        self.counters();
        let off = stat.offset() as i16;
        self.b.load(Size::Dw, Reg::R3, Reg::R0, off);
        self.b.alu(AluOp::Sub, Reg::R3, 1);
        self.b.store(Size::Dw, Reg::R0, off, Reg::R3);
    }

    /// Adds 1 to the counter at r0 + `off`. Uses r3.
    pub(super) fn bump(&mut self, off: i16) {
        self.b.load(Size::Dw, Reg::R3, Reg::R0, off);
        self.b.alu(AluOp::Add, Reg::R3, 1);
        self.b.store(Size::Dw, Reg::R0, off, Reg::R3);
    }

    /// The stage's exit for a reason: the code is emitted once, after the body.
    pub(super) fn drop_label(&mut self, reason: DropReason) -> Label {
        self.exit_label(reason, XdpAction::Drop)
    }

    pub(super) fn exit_label(&mut self, reason: DropReason, action: XdpAction) -> Label {
        if let Some((.., label)) = self
            .drops
            .iter()
            .find(|(r, a, _)| *r == reason && *a == action)
        {
            return *label;
        }
        let label = self.b.label();
        self.drops.push((reason, action, label));
        label
    }

    fn exits(&mut self) {
        let aborted = self.aborted;
        // What was denied already, and went on for the sake of resets, is dropped for that.
        let denied =
            (self.denied && !self.drops.is_empty()).then(|| self.drop_label(DropReason::AclDeny));
        for (reason, action, label) in std::mem::take(&mut self.drops) {
            self.b.bind(label);
            if let Some(denied) = denied
                && reason != DropReason::AclDeny
            {
                self.b
                    .load(Size::W, Reg::R1, META, offset_of!(Meta, acl) as i16);
                self.b.alu(AluOp::And, Reg::R1, acl_state::RESETTING as i32);
                self.b.jump_if(C::Ne, Reg::R1, 0, denied);
            }
            self.b.comment(format!("drop {}", reason.name()));
            self.b.store(
                Size::B,
                META,
                offset_of!(Meta, drop) as i16,
                reason as i32 + 1,
            );
            if !reason.port_stats().is_empty() {
                self.lookup_array(Table::PortStats, 0);
                self.b.jump_if(C::Eq, Reg::R0, 0, aborted);
                for stat in reason.port_stats() {
                    self.bump(PortStat::offset(*stat) as i16);
                }
            }
            if !reason.eni_stats().is_empty() {
                self.counters();
                for stat in reason.eni_stats() {
                    self.bump(stat.offset() as i16);
                }
                if self.decides_again {
                    self.count_undecided();
                }
            }
            self.exit(action);
        }
        self.b.bind(aborted);
        self.exit(XdpAction::Aborted);
    }

    fn match_table(
        &mut self,
        table: Table,
        key: &[Expr],
        row: &str,
        hit: &[Stmt],
        miss: &[Stmt],
    ) -> Result<(), LowerError> {
        let def = table.def(&nic_target::Capacity::default());
        let size = def.key_size as usize;
        let lpm = def.kind == dash_bpf::MapKind::LpmTrie;
        let array = def.kind.is_array();
        let key_off = if array {
            self.array_slot
        } else {
            self.alloc(size)
        };
        // Padding counts in a key: clear it all, then fill.
        if !array {
            for k in 0..size.div_ceil(8) {
                self.b.store(Size::Dw, FP, key_off + (k * 8) as i16, 0);
            }
        }
        if lpm {
            let bits = (size - 4) * 8;
            self.b.store(Size::W, FP, key_off, bits as i32);
        }
        for (component, expr) in key_schema(table).iter().zip(key) {
            let place = Place {
                base: FP,
                off: key_off + component.offset as i16,
                ty: component.ty,
            };
            self.assign(place, expr)?;
        }
        self.call_with_key(table, (FP, key_off), helper::MAP_LOOKUP_ELEM);
        if !array {
            self.release(size);
        }

        let (miss_label, end) = (self.b.label(), self.b.label());
        self.b.jump_if(C::Eq, Reg::R0, 0, miss_label);
        let place = match self.rows.len() {
            0 => RowPlace::Reg(Reg::R8),
            1 => RowPlace::Reg(Reg::R9),
            _ => RowPlace::Stack(self.alloc(8)),
        };
        match place {
            RowPlace::Reg(r) => self.b.mov(r, Reg::R0),
            RowPlace::Stack(off) => self.b.store(Size::Dw, FP, off, Reg::R0),
        }
        self.rows.push(Row {
            name: row.to_owned(),
            table,
            place,
        });
        self.block(hit)?;
        self.rows.pop();
        if matches!(place, RowPlace::Stack(_)) {
            self.release(8);
        }
        if !miss.is_empty() && !ends(hit) {
            self.b.jump(end);
        }
        self.b.bind(miss_label);
        self.block(miss)?;
        self.b.bind(end);
        Ok(())
    }

    /// Where a metadata field or a local is.
    pub(super) fn field(&self, name: &str) -> Result<Place, LowerError> {
        if let Some(FieldDef { ty, offset, .. }) = meta_field(name) {
            return Ok(Place {
                base: META,
                off: offset as i16,
                ty,
            });
        }
        self.locals
            .iter()
            .find(|l| l.name == name)
            .map(|l| Place {
                base: FP,
                off: l.off,
                ty: l.ty,
            })
            .ok_or_else(|| self.unsupported(format!("unknown field {name}")))
    }

    /// Where a row's field is; a spilled row's address is loaded into `scratch` first.
    pub(super) fn row(
        &mut self,
        row: &str,
        field: &str,
        scratch: Reg,
    ) -> Result<Place, LowerError> {
        let found = self
            .rows
            .iter()
            .rev()
            .find(|r| r.name == row)
            .map(|r| (r.table, r.place));
        let (table, place) = found.ok_or_else(|| self.unsupported(format!("unknown row {row}")))?;
        let def = row_field(table, field)
            .ok_or_else(|| self.unsupported(format!("{} has no field {field}", table.name())))?;
        let base = match place {
            RowPlace::Reg(r) => r,
            RowPlace::Stack(off) => {
                self.b.load(Size::Dw, scratch, FP, off);
                scratch
            }
        };
        Ok(Place {
            base,
            off: def.offset as i16,
            ty: def.ty,
        })
    }

    fn cond(&mut self, cond: &Cond, otherwise: Label) -> Result<(), LowerError> {
        match cond {
            Cond::Eq(a, b) => self.compare(a, b, true, otherwise),
            Cond::Ne(a, b) => self.compare(a, b, false, otherwise),
            Cond::And(a, b) => {
                self.cond(a, otherwise)?;
                self.cond(b, otherwise)
            }
            Cond::Or(a, b) => {
                let (second, yes) = (self.b.label(), self.b.label());
                self.cond(a, second)?;
                self.b.jump(yes);
                self.b.bind(second);
                self.cond(b, otherwise)?;
                self.b.bind(yes);
                Ok(())
            }
        }
    }
}

/// True for a stage behind a look-up of flows, with `epochs` one that may find them old.
fn behind_lookup(pipeline: &Pipeline, stage: &Stage, epochs: bool) -> bool {
    let looks = |stmt: &Stmt| match stmt {
        Stmt::FlowLookup { epoch, .. } => *epoch || !epochs,
        _ => false,
    };
    let mut before = pipeline.stages.iter().take_while(|s| s.name != stage.name);
    before.any(|s| s.body.iter().any(looks))
}

/// True when every packet that gets through the body is counted.
fn counts_always(body: &[Stmt]) -> bool {
    body.iter()
        .any(|stmt| matches!(stmt, Stmt::Count { .. } | Stmt::Apply { .. }))
}

/// True when control never falls out of the block's end.
fn ends(body: &[Stmt]) -> bool {
    match body.last() {
        Some(
            Stmt::Goto(_)
            | Stmt::Drop(_)
            | Stmt::Pass
            | Stmt::Send
            | Stmt::Consume
            | Stmt::Forward(_),
        ) => true,
        Some(Stmt::If { then, els, .. }) => ends(then) && ends(els),
        Some(Stmt::Match { hit, miss, .. } | Stmt::FlowLookup { hit, miss, .. }) => {
            ends(hit) && ends(miss)
        }
        _ => false,
    }
}
