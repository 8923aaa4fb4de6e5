//! Programs of users: objects that are loaded, and links that attach their programs.
//!
//! Everything here is the control thread's and lives as long as the process. An object holds its maps;
//! a link holds a program and what it counts at one point. Whatever changes, all links together become
//! one new set of hooks, which workers take between two bursts; if that fails, the links are as they
//! were.
//!
//! Links of ENIs name the ENI by key. While there is no such ENI they wait; before a transaction that
//! deletes an ENI its links are taken out, as its index may be another's next.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use dash_bpf::map::Pinning;
use dash_bpf::{MapDef, MapKind};
use dash_engine::Engine;
use dash_model::key::EniKey;
use dash_model::{Action, ObjectKey, Txn};
use dash_prog::set::memory;
use dash_prog::{LoadOptions, Loaded, Map, Pins, Program};
use dash_runtime::hooks::{Attachment, Hooks, Link, LinkStats, Point};

use crate::dataplane::DataPlane;

mod error;
mod messages;
pub mod service;
pub mod services;

pub use error::ProgramsError;

/// Most objects, most links and most pins: a bound for who may call us.
const MOST: usize = 4_096;
/// Longest name, in bytes.
const LONGEST_NAME: usize = 64;

/// Where a program is attached, as control says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// What a port receives.
    Ingress(u16),
    /// What leaves by a port.
    Egress(u16),
    /// Packets from the VM of an ENI.
    EniOutbound(EniKey),
    /// Packets to the VM of an ENI.
    EniInbound(EniKey),
}

/// An object that is loaded.
#[derive(Debug)]
pub struct Entry {
    /// The object and its maps.
    pub loaded: Loaded,
    /// Maps that are on /metrics.
    pub metrics: Vec<String>,
    /// Gone with the entry: streams of its events end then.
    alive: Arc<()>,
}

/// A program that is attached, or waits for its ENI.
#[derive(Debug)]
pub struct LinkEntry {
    /// OBJECT/PROGRAM.
    pub program: String,
    /// Instruction slots of it.
    pub instructions: usize,
    object: String,
    /// Where.
    pub at: At,
    /// Lower ones run first.
    pub sequence: u32,
    /// Where that is now; `None` while it waits.
    point: Option<Point>,
    link: Arc<Link>,
}

impl LinkEntry {
    /// Whether workers run it.
    pub fn attached(&self) -> bool {
        self.point.is_some()
    }

    /// What it counted.
    pub fn stats(&self) -> LinkStats {
        self.link.stats()
    }

    /// To time its runs.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }
}

/// What is to be attached.
#[derive(Clone, Debug)]
pub struct Request {
    /// OBJECT/PROGRAM, or OBJECT where it has one program.
    pub program: String,
    /// Where, and by which sequence number.
    pub place: Place,
}

/// Where a program is to be.
#[derive(Clone, Debug)]
pub enum Place {
    /// At a point; lower numbers run first.
    New(At, u32),
    /// Where this link's program is, in its place.
    Of(u32),
}

/// A map that was found, and how to tell whether it still would be.
#[derive(Clone, Debug)]
pub struct Found {
    /// The map.
    pub map: Map,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    Object(Weak<()>),
    Pin(Pins, String),
}

impl Found {
    /// Its object is still loaded, or its pin still there.
    pub fn alive(&self) -> bool {
        match &self.by {
            By::Object(object) => object.strong_count() > 0,
            By::Pin(pins, name) => pins.get(name).as_ref() == Some(&self.map),
        }
    }
}

/// All objects, links and pins.
#[derive(Debug, Default)]
pub struct Programs {
    objects: BTreeMap<String, Entry>,
    links: BTreeMap<u32, LinkEntry>,
    pins: Pins,
    last: u32,
    /// The code asks ENIs' programs.
    asks: bool,
}

fn check_name(name: &str) -> Result<(), ProgramsError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match !name.is_empty() && name.len() <= LONGEST_NAME && name.chars().all(legal) {
        true => Ok(()),
        false => Err(ProgramsError::BadName(name.to_owned())),
    }
}

impl Programs {
    /// Objects by name.
    pub fn objects(&self) -> &BTreeMap<String, Entry> {
        &self.objects
    }

    /// Links by number.
    pub fn links(&self) -> &BTreeMap<u32, LinkEntry> {
        &self.links
    }

    /// Maps that outlive objects: those that objects ask to be pinned by name, and those pinned here.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The same maps by the same names, for an object that is being loaded: what it pins is pinned once it is
    /// [added](Self::add).
    pub fn pins_for_loading(&self) -> Pins {
        let pins = Pins::default();
        for (name, map) in self.pins.all() {
            pins.pin(&name, &map);
        }
        pins
    }

    /// Whether an object of this name could be added.
    ///
    /// # Errors
    /// It could not.
    pub fn check(&self, name: &str) -> Result<(), ProgramsError> {
        check_name(name)?;
        if self.objects.contains_key(name) {
            return Err(ProgramsError::Exists(name.to_owned()));
        }
        match self.objects.len() < MOST {
            true => Ok(()),
            false => Err(ProgramsError::Full("objects")),
        }
    }

    /// Adds an object that is loaded, and so was verified.
    ///
    /// # Errors
    /// Its name is no good, or it has no such map for `metrics`.
    pub fn add(
        &mut self,
        name: &str,
        loaded: Loaded,
        metrics: Vec<String>,
    ) -> Result<&Entry, ProgramsError> {
        self.check(name)?;
        let entry = Entry {
            loaded,
            metrics,
            alive: Arc::default(),
        };
        for map in &entry.metrics {
            let def = entry.map(name, map)?.def();
            if !shows_numbers(def) {
                return Err(ProgramsError::NoNumbers {
                    map: map.clone(),
                    kind: dash_prog::map::kind_name(def.kind),
                });
            }
        }
        // Those that were pinned when it was loaded are its own; meanwhile another may have come.
        let mut to_pin = Vec::new();
        for map in entry.loaded.maps() {
            let def = map.def();
            if def.pinning != Pinning::ByName {
                continue;
            }
            match self.pins.get(&def.name) {
                Some(pinned) if pinned == *map => {}
                Some(_) => return Err(ProgramsError::Pinned(def.name.clone())),
                None => to_pin.push(map),
            }
        }
        if self.pins.all().len() + to_pin.len() > MOST {
            return Err(ProgramsError::Full("pinned maps"));
        }
        for map in to_pin {
            self.pins.pin(&map.def().name, map);
        }
        Ok(self.objects.entry(name.to_owned()).or_insert(entry))
    }

    /// Forgets an object.
    ///
    /// # Errors
    /// There is none, or it has links.
    pub fn unload(&mut self, name: &str) -> Result<(), ProgramsError> {
        let links = self.links.iter().filter(|(_, link)| link.object == name);
        let links: Vec<String> = links.map(|(id, _)| id.to_string()).collect();
        if !links.is_empty() {
            return Err(ProgramsError::InUse {
                object: name.to_owned(),
                links: links.join(", "),
            });
        }
        let gone = self.objects.remove(name);
        gone.map(drop)
            .ok_or_else(|| ProgramsError::NoObject(name.to_owned()))
    }

    /// Attaches a program to a data plane of so many ports. Every worker runs it when this returns. Gives the
    /// link's number.
    ///
    /// # Errors
    /// Links are as they were.
    pub fn attach(
        &mut self,
        engine: &mut Engine<DataPlane>,
        ports: usize,
        request: Request,
    ) -> Result<u32, ProgramsError> {
        let (object, program) = self.program(&request.program)?;
        let workers = engine.target().worker_stats().len();
        let full_name = format!("{object}/{}", program.name());
        let link = dash_prog::hook::link(&program, workers as u32);
        let link = link.map_err(|source| ProgramsError::Hook {
            program: full_name.clone(),
            source,
        })?;
        let (id, at, sequence) = match request.place {
            Place::Of(id) => {
                let old = self.links.get(&id).ok_or(ProgramsError::NoLink(id))?;
                (id, old.at.clone(), old.sequence)
            }
            Place::New(..) if self.links.len() >= MOST => {
                return Err(ProgramsError::Full("links"));
            }
            Place::New(at, sequence) => (self.last + 1, at, sequence),
        };
        if let At::Ingress(port) | At::Egress(port) = at
            && usize::from(port) >= ports
        {
            let (port, last) = (port.into(), ports.saturating_sub(1));
            return Err(ProgramsError::NoPort { port, last });
        }
        let entry = LinkEntry {
            program: full_name,
            instructions: program.instructions(),
            object,
            at,
            sequence,
            point: None,
            link: Arc::new(link),
        };
        let before = self.links.insert(id, entry);
        if let Err(error) = self.refresh(engine) {
            match before {
                Some(before) => self.links.insert(id, before),
                None => self.links.remove(&id),
            };
            self.restore(engine);
            return Err(error);
        }
        self.last = self.last.max(id);
        Ok(id)
    }

    /// Detaches a link: no worker runs its program when this returns.
    ///
    /// # Errors
    /// There is no such link, or a worker does not answer; then it is attached still.
    pub fn detach(&mut self, engine: &mut Engine<DataPlane>, id: u32) -> Result<(), ProgramsError> {
        let entry = self.links.remove(&id).ok_or(ProgramsError::NoLink(id))?;
        if let Err(error) = self.refresh(engine) {
            self.links.insert(id, entry);
            self.restore(engine);
            return Err(error);
        }
        Ok(())
    }

    /// Takes links of ENIs out that a transaction deletes. Call [`settle`](Self::settle) after it, whether
    /// or not it was done.
    ///
    /// # Errors
    /// A worker does not answer.
    pub fn before(
        &mut self,
        engine: &mut Engine<DataPlane>,
        txn: &Txn,
    ) -> Result<(), ProgramsError> {
        if self.links.is_empty() {
            return Ok(());
        }
        let gone = txn.ops.iter().filter_map(|op| match (&op.key, &op.action) {
            (ObjectKey::Eni(key), Action::Del) => Some(key),
            _ => None,
        });
        let gone: Vec<&EniKey> = gone.collect();
        let mut any = false;
        for link in self.links.values_mut() {
            if let At::EniOutbound(key) | At::EniInbound(key) = &link.at
                && gone.contains(&key)
            {
                any |= link.point.take().is_some();
            }
        }
        match any {
            true => self.publish(engine),
            false => Ok(()),
        }
    }

    /// Finds the ENIs of links again, after a transaction.
    ///
    /// # Errors
    /// A worker does not answer; links that found their ENI run from the next change on.
    pub fn settle(&mut self, engine: &mut Engine<DataPlane>) -> Result<(), ProgramsError> {
        let stale = |link: &LinkEntry| link.point != resolve(engine, &link.at);
        match self.links.values().any(stale) {
            true => self.refresh(engine),
            false => Ok(()),
        }
    }

    /// The map `OBJECT/MAP`, or the one pinned under a name.
    ///
    /// # Errors
    /// There is none.
    pub fn map(&self, path: &str) -> Result<Found, ProgramsError> {
        let Some((object, map)) = path.split_once('/') else {
            let map = self.pins.get(path);
            return Ok(Found {
                map: map.ok_or_else(|| ProgramsError::NoPin(path.to_owned()))?,
                by: By::Pin(self.pins.clone(), path.to_owned()),
            });
        };
        let entry = self.object(object)?;
        Ok(Found {
            map: entry.map(object, map)?.clone(),
            by: By::Object(Arc::downgrade(&entry.alive)),
        })
    }

    /// The number of a program of the object that a map, as `OBJECT/MAP`, is of: what program arrays take.
    ///
    /// # Errors
    /// The map is of no object, or that has no such program.
    pub fn number(&self, map: &str, program: &str) -> Result<u32, ProgramsError> {
        let (object, _) = map
            .split_once('/')
            .ok_or_else(|| ProgramsError::NoPin(map.to_owned()))?;
        let (_, program) = self.program(&format!("{object}/{program}"))?;
        Ok(program.number())
    }

    /// Makes a map and pins it.
    ///
    /// # Errors
    /// Its name is no good, or there cannot be such a map.
    pub fn create_map(&mut self, def: &MapDef, cpus: u32) -> Result<Map, ProgramsError> {
        self.check_pin(&def.name)?;
        let (bytes, most) = (memory(def, cpus), LoadOptions::default().most_map_bytes);
        if bytes > most {
            return Err(ProgramsError::TooLarge { bytes, most });
        }
        let map = Map::new(def, cpus)?;
        self.pins.pin(&def.name, &map);
        Ok(map)
    }

    /// Gives a map a name by which it outlives its object.
    ///
    /// # Errors
    /// There is no such map, or the name is no good or taken.
    pub fn pin(&mut self, path: &str, name: &str) -> Result<(), ProgramsError> {
        let found = self.map(path)?;
        self.check_pin(name)?;
        self.pins.pin(name, &found.map);
        Ok(())
    }

    /// Takes a name away.
    ///
    /// # Errors
    /// There is none.
    pub fn unpin(&mut self, name: &str) -> Result<(), ProgramsError> {
        match self.pins.unpin(name) {
            true => Ok(()),
            false => Err(ProgramsError::NoPin(name.to_owned())),
        }
    }

    fn check_pin(&self, name: &str) -> Result<(), ProgramsError> {
        check_name(name)?;
        if self.pins.get(name).is_some() {
            return Err(ProgramsError::Pinned(name.to_owned()));
        }
        match self.pins.all().len() < MOST {
            true => Ok(()),
            false => Err(ProgramsError::Full("pinned maps")),
        }
    }

    fn object(&self, name: &str) -> Result<&Entry, ProgramsError> {
        let entry = self.objects.get(name);
        entry.ok_or_else(|| ProgramsError::NoObject(name.to_owned()))
    }

    fn program(&self, path: &str) -> Result<(String, Program), ProgramsError> {
        let (object, name) = match path.split_once('/') {
            Some((object, name)) => (object, Some(name)),
            None => (path, None),
        };
        let entry = self.object(object)?;
        let mut programs: Vec<Program> = entry.loaded.programs().collect();
        let has = || {
            let names: Vec<_> = programs.iter().map(|p| p.name().to_owned()).collect();
            names.join(", ")
        };
        let found = match name {
            Some(name) => programs.iter().position(|program| program.name() == name),
            None if programs.len() == 1 => Some(0),
            None => {
                return Err(ProgramsError::WhichProgram {
                    object: object.to_owned(),
                    count: programs.len(),
                    has: has(),
                });
            }
        };
        let found = found.ok_or_else(|| ProgramsError::NoProgram {
            object: object.to_owned(),
            program: name.unwrap_or_default().to_owned(),
            has: has(),
        })?;
        Ok((object.to_owned(), programs.swap_remove(found)))
    }

    /// Finds where links are, and makes that what runs.
    fn refresh(&mut self, engine: &mut Engine<DataPlane>) -> Result<(), ProgramsError> {
        for link in self.links.values_mut() {
            link.point = resolve(engine, &link.at);
        }
        self.publish(engine)
    }

    fn publish(&mut self, engine: &mut Engine<DataPlane>) -> Result<(), ProgramsError> {
        let attachments = self.links.values().filter_map(|link| {
            Some(Attachment {
                point: link.point?,
                sequence: link.sequence,
                link: Arc::clone(&link.link),
            })
        });
        let hooks = Hooks::new(&attachments.collect::<Vec<_>>());
        let asks = hooks.at_enis();
        if asks && !self.asks {
            engine.set_hooks(true)?;
            self.asks = true;
        }
        engine.target_mut().set_hooks(hooks)?;
        if !asks && self.asks {
            // Code that asks where nobody is costs a call and is right.
            match engine.set_hooks(false) {
                Ok(_) => self.asks = false,
                Err(error) => tracing::warn!(%error, "the code still asks for programs of ENIs"),
            }
        }
        Ok(())
    }

    /// After a change that was not done.
    fn restore(&mut self, engine: &mut Engine<DataPlane>) {
        if let Err(error) = self.refresh(engine) {
            tracing::error!(%error, "programs are not as links say until the next change");
        }
    }
}

impl Entry {
    fn map(&self, object: &str, map: &str) -> Result<&Map, ProgramsError> {
        self.loaded.maps().get(map).ok_or_else(|| {
            let names = self.loaded.maps().iter().map(|map| map.def().name.clone());
            let has: Vec<_> = names.collect();
            ProgramsError::NoMap {
                object: object.to_owned(),
                map: map.to_owned(),
                has: match has.is_empty() {
                    true => "none".to_owned(),
                    false => has.join(", "),
                },
            }
        })
    }
}

/// What is in a map of this kind can be a metric.
fn shows_numbers(def: &MapDef) -> bool {
    matches!(
        def.kind,
        MapKind::Array
            | MapKind::PercpuArray
            | MapKind::Hash
            | MapKind::PercpuHash
            | MapKind::LruHash
            | MapKind::LruPercpuHash
            | MapKind::LpmTrie
    )
}

/// Where a link's place is now.
fn resolve(engine: &Engine<DataPlane>, at: &At) -> Option<Point> {
    Some(match at {
        At::Ingress(port) => Point::Ingress(*port),
        At::Egress(port) => Point::Egress(*port),
        At::EniOutbound(key) => Point::EniOutbound(engine.eni_index(key)?),
        At::EniInbound(key) => Point::EniInbound(engine.eni_index(key)?),
    })
}
