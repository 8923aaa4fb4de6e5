//! gNMI and SONiC-DASH messages, and their way into the model.
//!
//! ```text
//! gNMI SetRequest --set::decode_set----.
//! config file --config::load_config,   |--row::decode_row--> Op { key, object, raw } --> Txn
//!               config::config_to_txn--'      |
//!                                             |-- json: a JSON dialect -> the table's message
//!                                             '-- convert: the message -> a checked object
//! stored row --json::row_to_json--> readable JSON          path: gNMI paths <-> table and key
//! ```
//!
//! * [`dash`], [`gnmi`], [`gnmi_ext`]: messages and the gNMI client and server, generated from
//!   `specs/proto`; [`FILE_DESCRIPTOR_SET`] is what reflection serves.
//! * [`dashwire`]: our own services: packets into a simulated NIC, counters, flows; and the rows of our
//!   own tables.
//! * [`row`]: one row, protobuf or JSON, to a validated object.
//! * [`json`]: the JSON dialects of a row.
//! * [`config`]: configuration files.
//! * [`path`]: gNMI paths of the `sonic-db` origin and their text form.
//! * [`set`]: whole Set requests, and their errors as gRPC statuses.
//! * [`scope`]: names that stand for several rows.
//! * [`schema`]: which message the rows of a table are.
//!
//! A row is judged alone; what needs other rows (a VNET that must exist) is the store's to check.
//!
//! ```
//! use dash_proto::{RowValue, decode_row, row_to_json};
//! use serde_json::json;
//!
//! let value = json!({"action_type": "vnet_direct", "vnet": "Vnet1", "overlay_ip": "10.0.0.1"});
//! let row = decode_row("DASH_ROUTE_TABLE", "group1:10.2.0.0/16", RowValue::Json(&value))?;
//! assert_eq!(row.key.to_string(), "DASH_ROUTE_TABLE:group1:10.2.0.0/16");
//! assert_eq!(
//!     row_to_json("DASH_ROUTE_TABLE", &row.raw),
//!     json!({
//!         "action_type": "vnet_direct",
//!         "vnet_direct": {"vnet": "Vnet1", "overlay_ip": "10.0.0.1"},
//!     }),
//! );
//!
//! let error = decode_row("DASH_VNET_TABLE", "Vnet1", RowValue::Pb(b"")).unwrap_err();
//! assert_eq!(error.to_string(), "DASH_VNET_TABLE:Vnet1: vni: 0 is not a VNI (1..=16777215)");
//! # Ok::<(), dash_proto::RowError>(())
//! ```

#![forbid(unsafe_code)]

pub mod config;
pub mod json;
pub mod path;
pub mod row;
pub mod schema;
pub mod scope;
pub mod set;

mod convert;
mod generated;

pub use config::{ConfigRow, config_to_txn, load_config};
pub use generated::{dash, dashwire, gnmi, gnmi_ext};
pub use json::row_to_json;
pub use path::{DbPath, PathError};
pub use row::{DecodedRow, Kind, RowError, RowValue, change_row, decode_row, encode_row};
pub use scope::RowScope;
pub use set::{DecodedSet, SetError, decode_set};

/// Encoded `google.protobuf.FileDescriptorSet` of every file in `specs/proto` and its imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
