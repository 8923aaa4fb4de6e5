//! Configuration files: rows as JSON, one file one transaction.
//!
//! ```text
//! [{"DASH_VNET_TABLE:Vnet1": {"vni": "2001"}, "OP": "SET"}, ..]    swssconfig, sonic-mgmt, dpugen
//! {"DASH_VNET_TABLE:Vnet1": {"vni": 2001}, ..}                     the rows of one object
//! {"DASH_VNET_TABLE": {"Vnet1": {"vni": 2001}}, ..}                by table
//! ```
//!
//! Rows may come in any order. Two habits of older generators need more than one row to
//! understand and are undone here: an `acl_group_id` without a family gets that of the group's row
//! of the same file, and routes keyed by an ENI instead of a route group get a group of the ENI's
//! name, bound to it.

mod load;

use std::collections::{HashMap, HashSet};
use std::fmt;

use dash_model::{ObjectKey, Op, Txn, Warning};
use prost::Message;
use serde_json::Value;
use thiserror::Error;

use crate::dash::eni_route::EniRoute;
use crate::dash::route_group::RouteGroup;
use crate::dash::types::IpVersion;
use crate::row::{RowError, RowValue, decode_row};
use crate::scope::RowScope;
use crate::{json, schema};

pub use load::{FileError, load_config};

const ACL_GROUP: &str = "DASH_ACL_GROUP_TABLE";
const ENI: &str = "DASH_ENI_TABLE";
const ENI_ROUTE: &str = "DASH_ENI_ROUTE_TABLE";
const ROUTE: &str = "DASH_ROUTE_TABLE";
const ROUTE_GROUP: &str = "DASH_ROUTE_GROUP_TABLE";

/// One row of a file, not yet checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigRow {
    /// The table.
    pub table: String,
    /// The key text.
    pub key: String,
    /// What to do with it.
    pub op: ConfigOp,
    /// Place in the file, counted in rows from 0.
    pub index: usize,
    /// Line of the row in the file, from 1.
    pub line: usize,
}

/// What a file says to do with a row.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigOp {
    /// Write the row.
    Set(Value),
    /// Remove it.
    Del,
}

/// One refused row of a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {error}")]
pub struct ConfigError {
    /// Place in the file, counted in rows from 0.
    pub index: usize,
    /// Line of the row, from 1.
    pub line: usize,
    /// What is wrong.
    pub error: RowError,
}

/// Every refused row of a file; nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(
    /// By index; never empty.
    pub Vec<ConfigError>,
);

/// One error a line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Decodes the rows of a file into one transaction; the ops' indices are the rows'.
///
/// # Errors
/// Every row that [`decode_row`] refuses.
pub fn config_to_txn(rows: &[ConfigRow]) -> Result<(Txn, Vec<Warning>), ConfigErrors> {
    let known = Known::of(rows);
    let mut out = Out::default();
    for row in rows {
        match &row.op {
            ConfigOp::Del => out.del(row),
            ConfigOp::Set(value) => {
                let value = known.with_family(row, value);
                out.set(row, RowValue::Json(value.as_ref().unwrap_or(value_of(row))));
                known.bind_route_of_eni(row, &mut out);
            }
        }
    }
    if out.errors.is_empty() {
        Ok((out.txn, out.warnings))
    } else {
        Err(ConfigErrors(out.errors))
    }
}

fn value_of(row: &ConfigRow) -> &Value {
    match &row.op {
        ConfigOp::Set(value) => value,
        ConfigOp::Del => &Value::Null,
    }
}

#[derive(Default)]
struct Out<'a> {
    txn: Txn,
    warnings: Vec<Warning>,
    errors: Vec<ConfigError>,
    /// Names of the route groups made for an ENI.
    made: HashSet<&'a str>,
}

impl Out<'_> {
    fn set(&mut self, row: &ConfigRow, value: RowValue<'_>) {
        self.write(row, &row.table, &row.key, value);
    }

    fn write(&mut self, row: &ConfigRow, table: &str, key: &str, value: RowValue<'_>) {
        let index = row.index;
        match decode_row(table, key, value) {
            Ok(decoded) => {
                for text in decoded.warnings {
                    self.warn(index, &decoded.key, text);
                }
                let op = Op::set(index, decoded.key, decoded.object, decoded.raw);
                self.txn.ops.push(op);
            }
            Err(error) => self.refuse(row, error),
        }
    }

    fn del(&mut self, row: &ConfigRow) {
        let key = match ObjectKey::parse(&row.table, &row.key) {
            Ok(key) => key,
            Err(e) => return self.refuse(row, RowError::key(&row.table, &row.key, &e)),
        };
        if let Some(scope) = RowScope::of_key(&key, &row.key) {
            for key in scope.written(&self.txn.ops) {
                self.txn.ops.push(Op::del(row.index, key));
            }
            let text = "only priority 0 is deleted: name the priority at the end of the key";
            self.warn(row.index, &key, text.to_owned());
        }
        self.txn.ops.push(Op::del(row.index, key));
    }

    fn warn(&mut self, index: usize, key: &ObjectKey, text: String) {
        self.warnings.push(Warning {
            index,
            key: key.clone(),
            text,
        });
    }

    fn refuse(&mut self, row: &ConfigRow, error: RowError) {
        self.errors.push(ConfigError {
            index: row.index,
            line: row.line,
            error,
        });
    }
}

/// What other rows of the file say about the names a row uses.
struct Known<'a> {
    families: HashMap<&'a str, IpVersion>,
    enis: HashSet<&'a str>,
    groups: HashSet<&'a str>,
    bound: HashSet<&'a str>,
}

impl<'a> Known<'a> {
    fn of(rows: &'a [ConfigRow]) -> Self {
        let mut known = Self {
            families: HashMap::new(),
            enis: HashSet::new(),
            groups: HashSet::new(),
            bound: HashSet::new(),
        };
        for row in rows {
            let ConfigOp::Set(value) = &row.op else {
                continue;
            };
            let key = row.key.as_str();
            match row.table.as_str() {
                ACL_GROUP => {
                    known.families.extend(family(value).map(|f| (key, f)));
                }
                ENI => {
                    known.enis.insert(key);
                }
                ROUTE_GROUP => {
                    known.groups.insert(key);
                }
                ENI_ROUTE => {
                    known.bound.insert(key);
                }
                _ => {}
            }
        }
        known
    }

    /// The row with its `acl_group_id` named for the group's family; `None` if it has none, or
    /// the family is not known here.
    fn with_family(&self, row: &ConfigRow, value: &Value) -> Option<Value> {
        if !matches!(
            row.table.as_str(),
            "DASH_ACL_IN_TABLE" | "DASH_ACL_OUT_TABLE"
        ) {
            return None;
        }
        let group = match value.get(json::ACL_GROUP)? {
            Value::String(name) => name.clone(),
            Value::Number(name) => name.to_string(),
            _ => return None,
        };
        let name = match self.families.get(group.as_str())? {
            IpVersion::Ipv6 => "v6_acl_group_id",
            IpVersion::Ipv4 => "v4_acl_group_id",
            IpVersion::Unspecified => return None,
        };
        let mut fields = value.as_object()?.clone();
        json::rename(&mut fields, json::ACL_GROUP, name).ok()?;
        Some(Value::Object(fields))
    }

    /// Before route groups, routes were keyed by their ENI: makes the group and binds it.
    fn bind_route_of_eni(&self, row: &'a ConfigRow, out: &mut Out<'a>) {
        if row.table != ROUTE {
            return;
        }
        let Some((name, _)) = row.key.split_once(':') else {
            return;
        };
        if self.groups.contains(name) || !self.enis.contains(name) || !out.made.insert(name) {
            return;
        }
        let group = RouteGroup::default().encode_to_vec();
        out.write(row, ROUTE_GROUP, name, RowValue::Pb(&group));
        if !self.bound.contains(name) {
            let bind = EniRoute {
                group_id: name.to_owned(),
            };
            let bind = bind.encode_to_vec();
            out.write(row, ENI_ROUTE, name, RowValue::Pb(&bind));
        }
        let text = format!("made for the routes keyed by ENI `{name}`");
        out.warn(row.index, &ObjectKey::RouteGroup(name.into()), text);
    }
}

/// The family of an ACL group's row, if it is right so far.
fn family(group: &Value) -> Option<IpVersion> {
    let field = schema::message_of(ACL_GROUP)?.get_field_by_name("ip_version")?;
    let number = json::constant(
        "ip_version",
        field.kind().as_enum()?,
        group.get("ip_version")?,
    );
    IpVersion::try_from(number.ok()?).ok()
}
