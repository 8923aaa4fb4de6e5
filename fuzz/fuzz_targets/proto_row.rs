//! Rows of every table from bytes; what is accepted is kept byte for byte.

#![no_main]

use dash_proto::{RowValue, decode_row, row_to_json, schema};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str, &[u8])| {
    let (choice, key, bytes) = input;
    let count = schema::tables().count();
    let Some((table, _)) = schema::tables().nth(usize::from(choice) % count) else {
        return;
    };
    if let Ok(row) = decode_row(table, key, RowValue::Pb(bytes)) {
        assert_eq!(&*row.raw, bytes, "{table}:{key}");
    }
    // Any bytes have some JSON form.
    let _ = row_to_json(table, bytes);
});
