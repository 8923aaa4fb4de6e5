//! Keys of rows print and parse to the same.

#![no_main]

use dash_model::ObjectKey;
use dash_model::key::Table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| {
    let (choice, text) = input;
    let table = Table::ALL[usize::from(choice) % Table::ALL.len()].name();
    if let Ok(key) = ObjectKey::parse(table, text) {
        let printed = key.to_string();
        let (name, rest) = printed.split_once(':').expect("a key names its table");
        assert_eq!(ObjectKey::parse(name, rest).as_ref(), Ok(&key), "{printed}");
    }
});
