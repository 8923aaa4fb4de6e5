//! Printing and parsing are inverse, and no text breaks the parser.

use dash_pipeline::fields::{META, Ty};
use dash_pipeline::ir::{BinOp, Cond, Expr, FlowSide, Pipeline, Stage, Stmt, Timeouts};
use dash_pipeline::plan::{FlowNeeds, Shape};
use dash_pipeline::template;
use dash_pipeline::text::{KEYWORDS, MAX_DEPTH, TextError, parse, print};
use dash_wire::drop::DropReason;
use dash_wire::stats::{EniStat, PortStat};
use nic_target::Table;
use proptest::prelude::*;

/// Names of locals, rows and stages: no keywords, and nothing metadata names begin with.
fn name() -> impl Strategy<Value = String> {
    let taken = |n: &String| {
        let meta = META
            .iter()
            .any(|f| f.name == n || f.name.starts_with(&format!("{n}.")));
        !meta && !KEYWORDS.contains(&n.as_str())
    };
    "[a-zA-Z_][a-zA-Z0-9_]{0,14}".prop_filter("taken", taken)
}

/// A metadata field or a local.
fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(META).prop_map(|f| f.name.to_owned()),
        name()
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        any::<u64>().prop_map(Expr::Num),
        Just(Expr::Ingress),
        field().prop_map(Expr::Field),
        (name(), name()).prop_map(|(row, field)| Expr::Row(row, field)),
    ];
    let ops = [
        BinOp::Add,
        BinOp::Sub,
        BinOp::And,
        BinOp::Or,
        BinOp::Shl,
        BinOp::Shr,
    ];
    leaf.prop_recursive(4, 12, 2, move |inner| {
        prop_oneof![
            (
                prop::sample::select(ops.to_vec()),
                inner.clone(),
                inner.clone()
            )
                .prop_map(|(op, a, b)| Expr::Bin(op, a.into(), b.into())),
            (prop::sample::select(vec![16, 24]), inner.clone())
                .prop_map(|(bits, e)| Expr::ToBe(bits, e.into())),
            inner.clone().prop_map(|e| Expr::Pad16(e.into())),
            inner.clone().prop_map(|e| Expr::V4(e.into())),
            inner.clone().prop_map(|e| Expr::FromBe(e.into())),
            [inner.clone(), inner.clone()].prop_map(|of| Expr::With4(of.into())),
            [inner.clone(), inner.clone(), inner].prop_map(|of| Expr::Mask(of.into())),
        ]
    })
}

fn cond() -> impl Strategy<Value = Cond> {
    let leaf = prop_oneof![
        (expr(), expr()).prop_map(|(a, b)| Cond::Eq(a, b)),
        (expr(), expr()).prop_map(|(a, b)| Cond::Ne(a, b)),
    ];
    leaf.prop_recursive(3, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Cond::And(a.into(), b.into())),
            (inner.clone(), inner).prop_map(|(a, b)| Cond::Or(a.into(), b.into())),
        ]
    })
}

fn ty() -> impl Strategy<Value = Ty> {
    let nums = [1, 2, 4, 8].map(Ty::Num);
    let bytes = [2, 3, 4, 6, 16].map(Ty::Bytes);
    prop::sample::select([&nums[..], &bytes[..]].concat())
}

fn stmt() -> impl Strategy<Value = Stmt> {
    let fixed = [
        Stmt::ParseUnderlay,
        Stmt::Decap,
        Stmt::ParseInner,
        Stmt::Account,
        Stmt::SpotRedirect,
        Stmt::ParseRedirect,
        Stmt::FlowRedirect,
        Stmt::Consume,
        Stmt::Hook,
        Stmt::Translate,
        Stmt::Translatable,
        Stmt::Admit,
        Stmt::Pass,
        Stmt::Send,
    ];
    let side = prop::sample::select(vec![FlowSide::Key, FlowSide::Rkey]);
    let leaf = prop_oneof![
        prop::sample::select(fixed.to_vec()),
        expr().prop_map(Stmt::ParseVxlan),
        expr().prop_map(Stmt::ParseEncap),
        any::<[bool; 3]>().prop_map(|[nvgre, u1, smac]| Stmt::Apply { nvgre, u1, smac }),
        any::<[bool; 4]>().prop_map(|[pair, marks, epoch, learn]| Stmt::FlowCreate {
            pair,
            marks,
            epoch,
            learn,
        }),
        (prop::sample::select(PortStat::ALL), expr())
            .prop_map(|(stat, amount)| Stmt::CountPort { stat, amount }),
        (expr(), expr()).prop_map(|(base, mask)| Stmt::GuardSport { base, mask }),
        (field(), expr()).prop_map(|(field, of)| Stmt::Choose { field, of }),
        (name(), ty()).prop_map(|(name, ty)| Stmt::Var { name, ty }),
        (field(), expr()).prop_map(|(field, value)| Stmt::Set { field, value }),
        (field(), side).prop_map(|(field, key)| Stmt::Entropy { field, key }),
        (prop::sample::select(EniStat::ALL), expr())
            .prop_map(|(stat, amount)| Stmt::Count { stat, amount }),
        expr().prop_map(|len| Stmt::Meter { len }),
        (expr(), any::<bool>()).prop_map(|(len, packets)| Stmt::Police { len, packets }),
        name().prop_map(Stmt::Goto),
        name().prop_map(Stmt::Forward),
        prop::sample::select(DropReason::ALL).prop_map(Stmt::Drop),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let body = || prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            (
                prop::sample::select(Table::ALL),
                prop::collection::vec(expr(), 0..4),
                name(),
                body(),
                body()
            )
                .prop_map(|(table, key, row, hit, miss)| Stmt::Match {
                    table,
                    key,
                    row,
                    hit,
                    miss
                }),
            (cond(), body(), body()).prop_map(|(cond, then, els)| Stmt::If { cond, then, els }),
            (any::<[bool; 6]>(), body(), body()).prop_map(
                |([peek, pair, marks, meter, epoch, learn], hit, miss)| {
                    Stmt::FlowLookup {
                        peek,
                        marks,
                        pair,
                        meter,
                        epoch,
                        learn,
                        hit,
                        miss,
                    }
                }
            ),
        ]
    })
}

fn pipeline() -> impl Strategy<Value = Pipeline> {
    let stage =
        (name(), prop::collection::vec(stmt(), 0..6)).prop_map(|(name, body)| Stage { name, body });
    let timeouts = prop_oneof![
        Just(Timeouts::default()),
        prop::array::uniform6(1..=u32::MAX).prop_map(
            |[half_open, tcp, udp, icmp, other, closing]| {
                Timeouts {
                    half_open,
                    tcp,
                    udp,
                    icmp,
                    other,
                    closing,
                }
            }
        ),
    ];
    (timeouts, any::<bool>(), prop::collection::vec(stage, 0..4)).prop_map(
        |(timeouts, resets, stages)| Pipeline {
            timeouts,
            resets,
            stages,
        },
    )
}

fn whole_template() -> String {
    template::pipeline_text(&Shape {
        trusted_vnis: true,
        acl_out: 0b11111,
        acl_in: 0b11111,
        route_group_disabled: true,
        inbound_pa_validation: true,
        inbound_protocol: true,
        pa_prefixes: true,
        underlay_routes: true,
        route_more: true,
        mapping_more: true,
        service_tunnel: true,
        private_link: true,
        private_link_nsg: true,
        port_map: true,
        drop_unmapped_ports: true,
        tunnel: true,
        floating: true,
        redirect: true,
        meter: true,
        bandwidth: true,
        packet_rate: true,
        admission: true,
        flows: FlowNeeds {
            translate: true,
            nvgre: true,
            u1: true,
            redirects: true,
            meter: true,
            epoch: true,
            learn: true,
        },
        sport_security: true,
        mtu: true,
        port_mtu: Some(1500),
        dscp_pipe: true,
        timeouts: Timeouts {
            tcp: 1,
            ..Timeouts::default()
        },
        tcp_nonsyn_drop: true,
        tcp_reset: true,
        hooks: true,
    })
}

/// A place in the text exists; the parser never points past it.
fn points_into(text: &str, error: &TextError) -> bool {
    let lines = text.lines().count().max(1);
    let width = text
        .lines()
        .nth(error.line - 1)
        .unwrap_or_default()
        .chars()
        .count();
    (1..=lines).contains(&error.line) && (1..=width + 1).contains(&error.column)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsing_what_was_printed_gives_the_pipeline_back(pipeline in pipeline()) {
        let text = print(&pipeline);
        prop_assert_eq!(parse(&text), Ok(pipeline), "{}", text);
    }

    #[test]
    fn arbitrary_text_is_an_error_that_points_into_it(text in any::<String>()) {
        if let Err(error) = parse(&text) {
            prop_assert!(points_into(&text, &error), "{error}");
        }
    }

    #[test]
    fn arbitrary_words_of_the_language_are_an_error_that_points_into_them(
        words in prop::collection::vec(
            prop_oneof![
                prop::sample::select(KEYWORDS),
                prop::sample::select(vec![
                    "{", "}", "(", ")", "[", "]", ";", ".", "==", "&&", "=", "-", "<<", "eni", "key", "underlay",
                    "globals", "lookup", "0", "0x", "99999999999999999999", "\n", "#",
                ]),
            ],
            0..60,
        ),
    ) {
        let text = words.join(" ");
        if let Err(error) = parse(&text) {
            prop_assert!(points_into(&text, &error), "{error}\n{text}");
        }
    }

    #[test]
    fn a_spoiled_pipeline_is_one_that_round_trips_or_an_error_that_points_into_it(
        at: prop::sample::Index,
        length in 0usize..40,
        with in "[ -~\n]{0,6}|\\PC{1,3}",
    ) {
        let mut text = whole_template();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        // The template is ASCII, so every place is between characters.
        text.replace_range(start..end, &with);
        match parse(&text) {
            Ok(pipeline) => prop_assert_eq!(parse(&print(&pipeline)), Ok(pipeline)),
            Err(error) => prop_assert!(points_into(&text, &error), "{error}"),
        }
    }
}

fn error(text: &str) -> (usize, usize, String) {
    let TextError { line, column, what } = parse(text).expect_err("the text is wrong");
    (line, column, what)
}

#[test]
fn errors_say_where_and_what() {
    let at = |line, column, what: &str| (line, column, what.to_owned());
    assert_eq!(
        error("stage a {\n    sned;\n}"),
        at(2, 9, "expected `=`, found `;`")
    );
    assert_eq!(
        error("stage a {\n  match routes[] as r {}\n}"),
        at(2, 9, "there is no table `routes`")
    );
    assert_eq!(
        error("stage a { drop no-such-thing; }"),
        at(1, 16, "there is no drop reason `no-such-thing`")
    );
    assert_eq!(
        error("stage a { count PACKETS 1; }"),
        at(1, 17, "there is no ENI counter `PACKETS`")
    );
    assert_eq!(
        error("stage a { var x: u7; }"),
        at(1, 18, "there is no type `u7`")
    );
    assert_eq!(
        error("stage a { if eni { } }"),
        at(1, 14, "expected a condition, found a value")
    );
    assert_eq!(
        error("stage a { eni = (vni == 1); }"),
        at(1, 17, "expected a value, found a condition")
    );
    assert_eq!(
        error("stage a { if (vni == 1 + eni == 2) { } }"),
        at(
            1,
            24,
            "expected an operator that fits both sides, or `)`, found `+`"
        )
    );
    assert_eq!(
        error("stage a {"),
        at(
            1,
            10,
            "expected a statement or `}`, found the end of the text"
        )
    );
    assert_eq!(
        error("stage a { eni = vni @ 1; }"),
        at(1, 21, "unexpected character '@'")
    );
    assert_eq!(
        error("stage a { key.nothing = 1; }"),
        at(1, 11, "there is no metadata field `key.nothing`")
    );
    assert_eq!(
        error("stage a { match eni[eni] as drop { } }"),
        at(1, 29, "expected a name for the row, found `drop`")
    );
    let (_, column, what) = error("stage a { eni = 18446744073709551616; }");
    assert!(
        column == 17 && what.starts_with("`18446744073709551616` is not a number of 64 bits"),
        "{column} {what}"
    );
}

#[test]
fn comments_hex_and_superfluous_parentheses_are_read_and_not_printed() {
    let text =
        "# a stage\nstage a { # here\n eni = ((0x10)); if ((vni == 1)) { pass; } else { } send; }";
    let want = "stage a {\n    eni = 16;\n    if vni == 1 {\n        pass;\n    }\n    send;\n}\n";
    assert_eq!(print(&parse(text).unwrap()), want);
}

#[test]
fn nesting_is_bounded_not_the_stack() {
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    let expr = |n| {
        format!(
            "stage a {{ eni = {}; }}",
            deep("(", ")", n).replace("()", "(1)")
        )
    };
    let blocks = |n| format!("stage a {{ {} }}", deep("if eni == 0 { ", "} ", n));
    assert!(parse(&expr(MAX_DEPTH - 1)).is_ok());
    assert!(parse(&blocks(MAX_DEPTH - 1)).is_ok());
    for text in [
        expr(MAX_DEPTH),
        blocks(MAX_DEPTH),
        expr(100_000),
        blocks(100_000),
        "(".repeat(9_999),
    ] {
        let what = parse(&text).unwrap_err().what;
        assert!(
            what.contains("nested deeper than 100 levels") || what.contains("expected `stage`"),
            "{what}"
        );
    }
}
