//! A scenario on one engine, and what differs from what it expects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use dash_engine::{Engine, Filter, FlowSelection, Judge, Options};
use dash_model::StoreOptions;
use dash_model::key::EniKey;
use dash_pipeline::model::Model;
use dash_pipeline::model::coverage::Coverage;
use dash_pipeline::plan::Resimulation;
use dash_wire::drop::DropReason;
use dash_wire::stats::{EniStat, PortStat};
use nic_sim::describe;
use nic_target::{Capacity, Frame, PacketEngine, Verdict};
use serde_json::Value;

use super::format::{Both, FilterText, Scenario, ScenarioFile, Step};
use super::packet::Bytes;
use crate::engines::{EngineName, start};
use crate::life::flow_actions;

const ENI_PREFIX: &str = "SAI_ENI_STAT_";
const PORT_PREFIX: &str = "SAI_PORT_STAT_";

/// What came of a scenario on one engine, for comparing engines with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What left for each packet that came in.
    pub out: Vec<Option<Vec<u8>>>,
    /// Counters at the end.
    pub counters: Value,
    /// Flows at the end.
    pub flows: String,
}

/// One thing that is not as the scenario says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Where: a step, or the end.
    pub place: String,
    /// Expected and found, for a person; may be several lines.
    pub what: String,
}

/// A scenario that ran to its end.
#[derive(Clone, Debug)]
pub struct Report {
    /// What came of it.
    pub outcome: Outcome,
    /// What is not as it should be; empty when it passed.
    pub mismatches: Vec<Mismatch>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Runs a scenario. `judge` decides of its code, `cache_dir` is for its verdicts.
///
/// # Errors
/// It cannot run: the engine does not start, the scenario is not well written, its configuration
/// is refused.
pub fn run(
    file: &ScenarioFile,
    engine: EngineName,
    judge: Judge,
    cache_dir: Option<PathBuf>,
) -> Result<Report> {
    let mut engine = start(engine, options(file, engine, judge, cache_dir)?)?;
    run_on(file, &mut engine)
}

/// Runs a scenario on the reference model and tells what of the pipeline its packets reached.
///
/// # Errors
/// As [`run`].
pub fn cover(
    file: &ScenarioFile,
    judge: Judge,
    cache_dir: Option<PathBuf>,
) -> Result<(Report, Coverage)> {
    let options = options(file, EngineName::Model, judge, cache_dir)?;
    let mut model = Model::new(&options.capacity);
    model.record_coverage(&file.name);
    let mut engine = Engine::new(options, Box::new(model))?;
    let report = run_on(file, &mut engine)?;
    let coverage = engine.target_mut().take_coverage();
    Ok((report, coverage))
}

fn options(
    file: &ScenarioFile,
    engine: EngineName,
    judge: Judge,
    cache_dir: Option<PathBuf>,
) -> Result<Options> {
    let scenario = &file.scenario;
    let capacity = engine.capacity();
    Ok(Options {
        settings: scenario.settings.settings()?,
        capacity: Capacity {
            flows: scenario.flow_capacity.unwrap_or(capacity.flows),
            ..capacity
        },
        judge,
        cache_dir,
        store: StoreOptions {
            update_bound_groups: scenario.update_bound_groups,
            ..StoreOptions::default()
        },
        ..Options::default()
    })
}

fn run_on<T: PacketEngine + ?Sized>(file: &ScenarioFile, engine: &mut Engine<T>) -> Result<Report> {
    let scenario = &file.scenario;
    let mut run = Run {
        file,
        engine,
        now_ns: 0,
        out: Vec::new(),
        mismatches: Vec::new(),
    };
    file.config()?.commit(run.engine)?;
    if let Some(underlay) = &scenario.underlay {
        run.engine.set_underlay(underlay.table()?)?;
    }
    for (at, step) in scenario.steps.iter().enumerate() {
        let place = place(at, step);
        run.step(&place, step).with_context(|| place.clone())?;
    }
    run.end(scenario)
}

fn place(at: usize, step: &Step) -> String {
    match &step.note {
        Some(note) => format!("step {} ({note})", at + 1),
        None => format!("step {}", at + 1),
    }
}

struct Run<'a, T: PacketEngine + ?Sized> {
    file: &'a ScenarioFile,
    engine: &'a mut Engine<T>,
    now_ns: u64,
    out: Vec<Option<Vec<u8>>>,
    mismatches: Vec<Mismatch>,
}

impl<T: PacketEngine + ?Sized> Run<'_, T> {
    fn step(&mut self, place: &str, step: &Step) -> Result<()> {
        let kinds = [
            step.input.is_some(),
            step.config.is_some(),
            step.underlay.is_some(),
            step.advance_ms.is_some(),
            step.settings.is_some(),
            step.resimulate.is_some(),
            step.find_flows.is_some(),
            step.delete_flows.is_some(),
        ];
        if kinds.iter().filter(|set| **set).count() != 1 {
            bail!(
                "a step is one of `in`, `config`, `settings`, `underlay`, `advance_ms`, `resimulate`, `find_flows` and `delete_flows`"
            );
        }
        if let Some(underlay) = &step.underlay {
            self.engine.set_underlay(underlay.table()?)?;
        }
        self.flow_step(place, step)?;
        if let Some(rows) = &step.config {
            self.file.rows(rows)?.commit(self.engine)?;
        }
        if let Some(settings) = &step.settings {
            self.engine.set_settings(settings.settings()?)?;
        }
        if let Some(ms) = step.advance_ms {
            self.now_ns += ms * 1_000_000;
            self.engine.target_mut().advance(self.now_ns);
        }
        if let Some(input) = &step.input {
            if let Some(ms) = step.at_ms {
                let at = ms * 1_000_000;
                if at < self.now_ns {
                    bail!(
                        "at_ms goes back: it is {} ms already",
                        self.now_ns / 1_000_000
                    );
                }
                self.now_ns = at;
            }
            let expected = step
                .out
                .as_ref()
                .map(|out| out.bytes().context("out"))
                .transpose()?;
            let fate = Fate::of(step, expected)?;
            self.packet(place, &input.bytes().context("in")?, &fate)?;
            self.check_injected(place, step)?;
        }
        if let Some(flows) = step.flows {
            let found = self.engine.flow_count()?;
            if found != flows {
                self.differs(place, format!("{flows} flows expected, {found} live"));
            }
        }
        Ok(())
    }

    fn packet(&mut self, place: &str, input: &Bytes, fate: &Fate) -> Result<()> {
        let before = self.drops()?;
        let mut frame = Frame::new();
        if !frame.fill(&input.data) {
            bail!("a packet of {} bytes is too long", input.data.len());
        }
        frame.timestamp_ns = self.now_ns;
        let verdict = self.engine.target_mut().run(&mut frame)?;
        let port = match verdict {
            Verdict::Send(port) => Some(port),
            _ => None,
        };
        let found = port.map(|_| frame.data().to_vec());
        let came = || format!("  in       {}", describe(&input.data));

        match (fate, &found) {
            (Fate::Out(expected, wanted), Some(found)) => {
                if let Some(difference) = difference(expected, found) {
                    self.differs(
                        place,
                        format!("the packet differs\n{}\n{difference}", came()),
                    );
                }
                if let (Some(wanted), Some(port)) = (*wanted, port)
                    && wanted != port
                {
                    self.differs(place, format!("it left by port {port}, not {wanted}"));
                }
            }
            (Fate::Out(expected, _), None) => self.differs(
                place,
                format!(
                    "nothing left ({verdict:?})\n{}\n  expected {}",
                    came(),
                    describe(&expected.data)
                ),
            ),
            (Fate::Drop(_) | Fate::Pass | Fate::Consumed, Some(found)) => self.differs(
                place,
                format!(
                    "a packet left that should {}\n{}\n  found    {}",
                    if matches!(fate, Fate::Pass) {
                        "go to control"
                    } else {
                        "drop"
                    },
                    came(),
                    describe(found)
                ),
            ),
            // Control sees what waits for a neighbour's address, and asks for it.
            (Fate::Drop(DropReason::NeighborMiss) | Fate::Pass, None) => {
                if verdict != Verdict::Pass {
                    self.differs(place, format!("{verdict:?}, and control does not see it"));
                }
            }
            (Fate::Drop(_) | Fate::Consumed, None) => {
                if verdict != Verdict::Drop {
                    self.differs(place, format!("{verdict:?} instead of a drop"));
                }
            }
        }
        self.check_reason(place, &before, fate.reason())?;
        self.out.push(found);
        Ok(())
    }

    /// What the engine sent of itself is what the step says, in order.
    fn check_injected(&mut self, place: &str, step: &Step) -> Result<()> {
        let mut found = Vec::new();
        while let Some((_, frame)) = self.engine.target_mut().injected() {
            found.push(frame);
        }
        if found.len() != step.injected.len() {
            let frames: Vec<_> = found.iter().map(|frame| describe(frame)).collect();
            let frames = frames.join("\n  ");
            let expected = step.injected.len();
            self.differs(
                place,
                format!("{expected} injected frames expected, found\n  {frames}"),
            );
        }
        for (expected, found) in step.injected.iter().zip(&found) {
            let expected = expected.bytes().context("injected")?;
            if let Some(difference) = difference(&expected, found) {
                self.differs(place, format!("an injected packet differs\n{difference}"));
            }
        }
        self.out.extend(found.into_iter().map(Some));
        Ok(())
    }

    /// A step about flows.
    fn flow_step(&mut self, place: &str, step: &Step) -> Result<()> {
        if let Some(what) = &step.resimulate {
            let how = Resimulation {
                per_second: what.per_second,
                keep: flow_actions(&what.keep)?,
            };
            let eni = what.eni.as_str().into();
            if !self
                .engine
                .resimulate(&eni, &filters(&what.filters)?, how)?
            {
                bail!("there is no ENI {}", what.eni);
            }
        }
        if let Some(what) = &step.find_flows {
            let found = self
                .engine
                .find_flows(&selection(&what.eni, &what.filters)?)?;
            let lines = found.jsonl();
            if lines.lines().count() != what.lines {
                self.differs(
                    place,
                    format!("{} flow lines expected, found:\n{lines}", what.lines),
                );
            }
        }
        if let Some(what) = &step.delete_flows {
            let which = selection(&what.eni, &what.filters)?;
            let deleted = self.engine.delete_flows(&which)?;
            if deleted != what.deleted {
                self.differs(
                    place,
                    format!("{} flows to delete expected, {deleted} found", what.deleted),
                );
            }
        }
        Ok(())
    }

    /// Exactly the counters of the reason move, by one; without a reason, no drop counter does.
    fn check_reason(
        &mut self,
        place: &str,
        before: &Drops,
        reason: Option<DropReason>,
    ) -> Result<()> {
        let after = self.drops()?;
        let moved: BTreeMap<&str, u64> = after
            .iter()
            .map(|(name, n)| (*name, n - before.get(name).copied().unwrap_or(0)))
            .filter(|(_, n)| *n > 0)
            .collect();
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        if let Some(reason) = reason {
            expected.extend(reason.eni_stats().iter().map(|s| (s.name(), 1)));
            expected.extend(reason.port_stats().iter().map(|s| (s.name(), 1)));
        }
        if moved != expected {
            let reason = reason.map_or("no drop", DropReason::name);
            self.differs(
                place,
                format!("{reason} moves {expected:?}, but {moved:?} moved"),
            );
        }
        Ok(())
    }

    /// Every counter that some drop reason moves or whose name says drop, summed over ENIs.
    fn drops(&mut self) -> Result<Drops> {
        let reasons = DropReason::ALL.iter();
        let named = EniStat::ALL.iter().filter(|s| s.name().contains("_DROP_"));
        let eni: BTreeSet<EniStat> = reasons
            .clone()
            .flat_map(|r| r.eni_stats())
            .chain(named)
            .copied()
            .collect();
        // Bytes are as many as the packet has.
        let named = PortStat::ALL
            .iter()
            .filter(|s| s.name().contains("_DROP_") && !s.name().ends_with("_BYTES"));
        let port: BTreeSet<PortStat> = reasons
            .flat_map(|r| r.port_stats())
            .chain(named)
            .copied()
            .collect();
        let counters = self.engine.counters()?;
        let value =
            |block: &Value, name: &str| block.get(name).and_then(Value::as_u64).unwrap_or(0);
        let enis: Vec<&Value> = counters["eni"]
            .as_object()
            .into_iter()
            .flat_map(|o| o.values())
            .collect();
        let mut drops = Drops::new();
        for stat in eni {
            drops.insert(
                stat.name(),
                enis.iter().map(|block| value(block, stat.name())).sum(),
            );
        }
        for stat in port {
            drops.insert(stat.name(), value(&counters["port"], stat.name()));
        }
        Ok(drops)
    }

    fn end(mut self, scenario: &Scenario) -> Result<Report> {
        let counters = self.engine.counters()?;
        let flows = self.engine.flows_jsonl()?;
        self.check_counters(scenario, &counters)?;
        self.check_meters(scenario, &counters);
        let live = self.engine.flow_count()?;
        if live != scenario.flows {
            self.differs(
                "end",
                format!("{} flows expected, {live} live:\n{flows}", scenario.flows),
            );
        }
        let lines: Vec<Value> = flows
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        for wanted in &scenario.flow_lines {
            let holds = |line: &&Value| {
                wanted
                    .iter()
                    .all(|(name, value)| line.get(name) == Some(value))
            };
            let found = lines.iter().filter(holds).count();
            if found != 1 {
                let wanted = Value::Object(wanted.clone());
                self.differs(
                    "end",
                    format!("{found} flow lines hold {wanted}; all lines:\n{flows}"),
                );
            }
        }
        let outcome = Outcome {
            out: self.out,
            counters,
            flows,
        };
        Ok(Report {
            outcome,
            mismatches: self.mismatches,
        })
    }

    fn check_counters(&mut self, scenario: &Scenario, counters: &Value) -> Result<()> {
        let mut expected = Expected::default();
        for (eni, names) in &scenario.counters.eni {
            for (name, value) in names {
                expected.eni(eni, name, *value)?;
            }
        }
        for (eni, traffic) in &scenario.traffic {
            expected.traffic(eni, "OUTBOUND_", traffic.outbound)?;
            expected.traffic(eni, "INBOUND_", traffic.inbound)?;
        }
        for (name, value) in &scenario.counters.port {
            let name = format!("{PORT_PREFIX}{name}");
            if !PortStat::ALL.iter().any(|s| s.name() == name) {
                bail!("{name} is no counter");
            }
            expected.0.insert(("port".to_owned(), name), *value);
        }
        let mut blocks: Vec<(String, &Value)> = vec![("port".to_owned(), &counters["port"])];
        for (eni, block) in counters["eni"].as_object().into_iter().flatten() {
            blocks.push((format!("eni {eni}"), block));
        }
        for (owner, block) in blocks {
            for (name, value) in block.as_object().into_iter().flatten() {
                let want = expected
                    .0
                    .remove(&(owner.clone(), name.clone()))
                    .unwrap_or(0);
                if value.as_u64() != Some(want) {
                    self.differs(
                        "end",
                        format!("{owner} {name}: {want} expected, {value} found"),
                    );
                }
            }
        }
        for ((owner, name), want) in expected.0 {
            self.differs(
                "end",
                format!("{owner} {name}: {want} expected, but there is no such block"),
            );
        }
        Ok(())
    }

    /// Every bucket that moved is expected, and the other way round.
    fn check_meters(&mut self, scenario: &Scenario, counters: &Value) {
        let bytes = |bucket: &Value, way: &str| {
            let name = format!("SAI_METER_BUCKET_ENTRY_STAT_{way}_BYTES");
            bucket[name.as_str()].as_u64().unwrap_or(0)
        };
        let mut found = BTreeMap::<String, BTreeMap<u32, (u64, u64)>>::new();
        for bucket in counters["meter"].as_array().into_iter().flatten() {
            let eni = bucket["eni"].as_str().unwrap_or_default().to_owned();
            let class = bucket["meter_class"].as_u64().unwrap_or(0) as u32;
            let moved = (bytes(bucket, "OUTBOUND"), bytes(bucket, "INBOUND"));
            found.entry(eni).or_default().insert(class, moved);
        }
        if found != scenario.counters.meter {
            let expected = &scenario.counters.meter;
            self.differs(
                "end",
                format!(
                    "metering buckets (outbound, inbound): {expected:?} expected, {found:?} found"
                ),
            );
        }
    }

    fn differs(&mut self, place: &str, what: String) {
        self.mismatches.push(Mismatch {
            place: place.to_owned(),
            what,
        });
    }
}

/// What must become of a packet.
enum Fate {
    /// It leaves like this, by this port if one is named.
    Out(Bytes, Option<u16>),
    Drop(DropReason),
    /// Control gets it, uncounted.
    Pass,
    /// It ends in the pipeline, and that is no drop.
    Consumed,
}

impl Fate {
    fn of(step: &Step, out: Option<Bytes>) -> Result<Self> {
        if step.consumed {
            return match (out, &step.drop, step.pass) {
                (None, None, false) => Ok(Self::Consumed),
                _ => {
                    bail!("what is consumed neither leaves, nor is dropped, nor passes to control")
                }
            };
        }
        match (out, &step.drop, step.pass) {
            (Some(out), None, false) => Ok(Self::Out(out, step.port)),
            (None, Some(name), false) => {
                let reason = DropReason::by_name(name);
                reason
                    .map(Self::Drop)
                    .ok_or_else(|| anyhow!("`{name}` is no drop reason"))
            }
            (None, None, true) => Ok(Self::Pass),
            (None, None, false) => bail!("a packet that does not leave needs the reason in `drop`"),
            _ => bail!("a packet leaves, is dropped or passes to control"),
        }
    }

    fn reason(&self) -> Option<DropReason> {
        match self {
            Self::Drop(reason) => Some(*reason),
            Self::Out(..) | Self::Pass | Self::Consumed => None,
        }
    }
}

fn filters(texts: &[FilterText]) -> Result<Vec<Filter>> {
    let parse = |(field, op, value): &FilterText| Ok(Filter::parse(field, op, value)?);
    texts.iter().map(parse).collect()
}

fn selection(eni: &Option<String>, texts: &[FilterText]) -> Result<FlowSelection> {
    Ok(FlowSelection {
        eni: eni.as_deref().map(EniKey::from),
        filters: filters(texts)?,
        ..FlowSelection::ALL
    })
}

type Drops = BTreeMap<&'static str, u64>;

/// Counters that are not 0 at the end, by block and name.
#[derive(Default)]
struct Expected(BTreeMap<(String, String), u64>);

impl Expected {
    fn eni(&mut self, eni: &str, name: &str, value: u64) -> Result<()> {
        let name = format!("{ENI_PREFIX}{name}");
        if !EniStat::ALL.iter().any(|s| s.name() == name) {
            bail!("{name} is no counter");
        }
        *self.0.entry((format!("eni {eni}"), name)).or_default() += value;
        Ok(())
    }

    fn traffic(&mut self, eni: &str, direction: &str, both: Both) -> Result<()> {
        for (way, (packets, bytes)) in [("RX", both.rx), ("TX", both.tx)] {
            for prefix in ["", direction] {
                self.eni(eni, &format!("{prefix}{way}_PACKETS"), packets)?;
                self.eni(eni, &format!("{prefix}{way}_BYTES"), bytes)?;
            }
        }
        Ok(())
    }
}

/// Summaries and the rows around the first byte that differs; `None` when nothing that matters
/// does.
fn difference(expected: &Bytes, found: &[u8]) -> Option<String> {
    let (want, have) = (expected.masked(&expected.data), expected.masked(found));
    if want == have {
        return None;
    }
    let common = want.iter().zip(&have).position(|(a, b)| a != b);
    let first = common.unwrap_or(want.len().min(have.len()));
    let rows = first / 16..(first / 16 + 2);
    let dump = |name: &str, data: &[u8]| -> String {
        rows.clone()
            .map(|row| {
                let bytes = data
                    .iter()
                    .skip(row * 16)
                    .take(16)
                    .map(|b| format!("{b:02x}"));
                format!(
                    "  {name} {:04x}  {}\n",
                    row * 16,
                    bytes.collect::<Vec<_>>().join(" ")
                )
            })
            .collect()
    };
    Some(format!(
        "  expected {}\n  found    {}\n  {} bytes expected, {} found; first difference at byte {first} ({first:#06x})\n{}{}",
        describe(&expected.data),
        describe(found),
        want.len(),
        have.len(),
        dump("expected", &want),
        dump("found   ", &have).trim_end(),
    ))
}
