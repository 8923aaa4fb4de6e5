//! gNMI Set requests from bytes to a commit.

#![no_main]

use dash_model::{Store, StoreOptions};
use dash_proto::{decode_set, gnmi};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = gnmi::SetRequest::decode(data)
        && let Ok(set) = decode_set(&request)
    {
        let mut store = Store::new(StoreOptions::default());
        let txn = set.resolve(&store);
        let _ = store.commit(txn);
    }
});
