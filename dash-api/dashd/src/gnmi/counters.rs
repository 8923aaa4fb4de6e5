//! `COUNTERS_DB`: counters of ENIs under their object ids, all values text as in redis.

use dash_engine::EngineError;
use serde_json::{Map, Value};

use crate::plane::Plane;
use crate::usage;

/// ENI key to object id.
const NAME_MAP: &str = "COUNTERS_ENI_NAME_MAP";
/// Object id to ENI key.
const OID_MAP: &str = "COUNTERS_ENI_OID_MAP";
/// Used and available resources, in the row `STATS`.
const CRM: &str = "CRM";
/// Object id to counters.
const COUNTERS: &str = "COUNTERS";

/// Object id of an ENI: the type's number as SAI places it, then the ENI's index.
fn oid(index: u32) -> String {
    format!("oid:0x7008{index:09x}")
}

/// A table of the database; `None` when there is none of that name.
pub(super) fn table(plane: &mut Plane, table: &str) -> Result<Option<Value>, EngineError> {
    let indices = 0..plane.enis;
    let enis = indices.filter_map(|n| Some((plane.engine.eni_key(n)?.as_str().to_owned(), oid(n))));
    let enis: Vec<(String, String)> = enis.collect();
    let rows: Map<String, Value> = match table {
        NAME_MAP => enis
            .into_iter()
            .map(|(key, oid)| (key, oid.into()))
            .collect(),
        OID_MAP => enis
            .into_iter()
            .map(|(key, oid)| (oid, key.into()))
            .collect(),
        COUNTERS => {
            let mut counters = plane.engine.counters()?;
            let mut rows = Map::new();
            for (key, oid) in enis {
                let values = counters.get_mut("eni").and_then(|enis| enis.get_mut(&key));
                rows.extend(values.map(|values| (oid, as_text(values.take()))));
            }
            rows
        }
        CRM => {
            let stats = usage::crm(plane.engine.store(), plane.engine.target().capacity());
            Map::from_iter([("STATS".to_owned(), as_text(Value::Object(stats)))])
        }
        _ => return Ok(None),
    };
    Ok(Some(Value::Object(rows)))
}

fn as_text(values: Value) -> Value {
    match values {
        Value::Object(values) => {
            let values = values
                .into_iter()
                .map(|(name, n)| (name, n.to_string().into()));
            Value::Object(values.collect())
        }
        other => other,
    }
}
