//! Walks the statements of a stage along every path.

use dash_wire::drop::DropReason;
use nic_target::Table;

use super::error::Fault;
use super::facts::{
    ACCOUNT, ACCOUNT_HERE, APPLY, DECAP, Facts, INNER, Steps, TRANSLATE, UNDERLAY, VXLAN,
    VXLAN_HERE, step_name,
};
use super::types::Kind;
use super::{counts_to_eni, is_identifier, stage_index};
use crate::fields::{Ty, key_schema, meta_field};
use crate::ir::{FlowSide, Stage, Stmt};
use crate::text::{KEYWORDS, MAX_DEPTH, print_stmt};

/// Metadata no statement may assign: `apply` and the flow table rely on what the parsers found.
const READ_ONLY: &[&str] = &["frame_len", "inner_len", "now_ns", "redirect"];

/// First halves of metadata names: a row so called could not be told from them in text.
const META_PREFIXES: &[&str] = &["key", "rkey", "actions", "ractions"];

/// Place of an expression: its statement, what holds there, and how deeply it is nested.
#[derive(Clone, Copy)]
pub(super) struct At<'s> {
    stmt: &'s Stmt,
    facts: &'s Facts,
    depth: usize,
}

impl At<'_> {
    /// Requires that every metadata field for which `which` holds is written.
    pub(super) fn reads(&self, which: impl Fn(&str) -> bool) -> Result<(), Fault> {
        match self.facts.unwritten(which) {
            Some(field) => Err(Fault::Unwritten {
                field,
                stmt: print_stmt(self.stmt),
            }),
            None => Ok(()),
        }
    }

    /// One level further down, counted as the parser counts parentheses.
    pub(super) fn deeper(self) -> Result<Self, Fault> {
        if self.depth > MAX_DEPTH {
            return Err(Fault::TooDeep { most: MAX_DEPTH });
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
    fn after(&self, steps: &[Steps]) -> Result<(), Fault> {
        match steps.iter().find(|s| self.facts.must & **s == 0) {
            Some(step) => Err(Fault::Early {
                stmt: print_stmt(self.stmt),
                needs: step_name(*step),
            }),
            None => Ok(()),
        }
    }

    fn before(&self, step: Steps) -> Result<(), Fault> {
        if self.facts.may & step == 0 {
            Ok(())
        } else {
            Err(Fault::Late {
                stmt: print_stmt(self.stmt),
                done: step_name(step),
            })
        }
    }
}

pub(super) struct Checker<'p> {
    stages: &'p [Stage],
    stage: usize,
    entry: &'p mut [Option<Facts>],
    /// In scope.
    locals: Vec<(&'p str, Ty)>,
    /// Declared so far anywhere in the stage.
    declared: Vec<&'p str>,
    /// In scope.
    rows: Vec<(&'p str, Table)>,
}

impl<'p> Checker<'p> {
    pub(super) fn new(stages: &'p [Stage], stage: usize, entry: &'p mut [Option<Facts>]) -> Self {
        Self {
            stages,
            stage,
            entry,
            locals: Vec::new(),
            declared: Vec::new(),
            rows: Vec::new(),
        }
    }

    pub(super) fn stage(&mut self, body: &'p [Stmt], facts: Facts) -> Result<(), Fault> {
        match self.block(body, facts, 1)? {
            Some(_) => Err(Fault::NoEnd),
            None => Ok(()),
        }
    }

    pub(super) fn local(&self, name: &str) -> Option<Ty> {
        self.locals
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, ty)| *ty)
    }

    pub(super) fn row(&self, name: &str) -> Result<Table, Fault> {
        let row = self.rows.iter().find(|(n, _)| *n == name);
        row.map(|(_, table)| *table)
            .ok_or_else(|| Fault::NoSuchRow {
                row: name.to_owned(),
            })
    }

    /// Facts after the block; `None` when every path of it ends the stage.
    fn block(
        &mut self,
        body: &'p [Stmt],
        facts: Facts,
        depth: usize,
    ) -> Result<Option<Facts>, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::TooDeep { most: MAX_DEPTH });
        }
        let locals = self.locals.len();
        let mut now = Some(facts);
        for stmt in body {
            let Some(facts) = now else {
                return Err(Fault::AfterEnd {
                    stmt: print_stmt(stmt),
                });
            };
            now = self.stmt(stmt, facts, depth)?;
        }
        self.locals.truncate(locals);
        Ok(now)
    }

    fn stmt(&mut self, stmt: &'p Stmt, facts: Facts, depth: usize) -> Result<Option<Facts>, Fault> {
        let at = At {
            stmt,
            facts: &facts,
            depth,
        };
        let mut next = facts;
        match stmt {
            Stmt::ParseUnderlay => {
                at.before(UNDERLAY)?;
                next.step(UNDERLAY);
                next.write(|f| {
                    f.starts_with("outer_") || ["frame_len", "now_ns", "acl"].contains(&f)
                });
            }
            Stmt::ParseVxlan(port) | Stmt::ParseEncap(port) => {
                at.after(&[UNDERLAY])?;
                at.before(VXLAN)?;
                self.typed(port, Kind::Bytes(2), "the VXLAN port", at)?;
                next.step(VXLAN | VXLAN_HERE);
                next.write(|f| ["vni", "inner_smac", "inner_dmac"].contains(&f));
            }
            Stmt::SpotRedirect => {
                at.after(&[VXLAN_HERE])?;
                at.before(DECAP)?;
                next.write(|f| f == "redirect");
            }
            Stmt::ParseRedirect => {
                at.after(&[DECAP, ACCOUNT_HERE])?;
                at.before(INNER)?;
                at.reads(|f| ["eni", "redirect"].contains(&f))?;
                next.step(INNER);
                next.write(|f| {
                    f.starts_with("key.")
                        || ["inner_len", "tcp_flags", "acl_sport", "acl_dport"].contains(&f)
                });
            }
            Stmt::GuardSport { base, mask } => {
                at.after(&[VXLAN_HERE])?;
                at.before(DECAP)?;
                for bound in [base, mask] {
                    self.typed(bound, Kind::Number, "`guard`", at)?;
                }
            }
            Stmt::Origin => {
                at.after(&[VXLAN_HERE])?;
                at.before(DECAP)?;
                next.write(|f| f == "learn");
            }
            Stmt::Decap => {
                at.after(&[VXLAN_HERE])?;
                at.before(DECAP)?;
                next.step(DECAP);
            }
            Stmt::ParseInner => {
                at.after(&[DECAP, ACCOUNT_HERE])?;
                at.before(INNER)?;
                at.reads(|f| ["eni", "direction"].contains(&f))?;
                next.step(INNER);
                next.write(|f| {
                    f.starts_with("key.")
                        || ["inner_len", "tcp_flags", "acl_sport", "acl_dport"].contains(&f)
                });
            }
            Stmt::Hook => {
                at.after(&[DECAP, ACCOUNT_HERE])?;
                at.before(INNER)?;
                at.reads(|f| ["eni", "direction"].contains(&f))?;
            }
            Stmt::Account => {
                at.reads(|f| f == "eni")?;
                next.step(ACCOUNT | ACCOUNT_HERE);
            }
            Stmt::Match {
                table,
                key,
                row,
                hit,
                miss,
            } => {
                let schema = key_schema(*table);
                if schema.is_empty() {
                    return Err(Fault::NotMatchable { table: *table });
                }
                if schema.len() != key.len() {
                    return Err(Fault::KeyArity {
                        table: *table,
                        want: schema.len(),
                        got: key.len(),
                    });
                }
                for (part, field) in key.iter().zip(schema) {
                    let place = format!("`{}` of table `{}`", field.name, table.name());
                    self.typed(part, field.ty.into(), &place, at)?;
                }
                self.new_name(row)?;
                if META_PREFIXES.contains(&row.as_str()) {
                    return Err(Fault::BadName {
                        name: row.clone(),
                        why: "metadata fields begin with it",
                    });
                }
                self.rows.push((row, *table));
                let hit = self.block(hit, facts, depth + 1)?;
                self.rows.pop();
                let miss = self.block(miss, facts, depth + 1)?;
                return Ok(after_either(hit, miss));
            }
            Stmt::If { cond, then, els } => {
                self.cond(cond, at)?;
                let then = self.block(then, facts, depth + 1)?;
                let els = self.block(els, facts, depth + 1)?;
                return Ok(after_either(then, els));
            }
            Stmt::Var { name, ty } => {
                self.new_name(name)?;
                if meta_field(name).is_some() {
                    return Err(Fault::BadName {
                        name: name.clone(),
                        why: "a metadata field has this name",
                    });
                }
                if self.declared.contains(&name.as_str()) {
                    return Err(Fault::BadName {
                        name: name.clone(),
                        why: "the stage declares it already",
                    });
                }
                self.declared.push(name);
                self.locals.push((name, *ty));
            }
            Stmt::Set { field, value } => {
                let ty = self.destination(field, at)?;
                self.typed(value, ty.into(), &format!("`{field}`"), at)?;
                next.write(|f| f == field);
            }
            Stmt::Entropy { field, key } => {
                let ty = self.destination(field, at)?;
                if ty != Ty::Bytes(2) {
                    return Err(Fault::Type {
                        expr: field.clone(),
                        got: ty.to_string(),
                        place: "`entropy`".to_owned(),
                        want: Ty::Bytes(2).to_string(),
                    });
                }
                at.reads(|f| f.starts_with(side_prefix(*key)))?;
                next.write(|f| f == field);
            }
            Stmt::Choose { field, of } => {
                let ty = self.destination(field, at)?;
                if ty != Ty::Num(4) {
                    return Err(Fault::Type {
                        expr: field.clone(),
                        got: ty.to_string(),
                        place: "`choose`".to_owned(),
                        want: Ty::Num(4).to_string(),
                    });
                }
                at.reads(|f| f.starts_with("key."))?;
                self.typed(of, Kind::Number, "`choose`", at)?;
                next.write(|f| f == field);
            }
            Stmt::Count { amount, .. } => {
                at.after(&[ACCOUNT_HERE])?;
                self.typed(amount, Kind::Number, "`count`", at)?;
            }
            Stmt::CountPort { amount, .. } => {
                self.typed(amount, Kind::Number, "`count port`", at)?;
            }
            Stmt::FlowRedirect => {
                at.after(&[INNER, ACCOUNT_HERE])?;
                at.reads(|f| f == "redirect" || f.starts_with("key."))?;
            }
            Stmt::Consume => return Ok(None),
            Stmt::Police { len, .. } => {
                at.after(&[ACCOUNT_HERE])?;
                at.reads(|f| f == "direction")?;
                self.typed(len, Kind::Number, "`police`", at)?;
            }
            Stmt::Admit => at.after(&[INNER, ACCOUNT_HERE])?,
            Stmt::Meter { len } => {
                at.after(&[ACCOUNT_HERE])?;
                at.reads(|f| ["direction", "meter_class"].contains(&f))?;
                self.typed(len, Kind::Number, "`meter`", at)?;
            }
            Stmt::FlowLookup {
                pair,
                meter,
                epoch,
                learn,
                hit,
                miss,
                ..
            } => {
                at.after(&[INNER, ACCOUNT_HERE])?;
                if *learn {
                    at.reads(|f| ["learn", "renew", "outer_sip", "vni"].contains(&f))?;
                }
                if *epoch {
                    at.reads(|f| ["epoch", "renew", "eni"].contains(&f))?;
                }
                let mut found = facts;
                found.write(|f| f.starts_with("actions."));
                found.write(|f| *meter && f == "meter_class");
                if *pair {
                    found.write(|f| f.starts_with("rkey.") || f.starts_with("u1_"));
                }
                let hit = self.block(hit, found, depth + 1)?;
                let miss = self.block(miss, facts, depth + 1)?;
                return Ok(after_either(hit, miss));
            }
            Stmt::FlowCreate { epoch, .. } => {
                at.after(&[INNER, ACCOUNT_HERE])?;
                if *epoch {
                    at.reads(|f| ["epoch", "renew"].contains(&f))?;
                }
                at.reads(|f| f.starts_with("key.") || f.starts_with("rkey."))?;
                at.reads(|f| ["actions.actions", "ractions.actions"].contains(&f))?;
            }
            Stmt::Translatable => {
                at.after(&[INNER, ACCOUNT_HERE])?;
                at.before(TRANSLATE)?;
                at.before(APPLY)?;
            }
            Stmt::Translate => {
                at.after(&[INNER, ACCOUNT_HERE])?;
                at.before(TRANSLATE)?;
                at.before(APPLY)?;
                at.reads(|f| f == "actions.actions" || f.starts_with("rkey."))?;
                next.step(TRANSLATE);
            }
            Stmt::Apply { .. } => {
                at.after(&[INNER, ACCOUNT_HERE])?;
                at.before(APPLY)?;
                at.reads(|f| f == "actions.actions")?;
                next.step(APPLY);
            }
            Stmt::Goto(to) => {
                let Some(target) = stage_index(self.stages, to) else {
                    return Err(Fault::NoSuchStage { to: to.clone() });
                };
                if target <= self.stage {
                    return Err(Fault::BackwardGoto { to: to.clone() });
                }
                if let Some(entry) = self.entry.get_mut(target) {
                    *entry = Some(entry.map_or(facts, |e| e.meet(facts)));
                }
                return Ok(None);
            }
            Stmt::Drop(reason) => {
                self.drop_stmt(*reason, at)?;
                return Ok(None);
            }
            Stmt::Pass => return Ok(None),
            Stmt::Send => {
                at.after(&[APPLY])?;
                return Ok(None);
            }
            Stmt::Forward(row) => {
                at.after(&[APPLY, ACCOUNT_HERE])?;
                let table = self.row(row)?;
                if table != Table::Underlay {
                    return Err(Fault::NotUnderlay {
                        row: row.clone(),
                        table,
                    });
                }
                return Ok(None);
            }
        }
        Ok(Some(next))
    }

    fn drop_stmt(&self, reason: DropReason, at: At<'_>) -> Result<(), Fault> {
        if counts_to_eni(reason) {
            at.after(&[ACCOUNT_HERE])
        } else {
            Ok(())
        }
    }

    /// Type of what an assignment writes.
    fn destination(&self, field: &str, at: At<'_>) -> Result<Ty, Fault> {
        if READ_ONLY.contains(&field) {
            return Err(Fault::ReadOnly {
                field: field.to_owned(),
            });
        }
        if field == "eni" {
            // Else counts would go to two ENIs.
            at.before(ACCOUNT)?;
        }
        match meta_field(field) {
            Some(f) => Ok(f.ty),
            None => self.local(field).ok_or_else(|| Fault::NoSuchField {
                name: field.to_owned(),
            }),
        }
    }

    /// Checks the name of a new row or local.
    fn new_name(&self, name: &str) -> Result<(), Fault> {
        let why = if !is_identifier(name) {
            "it is not a C identifier"
        } else if KEYWORDS.contains(&name) {
            "it is a keyword"
        } else if self.local(name).is_some() {
            "a local has this name"
        } else if self.rows.iter().any(|(n, _)| *n == name) {
            "a row around it has this name"
        } else {
            return Ok(());
        };
        Err(Fault::BadName {
            name: name.to_owned(),
            why,
        })
    }
}

/// What holds after one of two blocks, `None` for a block that ended the stage.
fn after_either(a: Option<Facts>, b: Option<Facts>) -> Option<Facts> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.meet(b)),
        (a, b) => a.or(b),
    }
}

fn side_prefix(side: FlowSide) -> &'static str {
    match side {
        FlowSide::Key => "key.",
        FlowSide::Rkey => "rkey.",
    }
}
