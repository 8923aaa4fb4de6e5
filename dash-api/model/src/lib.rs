//! Validated DASH objects and the store that keeps them consistent.
//!
//! ```text
//!  a gNMI Set, a ZMQ batch, a config file
//!      | dash-proto: bytes -> Op { key, object, raw }
//!      v
//!  Txn --Store::commit--> Changeset --planner--> rows of the data plane
//!      |                      |
//!      '-> CommitError        '--Store::revert (the data plane refused)
//! ```
//!
//! * [`key`]: [`ObjectKey`], the name of a row, to and from SONiC's `TABLE:key` text.
//! * [`net`]: addresses, prefixes, VNIs and ranges that are right by construction.
//! * [`objects`]: one struct a table; a value cannot be malformed on its own.
//! * [`txn`]: what goes into a commit and what comes out.
//! * [`store`]: the rows, the readers of the planner, and who uses what.
//! * [`error`]: why a transaction is refused: item, row, reason, class.
//!
//! A transaction is judged by the state it would lead to, so its rows may come in any order, and
//! is applied whole or not at all. The work is in proportion to the transaction and what it
//! touches, never to the store.
//!
//! ```
//! use dash_model::key::ObjectKey;
//! use dash_model::net::Vni;
//! use dash_model::objects::{Appliance, Object, OutboundLookup, Vnet};
//! use dash_model::{Op, Store, StoreOptions, Txn};
//!
//! let vnet = Object::Vnet(Vnet { vni: Vni::new(2001).expect("24 bits") });
//! let appliance = Object::Appliance(Appliance {
//!     sip: "10.1.0.5".parse()?,
//!     vm_vni: Vni::new(9).expect("24 bits"),
//!     trusted_vnis: vec![],
//!     outbound_lookup: OutboundLookup::SrcMac,
//! });
//! let mut store = Store::new(StoreOptions::default());
//!
//! let alone: Txn = [Op::set(0, "DASH_VNET_TABLE:Vnet1".parse()?, vnet.clone(), *b"")]
//!     .into_iter()
//!     .collect();
//! let error = store.commit(alone).expect_err("a VNET needs an appliance");
//! assert_eq!(
//!     error.to_string(),
//!     "item 0, DASH_VNET_TABLE:Vnet1: there is no row in DASH_APPLIANCE_TABLE",
//! );
//!
//! let both: Txn = [
//!     Op::set(0, "DASH_VNET_TABLE:Vnet1".parse()?, vnet, *b""),
//!     Op::set(1, ObjectKey::parse("DASH_APPLIANCE_TABLE", "100")?, appliance, *b""),
//! ]
//! .into_iter()
//! .collect();
//! assert_eq!(store.commit(both)?.changes.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod error;
pub mod key;
pub mod net;
pub mod objects;
pub mod store;
pub mod txn;

pub use error::{CommitError, Kind, OpError, Reason};
pub use key::{KeyError, ObjectKey};
pub use store::{Store, StoreOptions};
pub use txn::{Action, Change, Changeset, Entry, Op, Txn, Warning};
