//! gNMI paths of the `sonic-db` origin: a database, an instance, a table, a key, a field.
//!
//! ```text
//! origin sonic-db (or sonic_db), in the path or in the prefix
//! DPU_APPL_DB / dpu0 / DASH_VNET_TABLE[key=Vnet1]         today's form
//! DPU_APPL_DB / dpu0 / DASH_VNET_TABLE / Vnet1 [/ field]  the key as an element
//! APPL_DB / DASH_VNET_TABLE / Vnet1                       the design document's, no instance
//! ```
//!
//! The elements of a prefix come before those of its paths. A table may carry the `_` in front
//! that redis gives rows not yet consumed. [`path_text`] and [`parse_path`] are the text form of
//! command lines.

mod error;
mod text;

use std::fmt;
use std::str::FromStr;

use crate::gnmi;

pub use error::PathError;
pub use text::{parse_path, path_text};

/// The origin as SONiC spells it.
pub const ORIGIN: &str = "sonic-db";

/// Name of the one key a table element has.
const KEY: &str = "key";

macro_rules! databases {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),* $(,)?) => {
        /// A database of SONiC.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Db { $($(#[$doc])* $variant),* }

        impl Db {
            /// Every database a path may name.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in a path.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

databases! {
    /// Configuration of the data plane, older images.
    ApplDb = "APPL_DB",
    /// Configuration of the data plane.
    DpuApplDb = "DPU_APPL_DB",
    /// Result of each row.
    DpuApplStateDb = "DPU_APPL_STATE_DB",
    /// Result of each row, older images.
    ApplStateDb = "APPL_STATE_DB",
    /// Counters.
    CountersDb = "COUNTERS_DB",
    /// Counters of a card.
    DpuCountersDb = "DPU_COUNTERS_DB",
    /// State of the switch.
    StateDb = "STATE_DB",
    /// State of a card.
    DpuStateDb = "DPU_STATE_DB",
    /// State of the chassis.
    ChassisStateDb = "CHASSIS_STATE_DB",
    /// Configuration of the switch.
    ConfigDb = "CONFIG_DB",
    /// SAI objects.
    AsicDb = "ASIC_DB",
    /// Polling of counters.
    FlexCounterDb = "FLEX_COUNTER_DB",
}

impl Db {
    /// The database of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|db| db.name() == name)
    }

    /// True for the databases DASH rows are written to.
    pub fn takes_set(self) -> bool {
        matches!(self, Self::ApplDb | Self::DpuApplDb)
    }
}

impl fmt::Display for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a gNMI path of SONiC names; parts from the right may be absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DbPath {
    /// The database.
    pub db: Db,
    /// `dpu0`, `localhost`; `None` in the form without one.
    pub instance: Option<String>,
    /// The table, without a leading `_`.
    pub table: Option<String>,
    /// Everything after the first colon of the redis key.
    pub key: Option<String>,
    /// A field of the row.
    pub field: Option<String>,
}

impl DbPath {
    /// Reads a path with the prefix of its request.
    ///
    /// # Errors
    /// When origin, elements or database are not those of a SONiC path.
    pub fn from_gnmi(prefix: Option<&gnmi::Path>, path: &gnmi::Path) -> Result<Self, PathError> {
        let parts = Parts::read(prefix, path)?;
        Ok(Self {
            db: parts.db,
            instance: parts.instance.map(str::to_owned),
            table: parts.table.map(str::to_owned),
            key: parts.key.map(str::to_owned),
            field: parts.field.map(str::to_owned),
        })
    }

    /// The path of a row, as today's clients write it.
    pub fn row(db: Db, instance: &str, table: &str, key: &str) -> Self {
        Self {
            db,
            instance: Some(instance.to_owned()),
            table: Some(table.to_owned()),
            key: Some(key.to_owned()),
            field: None,
        }
    }

    /// The gNMI path, origin included, with the key in the table's element.
    pub fn to_gnmi(&self) -> gnmi::Path {
        let mut elem = vec![element(self.db.name())];
        elem.extend(self.instance.as_deref().map(element));
        if let Some(table) = &self.table {
            let mut table = element(table);
            if let Some(key) = &self.key {
                table.key.insert(KEY.to_owned(), key.clone());
            }
            elem.push(table);
        }
        elem.extend(self.field.as_deref().map(element));
        gnmi::Path {
            origin: ORIGIN.to_owned(),
            elem,
            ..gnmi::Path::default()
        }
    }
}

fn element(name: &str) -> gnmi::PathElem {
    gnmi::PathElem {
        name: name.to_owned(),
        ..gnmi::PathElem::default()
    }
}

/// `sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]`.
impl fmt::Display for DbPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&path_text(&self.to_gnmi()))
    }
}

/// Reads what `Display` writes, and every form [`parse_path`] takes.
impl FromStr for DbPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::from_gnmi(None, &parse_path(text)?)
    }
}

/// A [`DbPath`] that borrows, for requests of many thousand paths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) db: Db,
    pub(crate) instance: Option<&'a str>,
    pub(crate) table: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) field: Option<&'a str>,
}

impl<'a> Parts<'a> {
    pub(crate) fn read(
        prefix: Option<&'a gnmi::Path>,
        path: &'a gnmi::Path,
    ) -> Result<Self, PathError> {
        check_origin(prefix, path)?;
        let mut elements = elements(prefix).chain(elements(Some(path)));
        let (Some((db, db_key)), Some(second)) = (elements.next(), elements.next()) else {
            return Err(PathError::ElemLength);
        };
        let db = Db::from_name(db).ok_or_else(|| PathError::InvalidTarget {
            name: db.to_owned(),
        })?;
        no_key(db_key, prefix, path)?;
        let (instance, table) = if is_table(second.0) {
            (None, Some(second))
        } else {
            no_key(second.1, prefix, path)?;
            (Some(second.0), elements.next())
        };
        let mut parts = Self {
            db,
            instance,
            table: None,
            key: None,
            field: None,
        };
        let Some((table, key)) = table else {
            return Ok(parts);
        };
        parts.table = Some(table.strip_prefix('_').unwrap_or(table));
        let mut rest = elements.map(|(name, key)| no_key(key, prefix, path).map(|()| name));
        parts.key = match key {
            Some(keys) => Some(key_value(keys, prefix, path)?),
            None => rest.next().transpose()?,
        };
        parts.field = rest.next().transpose()?;
        match rest.next() {
            None => Ok(parts),
            Some(_) => Err(PathError::unsupported(prefix, path)),
        }
    }
}

type Keys = std::collections::BTreeMap<String, String>;

/// Names and keys of a path's elements; very old clients send bare names.
fn elements(path: Option<&gnmi::Path>) -> impl Iterator<Item = (&str, Option<&Keys>)> {
    #[expect(deprecated, reason = "very old clients fill it")]
    let bare = path
        .filter(|p| p.elem.is_empty())
        .map(|p| p.element.as_slice())
        .unwrap_or_default();
    let elem = path.map(|p| p.elem.as_slice()).unwrap_or_default();
    let elem = elem
        .iter()
        .map(|e| (e.name.as_str(), Some(&e.key).filter(|k| !k.is_empty())));
    elem.chain(bare.iter().map(|name| (name.as_str(), None)))
}

/// Instances are `dpu0`, `localhost`, `asic0`; tables are upper case words.
fn is_table(name: &str) -> bool {
    let name = name.strip_prefix('_').unwrap_or(name);
    name.starts_with("DASH_") || name.starts_with("COUNTERS")
}

fn no_key(
    key: Option<&Keys>,
    prefix: Option<&gnmi::Path>,
    path: &gnmi::Path,
) -> Result<(), PathError> {
    match key {
        None => Ok(()),
        Some(_) => Err(PathError::unsupported(prefix, path)),
    }
}

fn key_value<'a>(
    keys: &'a Keys,
    prefix: Option<&gnmi::Path>,
    path: &gnmi::Path,
) -> Result<&'a str, PathError> {
    match (keys.len(), keys.get(KEY)) {
        (1, Some(value)) => Ok(value),
        _ => Err(PathError::KeyName {
            path: full_text(prefix, path),
        }),
    }
}

fn check_origin(prefix: Option<&gnmi::Path>, path: &gnmi::Path) -> Result<(), PathError> {
    let given = |p: &gnmi::Path| match p.origin.as_str() {
        "" => Ok(false),
        ORIGIN | "sonic_db" => Ok(true),
        other => Err(PathError::UnsupportedOrigin {
            origin: other.to_owned(),
        }),
    };
    let of_prefix = prefix.map_or("", |p| p.origin.as_str());
    let conflict = !of_prefix.is_empty()
        && !path.origin.is_empty()
        && of_prefix.replace('_', "-") != path.origin.replace('_', "-");
    if conflict {
        return Err(PathError::OriginConflict);
    }
    // A path without any origin is taken: the database's name says enough.
    prefix.map_or(Ok(false), given)?;
    given(path).map(drop)
}

/// Prefix and path as one text, for errors.
pub(crate) fn full_text(prefix: Option<&gnmi::Path>, path: &gnmi::Path) -> String {
    let Some(prefix) = prefix else {
        return path_text(path);
    };
    let mut whole = prefix.clone();
    whole.elem.extend(path.elem.iter().cloned());
    if whole.origin.is_empty() {
        whole.origin.clone_from(&path.origin);
    }
    path_text(&whole)
}

/// Checks that all paths of one request name the same database and instance.
#[derive(Debug, Default)]
pub struct Agreement {
    db: Option<Db>,
    instance: Option<String>,
    origin: Option<String>,
}

impl Agreement {
    /// Adds one path of the request.
    ///
    /// # Errors
    /// When it disagrees with one before it.
    pub fn add(
        &mut self,
        prefix: Option<&gnmi::Path>,
        path: &gnmi::Path,
    ) -> Result<DbPath, PathError> {
        self.add_parts(prefix, path)?;
        DbPath::from_gnmi(prefix, path)
    }

    pub(crate) fn add_parts<'a>(
        &mut self,
        prefix: Option<&'a gnmi::Path>,
        path: &'a gnmi::Path,
    ) -> Result<Parts<'a>, PathError> {
        let origin = match path.origin.as_str() {
            "" => prefix.map_or("", |p| p.origin.as_str()),
            origin => origin,
        };
        match &self.origin {
            None => self.origin = Some(origin.to_owned()),
            Some(first) if first.replace('_', "-") != origin.replace('_', "-") => {
                return Err(PathError::OriginConflict);
            }
            Some(_) => {}
        }
        let parts = Parts::read(prefix, path)?;
        if *self.db.get_or_insert(parts.db) != parts.db {
            return Err(PathError::TargetConflict);
        }
        match (&self.instance, parts.instance) {
            (Some(first), Some(instance)) if first != instance => {
                return Err(PathError::InstanceConflict);
            }
            (None, Some(instance)) => self.instance = Some(instance.to_owned()),
            _ => {}
        }
        Ok(parts)
    }
}
