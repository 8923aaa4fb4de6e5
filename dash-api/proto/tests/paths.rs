//! Paths as clients send them, and SONiC's texts and codes for the wrong ones.

#![expect(clippy::unwrap_used, reason = "a test stops at the line that fails")]

use dash_proto::gnmi::{Path, PathElem};
use dash_proto::path::{Agreement, Db, parse_path, path_text};
use dash_proto::{DbPath, PathError};
use tonic::{Code, Status};

fn path(text: &str) -> Path {
    parse_path(text).unwrap()
}

fn read(text: &str) -> Result<DbPath, PathError> {
    text.parse()
}

/// Database, instance, table, key, field.
fn parts(path: &DbPath) -> [Option<&str>; 5] {
    [
        Some(path.db.name()),
        path.instance.as_deref(),
        path.table.as_deref(),
        path.key.as_deref(),
        path.field.as_deref(),
    ]
}

#[test]
fn every_form_of_a_rows_path() {
    let vnet1 = [
        Some("DPU_APPL_DB"),
        Some("dpu0"),
        Some("DASH_VNET_TABLE"),
        Some("Vnet1"),
        None,
    ];
    for text in [
        "sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]",
        "sonic_db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]",
        "/sonic-db:DPU_APPL_DB/dpu0/DASH_VNET_TABLE/Vnet1",
        "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE/Vnet1",
        "/DPU_APPL_DB/dpu0/_DASH_VNET_TABLE/Vnet1",
    ] {
        assert_eq!(parts(&read(text).unwrap()), vnet1, "{text}");
    }
    let no_instance = read("sonic_db:/APPL_DB/DASH_VNET_TABLE/Vnet1").unwrap();
    assert_eq!(
        parts(&no_instance),
        [
            Some("APPL_DB"),
            None,
            Some("DASH_VNET_TABLE"),
            Some("Vnet1"),
            None
        ]
    );
}

#[test]
fn paths_to_read_tables_fields_and_counters() {
    for (text, expected) in [
        (
            "/DPU_APPL_STATE_DB/dpu0/DASH_ENI_TABLE",
            [
                Some("DPU_APPL_STATE_DB"),
                Some("dpu0"),
                Some("DASH_ENI_TABLE"),
                None,
                None,
            ],
        ),
        (
            "/DPU_APPL_STATE_DB/dpu0/DASH_ENI_TABLE[key=e]/result",
            [
                Some("DPU_APPL_STATE_DB"),
                Some("dpu0"),
                Some("DASH_ENI_TABLE"),
                Some("e"),
                Some("result"),
            ],
        ),
        (
            "/COUNTERS_DB/localhost/COUNTERS/oid:0x7008000000020/SAI_ENI_STAT_RX_BYTES",
            [
                Some("COUNTERS_DB"),
                Some("localhost"),
                Some("COUNTERS"),
                Some("oid:0x7008000000020"),
                Some("SAI_ENI_STAT_RX_BYTES"),
            ],
        ),
        (
            "/COUNTERS_DB/localhost/COUNTERS_ENI_NAME_MAP",
            [
                Some("COUNTERS_DB"),
                Some("localhost"),
                Some("COUNTERS_ENI_NAME_MAP"),
                None,
                None,
            ],
        ),
        (
            "/DPU_APPL_DB/dpu0",
            [Some("DPU_APPL_DB"), Some("dpu0"), None, None, None],
        ),
    ] {
        assert_eq!(parts(&read(text).unwrap()), expected, "{text}");
    }
}

#[test]
fn prefix_comes_before_the_path_and_may_have_the_origin() {
    let whole = read("/DPU_APPL_DB/dpu0/DASH_ROUTE_TABLE[key=g:10.0.0.0/8]").unwrap();
    for (prefix, rest) in [
        (
            "sonic-db:/",
            "/DPU_APPL_DB/dpu0/DASH_ROUTE_TABLE[key=g:10.0.0.0/8]",
        ),
        (
            "sonic-db:/DPU_APPL_DB",
            "sonic_db:/dpu0/DASH_ROUTE_TABLE[key=g:10.0.0.0/8]",
        ),
        ("/DPU_APPL_DB/dpu0/DASH_ROUTE_TABLE[key=g:10.0.0.0/8]", "/"),
    ] {
        let prefix = path(prefix);
        assert_eq!(
            DbPath::from_gnmi(Some(&prefix), &path(rest)).unwrap(),
            whole
        );
    }
}

#[test]
fn elements_of_very_old_clients() {
    #[expect(deprecated, reason = "what they send")]
    let old = Path {
        element: ["DPU_APPL_DB", "dpu0", "DASH_VNET_TABLE", "Vnet1"]
            .map(str::to_owned)
            .into(),
        ..Path::default()
    };
    let new = read("/DPU_APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]").unwrap();
    assert_eq!(DbPath::from_gnmi(None, &old).unwrap(), new);
}

#[test]
fn a_path_prints_as_todays_clients_write_it() {
    let text = "sonic-db:/DPU_APPL_DB/dpu0/DASH_ROUTE_TABLE[key=g:10.0.0.0/8]";
    let path = DbPath::row(Db::DpuApplDb, "dpu0", "DASH_ROUTE_TABLE", "g:10.0.0.0/8");
    assert_eq!(path.to_string(), text);
    assert_eq!(path_text(&path.to_gnmi()), text);
    assert_eq!(read(text).unwrap(), path);
}

#[track_caller]
fn refused(error: PathError, code: Code, text: &str) {
    let status = Status::from(error);
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(text), "{status}");
}

#[test]
fn wrong_paths_get_the_texts_and_codes_clients_look_for() {
    let error = |text| read(text).unwrap_err();
    refused(error("/"), Code::NotFound, "Invalid elem length");
    refused(error("/APPL_DB"), Code::NotFound, "Invalid elem length");
    refused(
        error("/APP_DB/dpu0/DASH_VNET_TABLE"),
        Code::NotFound,
        "Invalid target",
    );
    refused(
        error("openconfig:/APPL_DB/dpu0"),
        Code::Unimplemented,
        "Unsupported origin: openconfig",
    );
    for text in [
        "/APPL_DB/dpu0/DASH_VNET_TABLE[name=Vnet1]",
        "/APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1][other=x]",
        "/APPL_DB/dpu0[key=x]/DASH_VNET_TABLE",
        "/APPL_DB[key=x]/dpu0/DASH_VNET_TABLE",
        "/APPL_DB/dpu0/DASH_VNET_TABLE/Vnet1[key=x]",
        "/APPL_DB/dpu0/DASH_VNET_TABLE[key=Vnet1]/vni/more",
    ] {
        refused(error(text), Code::Unknown, "Unsupported path");
    }
    let prefix = Path {
        origin: "sonic-db".to_owned(),
        ..Path::default()
    };
    let conflict = DbPath::from_gnmi(Some(&prefix), &path("openconfig:/APPL_DB/dpu0"));
    refused(
        conflict.unwrap_err(),
        Code::Unimplemented,
        "Origin conflict in path",
    );
}

#[test]
fn paths_of_one_request_must_agree() {
    let second = |first: &str, second: &str| {
        let mut agreement = Agreement::default();
        agreement.add(None, &path(first)).unwrap();
        agreement.add(None, &path(second))
    };
    let base = "sonic-db:/DPU_APPL_DB/dpu0/DASH_VNET_TABLE";
    refused(
        second(base, "sonic-db:/APPL_DB/dpu0/DASH_VNET_TABLE").unwrap_err(),
        Code::NotFound,
        "Target conflict in path",
    );
    refused(
        second(base, "sonic-db:/DPU_APPL_DB/dpu1/DASH_VNET_TABLE").unwrap_err(),
        Code::NotFound,
        "Namespace/container conflict in path",
    );
    refused(
        second(base, "/DPU_APPL_DB/dpu0/DASH_VNET_TABLE").unwrap_err(),
        Code::Unimplemented,
        "Origin conflict in path",
    );
    second(base, "sonic_db:/DPU_APPL_DB/dpu0/DASH_ENI_TABLE").unwrap();
    second(base, "sonic-db:/DPU_APPL_DB/DASH_ENI_TABLE").unwrap();
}

#[test]
fn keys_with_every_special_character_survive_the_text() {
    for key in ["a]b", "a[b", "a/b", "a\\b", "a=b", "ä:ö", "", "[key=x]"] {
        let elem = PathElem {
            name: "T/[\\=]".to_owned(),
            key: [("key".to_owned(), key.to_owned())].into(),
        };
        let path = Path {
            elem: vec![elem],
            ..Path::default()
        };
        assert_eq!(parse_path(&path_text(&path)).unwrap(), path, "{key}");
    }
}
