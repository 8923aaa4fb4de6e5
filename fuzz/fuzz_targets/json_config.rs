//! Configuration files, from text to a transaction to a commit.

#![no_main]

use dash_model::{Store, StoreOptions};
use dash_proto::config::{config_to_txn, load_config};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(rows) = load_config(text)
        && let Ok((txn, _)) = config_to_txn(&rows)
    {
        let _ = Store::new(StoreOptions::default()).commit(txn);
    }
});
