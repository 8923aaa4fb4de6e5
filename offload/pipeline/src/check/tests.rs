//! A pipeline that passes, and for each rule a smallest change that breaks it.

use super::*;
use crate::text::parse;

/// Every rule is kept here; each test spoils one line.
const GOOD: &str = "\
stage rx {
    var mac: b6;
    parse underlay;
    match globals[0] as g {
        if outer_dip != g.vip {
            drop vip-miss;
        }
        parse vxlan g.vxlan_port;
    } else {
        drop vip-miss;
    }
    direction = 1;
    mac = inner_smac;
    match eni_mac[mac] as m {
        eni = m.value;
    } else {
        drop eni-miss;
    }
    account;
    count RX_PACKETS 1;
    decap;
    goto flow;
}
stage flow {
    account;
    parse inner;
    flow lookup {
        goto out;
    }
    rkey.sip = key.dip;
    rkey.dip = key.sip;
    rkey.sport = key.dport;
    rkey.dport = key.sport;
    rkey.eni = key.eni;
    rkey.proto = key.proto;
    rkey.flags = (key.flags & 1);
    actions.actions = 1;
    actions.u0_dip = v4(key.dip);
    ractions.actions = 1;
    entropy actions.sport from key;
    flow create;
    goto out;
}
stage out {
    account;
    apply;
    match underlay[0, pad16(outer_sip)] as u {
        forward u;
    }
    send;
}
";

fn fault(text: &str) -> Option<CheckError> {
    let pipeline = parse(text).unwrap_or_else(|e| panic!("{e}"));
    check(&pipeline).err()
}

/// What is wrong after `line` became `with`.
#[track_caller]
fn spoiled(line: &str, with: &str) -> Fault {
    assert_eq!(GOOD.matches(line).count(), 1, "{line:?} is not one place");
    let error = fault(&GOOD.replace(line, with));
    error
        .unwrap_or_else(|| panic!("{line:?} -> {with:?} passed"))
        .fault
}

#[test]
fn the_good_pipeline_passes() {
    assert_eq!(fault(GOOD), None);
}

#[test]
fn stages_are_named_once_found_and_reached() {
    assert_eq!(
        check(&Pipeline::default()).unwrap_err().fault,
        Fault::NoStages
    );
    assert_eq!(
        fault(&format!("{GOOD}{GOOD}")).unwrap().fault,
        Fault::DuplicateStage
    );
    assert_eq!(
        fault(&format!("{GOOD}stage lost {{ pass; }}"))
            .unwrap()
            .fault,
        Fault::Unreachable
    );
    assert_eq!(
        fault("stage sixteen_letters_ { pass; }").unwrap().fault,
        Fault::BadStageName
    );
    assert_eq!(
        spoiled("goto flow", "goto flaw"),
        Fault::NoSuchStage { to: "flaw".into() }
    );
    assert_eq!(
        spoiled("    flow create;\n    goto out;", "    goto flow;"),
        Fault::BackwardGoto { to: "flow".into() }
    );
    let many: String = (0..17)
        .map(|i| format!("stage s{i} {{ goto s{}; }}\n", i + 1))
        .collect();
    assert_eq!(
        fault(&many).unwrap().fault,
        Fault::TooManyStages { most: 16 }
    );
    assert_eq!(fault(&many).unwrap().stage, "s16");
}

#[test]
fn every_path_ends_once() {
    assert_eq!(spoiled("    send;\n", ""), Fault::NoEnd);
    assert_eq!(
        spoiled("    send;\n", "    send;\n    pass;\n"),
        Fault::AfterEnd {
            stmt: "pass".into()
        }
    );
    let after = Fault::AfterEnd {
        stmt: "if eni == 0".into(),
    };
    assert_eq!(
        spoiled(
            "    goto flow;\n",
            "    goto flow;\n    if eni == 0 { pass; }\n"
        ),
        after
    );
}

#[test]
fn names_resolve_and_do_not_collide() {
    assert_eq!(
        spoiled("count RX_PACKETS 1", "count RX_PACKETS one"),
        Fault::NoSuchField { name: "one".into() }
    );
    assert_eq!(
        spoiled(
            "forward u;\n    }",
            "drop neighbor-miss;\n    }\n    forward u;"
        ),
        Fault::NoSuchRow { row: "u".into() }
    );
    let missing = Fault::NoSuchRowField {
        table: Table::EniMac,
        field: "flags".into(),
    };
    assert_eq!(spoiled("eni = m.value", "eni = m.flags"), missing);
    let bad = |name: &str, why| Fault::BadName {
        name: name.into(),
        why,
    };
    assert_eq!(
        spoiled("var mac: b6;", "var mac: b6;\n    var mac: b6;"),
        bad("mac", "a local has this name")
    );
    assert_eq!(
        spoiled("var mac: b6;", "var mac: b6;\n    var vni: u32;"),
        bad("vni", "a metadata field has this name")
    );
    assert_eq!(
        spoiled("globals[0] as g {", "globals[0] as mac {"),
        bad("mac", "a local has this name")
    );
    assert_eq!(
        spoiled(
            "parse vxlan g.vxlan_port;",
            "match eni[0] as g { } parse vxlan g.vxlan_port;"
        ),
        bad("g", "a row around it has this name")
    );
    assert_eq!(
        spoiled("as u {", "as key {"),
        bad("key", "metadata fields begin with it")
    );
}

#[test]
fn locals_live_in_their_block_and_are_unique_in_the_stage() {
    let inside = "if direction == 1 { var x: u32; x = 1; }\n    ";
    assert_eq!(
        fault(&GOOD.replace("    decap;", &format!("    {inside}decap;"))),
        None
    );
    assert_eq!(
        spoiled("    decap;", &format!("    {inside}x = 2; decap;")),
        Fault::NoSuchField { name: "x".into() }
    );
    assert_eq!(
        spoiled("    decap;", &format!("    {inside}var x: u8; decap;")),
        Fault::BadName {
            name: "x".into(),
            why: "the stage declares it already"
        }
    );
}

#[test]
fn types_agree() {
    let wrong = |expr: &str, got: &str, place: &str, want: &str| Fault::Type {
        expr: expr.into(),
        got: got.into(),
        place: place.into(),
        want: want.into(),
    };
    assert_eq!(
        spoiled("mac = inner_smac", "mac = outer_sip"),
        wrong("outer_sip", "b4", "`mac`", "b6")
    );
    assert_eq!(
        spoiled("direction = 1", "direction = inner_smac"),
        wrong("inner_smac", "b6", "`direction`", "a number")
    );
    assert_eq!(
        spoiled("mac = inner_smac", "mac = 0"),
        wrong("0", "a number", "`mac`", "b6")
    );
    assert_eq!(
        spoiled("eni_mac[mac]", "eni_mac[vni]"),
        wrong("vni", "a number", "`mac` of table `eni_mac`", "b6")
    );
    assert_eq!(
        spoiled("outer_dip != g.vip", "outer_dip != 1"),
        wrong("1", "a number", "the comparison", "b4")
    );
    assert_eq!(
        spoiled("outer_dip != g.vip", "0 != g.vip"),
        wrong("g.vip", "b4", "the comparison", "a number")
    );
    assert_eq!(
        fault(&GOOD.replace("outer_dip != g.vip", "outer_dip != 0")),
        None
    );
    assert_eq!(
        spoiled("g.vxlan_port", "g.vm_vni"),
        wrong("g.vm_vni", "a number", "the VXLAN port", "b2")
    );
    assert_eq!(
        spoiled("v4(key.dip)", "v4(outer_sip)"),
        wrong("outer_sip", "b4", "`v4`", "b16")
    );
    assert_eq!(
        spoiled("RX_PACKETS 1", "RX_PACKETS (vni + mac)"),
        wrong("mac", "b6", "an operator", "a number")
    );
    assert_eq!(
        spoiled("entropy actions.sport", "entropy actions.dmac"),
        wrong("actions.dmac", "b6", "`entropy`", "b2")
    );
    assert_eq!(
        fault(&GOOD.replace("direction = 1", "direction = vni")),
        None,
        "numbers are cut"
    );
}

#[test]
fn keys_have_their_schema_s_components() {
    let arity = Fault::KeyArity {
        table: Table::Globals,
        want: 1,
        got: 2,
    };
    assert_eq!(spoiled("globals[0]", "globals[0, 1]"), arity);
    assert_eq!(
        spoiled("globals[0]", "flow_index[0]"),
        Fault::NotMatchable {
            table: Table::FlowIndex
        }
    );
    assert_eq!(
        spoiled("underlay[0, pad16(outer_sip)]", "globals[0]"),
        Fault::NotUnderlay {
            row: "u".into(),
            table: Table::Globals
        }
    );
}

#[test]
fn effects_happen_in_order() {
    let early = |stmt: &str, needs| Fault::Early {
        stmt: stmt.into(),
        needs,
    };
    let late = |stmt: &str, done| Fault::Late {
        stmt: stmt.into(),
        done,
    };
    assert_eq!(
        spoiled(
            "        parse vxlan g.vxlan_port;\n",
            "        inner_smac = outer_smac;\n"
        ),
        early("decap", "`parse vxlan` in the same stage")
    );
    assert_eq!(
        spoiled(
            "        parse vxlan",
            "        if direction == 1 { parse vxlan g.vxlan_port; }\n        parse vxlan"
        )
        .to_string(),
        "`direction` is read but not written on every path to `if direction == 1`"
    );
    assert_eq!(spoiled("    decap;\n", ""), early("parse inner", "`decap`"));
    assert_eq!(
        spoiled("    account;\n    count", "    count"),
        early("count RX_PACKETS 1", "`account` in the same stage")
    );
    assert_eq!(
        spoiled("    account;\n    parse inner", "    parse inner"),
        early("parse inner", "`account` in the same stage")
    );
    assert_eq!(
        spoiled("    account;\n    apply", "    apply"),
        early("apply", "`account` in the same stage")
    );
    assert_eq!(spoiled("    apply;\n", ""), early("forward u", "`apply`"));
    assert_eq!(
        spoiled("drop eni-miss", "drop eni-down"),
        early("drop eni-down", "`account` in the same stage"),
        "port counters only need no ENI"
    );
    assert_eq!(
        spoiled("    apply;\n", "    apply;\n    apply;\n"),
        late("apply", "`apply`")
    );
    assert_eq!(
        spoiled("    decap;\n", "    decap;\n    decap;\n"),
        late("decap", "`decap`")
    );
    assert_eq!(
        spoiled("    decap;\n", "    eni = 3;\n    decap;\n"),
        late("eni = 3", "`account`"),
        "counts must not go to two ENIs"
    );
}

#[test]
fn what_one_of_two_paths_did_is_not_relied_on() {
    // One way to `out` skips the inner parse.
    let skipping = spoiled(
        "    decap;\n    goto flow;",
        "    decap;\n    if vni == 0 { goto out; }\n    goto flow;",
    );
    assert_eq!(
        skipping,
        Fault::Early {
            stmt: "apply".into(),
            needs: "`parse inner`"
        }
    );
    // A row that need not be there writes the field.
    let unwritten = Fault::Unwritten {
        field: "eni",
        stmt: "account".into(),
    };
    assert_eq!(
        spoiled("    } else {\n        drop eni-miss;\n    }", "    }"),
        unwritten
    );
}

#[test]
fn metadata_is_written_before_it_is_read() {
    let unwritten = |field, stmt: &str| Fault::Unwritten {
        field,
        stmt: stmt.into(),
    };
    assert_eq!(
        spoiled("    rkey.eni = key.eni;\n", ""),
        unwritten("rkey.eni", "flow create")
    );
    assert_eq!(
        spoiled("    ractions.actions = 1;\n", ""),
        unwritten("ractions.actions", "flow create")
    );
    assert_eq!(
        spoiled("direction = 1;", ""),
        unwritten("direction", "parse inner")
    );
    assert_eq!(
        spoiled("direction = 1;", "direction = tcp_flags;"),
        unwritten("tcp_flags", "direction = tcp_flags")
    );
}

#[test]
fn facts_about_the_packet_cannot_be_assigned() {
    assert_eq!(
        spoiled("direction = 1;", "direction = 1;\n    inner_len = 9;"),
        Fault::ReadOnly {
            field: "inner_len".into()
        }
    );
}

#[test]
fn nesting_is_as_bounded_as_in_text() {
    use crate::ir::{BinOp, Expr, Stage, Stmt};
    let nested = |levels| {
        let sum = (0..levels).fold(Expr::Num(1), |e, _| {
            Expr::Bin(BinOp::Add, Box::new(e), Box::new(Expr::Num(1)))
        });
        let body = vec![
            Stmt::Set {
                field: "vni".into(),
                value: sum,
            },
            Stmt::Pass,
        ];
        Pipeline {
            stages: vec![Stage {
                name: "deep".into(),
                body,
            }],
            ..Pipeline::default()
        }
    };
    let most = crate::text::MAX_DEPTH - 1;
    let deepest = nested(most);
    assert_eq!(check(&deepest), Ok(()));
    assert_eq!(parse(&crate::text::print(&deepest)), Ok(deepest));
    let too_deep = nested(most + 1);
    assert_eq!(
        check(&too_deep).unwrap_err().fault,
        Fault::TooDeep { most: most + 1 }
    );
    assert!(
        parse(&crate::text::print(&too_deep))
            .unwrap_err()
            .what
            .contains("nested deeper")
    );
}
