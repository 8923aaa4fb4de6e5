use proptest::prelude::*;
use roxmltree::{Document, Node, ParsingOptions};

use super::*;
use crate::result::{Group, Machine};

/// A run with every kind of group. Its numbers are made up.
fn made_up() -> Run {
    read_json(include_str!("data/made-up.json")).expect("the file is a run")
}

fn parse(text: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).unwrap_or_else(|e| panic!("{e}:\n{text}"))
}

fn named<'a>(doc: &'a Document<'_>, tag: &str) -> Vec<Node<'a, 'a>> {
    // Lifetimes of a node are those of its document.
    let all = doc.root().descendants();
    all.filter(|n| n.tag_name().name() == tag).collect()
}

fn text_of(node: Node<'_, '_>) -> String {
    let all = node.descendants().filter(|n| n.is_text());
    all.filter_map(|n| n.text()).collect()
}

/// What makes a drawing wrong without making it malformed.
fn check_plots(doc: &Document<'_>) {
    for svg in named(doc, "svg") {
        let mut children = svg.children();
        let (title, desc) = (children.next(), children.next());
        assert_eq!(title.map(|n| n.tag_name().name()), Some("title"));
        assert_eq!(desc.map(|n| n.tag_name().name()), Some("desc"));
        for node in svg.descendants() {
            for attribute in node.attributes() {
                let value = attribute.value();
                assert!(
                    !value.contains("NaN") && !value.contains("inf"),
                    "{}={value}",
                    attribute.name()
                );
            }
        }
    }
}

#[test]
fn html_has_the_parts_of_the_run() {
    let run = made_up();
    let text = html(&run);
    let doc = parse(&text);
    check_plots(&doc);
    assert_eq!(named(&doc, "section").len(), run.groups.len());
    // packets, flows, latency; the summary; ratios of flows and of peers.
    assert_eq!(named(&doc, "svg").len(), 3 + 1 + 2);
    // A table each, and the goals'.
    assert_eq!(named(&doc, "table").len(), run.groups.len() + 1);
    let rows: usize = run.groups.iter().map(|g| g.measurements.len()).sum();
    let goals = run.groups.iter().flat_map(|g| &g.measurements);
    let goals = goals.filter(|m| m.goal.is_some()).count();
    let bodies = named(&doc, "tbody");
    let in_bodies: usize = bodies
        .iter()
        .map(|b| b.children().filter(|n| n.is_element()).count())
        .sum();
    assert_eq!(in_bodies, rows + goals);
    let codes: Vec<String> = named(&doc, "code").into_iter().map(text_of).collect();
    let commands: Vec<String> = run.groups.iter().map(|g| g.command.clone()).collect();
    assert_eq!(codes, commands);
    let all = text_of(doc.root());
    assert!(all.contains("Made-up CPU <for tests> & more"));
    assert!(all.contains("5 of 6 reached"), "goals are counted");
    assert!(all.contains("service tunnel: the pipeline has none"));
}

/// Nothing in the file makes a browser fetch something.
#[test]
fn html_needs_nothing_from_outside() {
    let text = html(&made_up());
    for outside in ["src=", "@import", "url(", "<script", "<link"] {
        assert!(!text.contains(outside), "{outside}");
    }
    let doc = parse(&text);
    for link in named(&doc, "a") {
        let to = link.attribute("href").expect("a link goes somewhere");
        let id = to.strip_prefix('#').expect("inside the page");
        let targets = doc
            .root()
            .descendants()
            .filter(|n| n.attribute("id") == Some(id));
        assert_eq!(targets.count(), 1, "{to}");
    }
}

#[test]
fn the_summary_has_a_panel_of_each_thing_measured_and_its_own_style() {
    let text = summary_svg(&made_up());
    let doc = parse(&text);
    check_plots(&doc);
    assert_eq!(doc.root_element().tag_name().name(), "svg");
    assert_eq!(named(&doc, "style").len(), 1);
    let heads = |run: &Run| -> Vec<String> {
        let svg = summary_svg(run);
        let doc = parse(&svg);
        let panels = named(&doc, "g").into_iter();
        let panels = panels.filter(|g| g.attribute("transform").is_some());
        panels
            .filter_map(|g| g.first_element_child().map(text_of))
            .collect()
    };
    let connections = "TCP connections of six packets";
    let flows = "Established packets by size of the flow table";
    let ratios = "Ratios and their goals";
    assert_eq!(heads(&made_up()), [connections, flows, ratios]);
    let all = text_of(doc.root());
    assert!(all.contains("Made-up CPU"), "the machine is named");
    assert!(all.contains("ours / OVS-DPDK VXLAN push (not reached)"));
    // What was not measured has no panel; a run without any says so.
    let mut run = made_up();
    run.groups
        .retain(|g| g.name == "one-ip" || g.name == "hero");
    assert_eq!(heads(&run), [connections]);
    run.groups.truncate(1);
    assert!(summary_svg(&run).contains("Nothing to plot"));
    assert!(summary_svg(&Run::default()).contains("Nothing to plot"));
}

/// What the lab's own rows are called is what the summary looks for.
#[test]
fn goals_are_drawn_where_they_are() {
    let row = |name: &str, unit: &str, sample: f64| Measurement {
        name: name.to_owned(),
        unit: unit.to_owned(),
        samples: vec![sample],
        ..Measurement::default()
    };
    let test = |name: &str, cps: f64| {
        let mut connections = row("TCP connections, 6 packets, with background", "CPS", cps);
        connections.aim("at least 1000000 CPS a core (P5)", 1e6, false);
        Group {
            name: name.to_owned(),
            measurements: vec![
                row("first packets of flows", "ns/packet", 500.0),
                row("established, 100 flows", "Mpps", 8.0),
                connections,
            ],
            ..Group::default()
        }
    };
    let run = Run {
        groups: vec![test("baby-hero", 2e6), test("hero", 3e5)],
        ..Run::default()
    };
    let svg = summary_svg(&run);
    let doc = parse(&svg);
    check_plots(&doc);
    let texts: Vec<String> = named(&doc, "text").into_iter().map(text_of).collect();
    let has = |text: &str| texts.iter().filter(|t| *t == text).count();
    assert_eq!(has("Packets, worst to best case"), 1, "{texts:?}");
    // 500 ns a packet are two million a second.
    assert_eq!((has("2.00"), has("8.00")), (2, 2), "{texts:?}");
    assert_eq!(
        (has("goal 1M"), has("2M"), has("300k")),
        (2, 2, 1),
        "{texts:?}"
    );
    let classes = |class| {
        named(&doc, "g")
            .into_iter()
            .filter(|g| g.attribute("class") == Some(class))
            .count()
    };
    assert_eq!((classes("good"), classes("bad")), (1, 1));
}

#[test]
fn a_curve_goes_down_where_the_cost_does() {
    let point = |x: f64, y: f64| plot::Point {
        x,
        y,
        low: y,
        high: y,
    };
    let of = |spacing: &plot::Spacing| {
        let axis = plot::Axis {
            label: String::new(),
            spacing: spacing.clone(),
        };
        let plot = plot::Plot {
            heading: String::new(),
            about: String::new(),
            x: axis.clone(),
            y: axis,
            curves: vec![plot::Curve {
                name: "c".to_owned(),
                points: vec![point(1.0, 10.0), point(10.0, 30.0), point(100.0, 90.0)],
            }],
        };
        let svg = plot.svg(true);
        let doc = parse(&svg);
        let dots = named(&doc, "circle").into_iter();
        let number = |n: &Node<'_, '_>, name| -> f64 {
            let value = n.attribute(name).expect("a circle has it");
            value.parse().expect("a number")
        };
        dots.map(|n| (number(&n, "cx"), number(&n, "cy")))
            .collect::<Vec<_>>()
    };
    let even = of(&plot::Spacing::Linear);
    assert!(even.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 > w[1].1));
    // Decades are alike on a logarithmic axis, and so are triples.
    let log = of(&plot::Spacing::Log);
    let steps = |of: fn(&(f64, f64)) -> f64| (of(&log[1]) - of(&log[0]), of(&log[2]) - of(&log[1]));
    let (x, y) = (steps(|p| p.0), steps(|p| p.1));
    assert!(
        (x.0 - x.1).abs() < 0.2 && (y.0 - y.1).abs() < 0.2,
        "{log:?}"
    );
}

#[test]
fn json_comes_back_as_it_was() {
    let run = made_up();
    assert_eq!(read_json(&json(&run)).expect("it was written here"), run);
    let other = json(&run).replacen("\"schema\": 1", "\"schema\": 9", 1);
    assert!(matches!(
        read_json(&other),
        Err(ReadError::Schema { found: 9 })
    ));
    assert!(matches!(read_json("[]"), Err(ReadError::Form(_))));
}

#[test]
fn a_terminal_of_100_columns_holds_it() {
    let text = terminal(&made_up());
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    assert!(text.contains("GOAL NOT REACHED: P3: <= 0.5"));
    assert!(text.contains("5 of 6 goals reached"));
    assert!(text.contains("$ dashctl bench flows"));
    // Medians stand below each other.
    let at = |name: &str| {
        let line = text.lines().find(|l| l.contains(name)).expect("its line");
        let unit = line.find(" ns/packet").expect("its unit");
        line[..unit].chars().count()
    };
    assert_eq!(at("I/O floor, 64 B"), at("outbound vnet, 9000 B"));
}

#[test]
fn without_samples_there_is_a_dash_and_no_plot() {
    let run = Run {
        machine: Machine {
            load: [f64::NAN, f64::INFINITY],
            ..Machine::default()
        },
        groups: vec![Group {
            name: "flows".to_owned(),
            measurements: vec![
                Measurement {
                    name: "nothing".to_owned(),
                    unit: "x".to_owned(),
                    ..Measurement::default()
                },
                Measurement {
                    name: "no number".to_owned(),
                    unit: "ns/packet".to_owned(),
                    samples: vec![f64::NAN, f64::NEG_INFINITY],
                    x: Some(f64::NAN),
                    series: Some("s".to_owned()),
                    ..Measurement::default()
                },
            ],
            ..Group::default()
        }],
    };
    let text = html(&run);
    let doc = parse(&text);
    assert!(named(&doc, "svg").is_empty());
    assert!(text_of(doc.root()).contains(number::NONE));
    assert!(terminal(&run).contains(number::NONE));
    read_json(&json(&run)).expect("no null where a number must be");
}

/// Figures with which axes cannot reckon: they overflow, underflow, or differ by nothing.
#[test]
fn extreme_figures_are_drawn_without_infinities() {
    let extremes = [
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        MOST,
        -MOST,
        LEAST,
        1e50,
        1e50 * (1.0 + f64::EPSILON),
        0.0,
        1.0,
    ];
    let measurement = |unit: &str, x: Option<f64>, a: f64, b: f64| Measurement {
        name: format!("{a} to {b}"),
        unit: unit.to_owned(),
        samples: vec![a, b],
        x,
        series: x.map(|_| "s".to_owned()),
        ..Measurement::default()
    };
    for a in extremes {
        for b in extremes {
            let group = |name: &str| Group {
                name: name.to_owned(),
                measurements: vec![
                    measurement("ns/packet", Some(a), a, b),
                    measurement("ns/packet", Some(b), b, a),
                    measurement("ns/packet", Some(b), b, b),
                    measurement("x", None, a, b),
                    measurement("CPS", None, a, b),
                ],
                ..Group::default()
            };
            let run = Run {
                groups: ["flows", "latency", "baby-hero", "hero"].map(group).into(),
                ..Run::default()
            };
            check_plots(&parse(&html(&run)));
            check_plots(&parse(&summary_svg(&run)));
            let lines = terminal(&run);
            assert!(lines.lines().all(|l| l.chars().count() <= 100), "{lines}");
        }
    }
}

fn any_measurement() -> impl Strategy<Value = Measurement> {
    let unit = prop_oneof![Just("ns/packet"), Just("x"), Just("CPS"), Just("<&\">")];
    (
        any::<String>(),
        unit,
        prop::collection::vec(any::<f64>(), 0..4),
        any::<Option<f64>>(),
        any::<Option<String>>(),
        any::<Option<(String, bool)>>(),
        any::<Option<f64>>(),
        any::<Option<String>>(),
    )
        .prop_map(
            |(name, unit, samples, x, series, goal, limit, note)| Measurement {
                name,
                unit: unit.to_owned(),
                samples,
                x,
                series,
                goal,
                limit,
                note,
            },
        )
}

fn any_run() -> impl Strategy<Value = Run> {
    let name = prop_oneof![
        Just("hero".to_owned()),
        Just("one-ip".to_owned()),
        Just("latency".to_owned()),
        Just("flows".to_owned()),
        any::<String>(),
    ];
    let measurements = prop::collection::vec(any_measurement(), 0..6);
    let group = (name, any::<String>(), measurements, any::<Vec<String>>());
    let group = group.prop_map(|(name, text, measurements, skipped)| Group {
        name,
        about: text.clone(),
        command: text,
        measurements,
        skipped,
    });
    (
        any::<String>(),
        prop::collection::vec(group, 0..4),
        any::<[f64; 2]>(),
    )
        .prop_map(|(cpu, groups, load)| Run {
            machine: Machine {
                cpu,
                load,
                ..Machine::default()
            },
            groups,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any text and any number: the pages stay well-formed, the plots free of NaN, JSON readable.
    #[test]
    fn any_run_renders(run in any_run()) {
        let page = html(&run);
        check_plots(&parse(&page));
        let svg = summary_svg(&run);
        check_plots(&parse(&svg));
        prop_assert!(terminal(&run).lines().all(|l| l.chars().count() <= 100));
        prop_assert!(read_json(&json(&run)).is_ok());
    }
}
