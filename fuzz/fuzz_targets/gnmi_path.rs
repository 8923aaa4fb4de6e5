//! Paths print and parse to the same, and are SONiC paths or are refused.

#![no_main]

use dash_proto::DbPath;
use dash_proto::path::{parse_path, path_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(path) = parse_path(text) else { return };
    let printed = path_text(&path);
    assert_eq!(
        parse_path(&printed).expect("our own text"),
        path,
        "{printed}"
    );
    if let Ok(db) = DbPath::from_gnmi(None, &path) {
        assert_eq!(
            DbPath::from_gnmi(None, &db.to_gnmi()).expect("our own path"),
            db
        );
    }
});
