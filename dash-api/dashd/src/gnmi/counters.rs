//! `COUNTERS_DB`: counters of ENIs under their object ids and of metering buckets under SAI's entry keys,
//! all values text as in redis.

use std::collections::HashMap;

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

/// Object id of the switch, which SAI's entry keys name.
const SWITCH: &str = "oid:0x21000000000000";

/// Key of a metering bucket, as sairedis writes `sai_meter_bucket_entry_t`.
fn bucket(eni_oid: &str, class: u64) -> String {
    format!(r#"{{"eni_id":"{eni_oid}","meter_class":"{class}","switch_id":"{SWITCH}"}}"#)
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
            let mut oids = HashMap::new();
            for (key, oid) in enis {
                let values = counters.get_mut("eni").and_then(|enis| enis.get_mut(&key));
                rows.extend(values.map(|values| (oid.clone(), as_text(values.take()))));
                oids.insert(key, oid);
            }
            let meters = counters.get_mut("meter").and_then(Value::as_array_mut);
            for values in meters.into_iter().flat_map(|all| all.iter_mut()) {
                let Some(values) = values.as_object_mut() else {
                    continue;
                };
                let eni = values.remove("eni");
                let class = values.remove("meter_class");
                let oid = eni
                    .as_ref()
                    .and_then(Value::as_str)
                    .and_then(|e| oids.get(e));
                if let (Some(oid), Some(class)) = (oid, class.and_then(|n| n.as_u64())) {
                    let values = Value::Object(std::mem::take(values));
                    rows.insert(bucket(oid, class), as_text(values));
                }
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
