//! `dashctl map`: maps pinned in a folder, and those of a daemon, after bpftool.

mod daemon;

use std::fs;

use anyhow::{Context as _, Result, bail};
use dash_bpf::MapDef;
use dash_prog::map::kind_by_name;
use dash_prog::{Element, Map};
use dashctl::mapfile::{PinDir, Words, about_json, element_json, element_text, map_from_json};
use serde_json::{Value, json};

pub(super) use daemon::about;

use super::prog::print;
use crate::cli::{MapCommand, MapCreate, MapPin, MapPlace, Output};

pub(crate) fn run(command: &MapCommand, output: Output) -> Result<()> {
    if let Some(daemon) = daemon::of(command) {
        return daemon.run(command, output);
    }
    match command {
        MapCommand::Show(place) => show(&folder(place)?, output),
        MapCommand::Create(args) => create(args, output),
        MapCommand::Dump(args) => dump(&folder(&args.place)?.get(&args.name)?, output),
        MapCommand::Lookup(args) => {
            let map = folder(&args.place)?.get(&args.name)?;
            let key = Words::read(args.words.iter().map(String::as_str))?.key;
            let Some(value) = map.lookup(&key)? else {
                bail!("no such element");
            };
            print_element(map.def(), &Element { key, value }, output)
        }
        MapCommand::Update(args) => {
            let pins = folder(&args.place)?;
            let map = pins.get(&args.name)?;
            Words::read(args.words.iter().map(String::as_str))?.set(&map)?;
            pins.put(&args.name, &map)?;
            output.done()
        }
        MapCommand::Delete(args) => {
            let pins = folder(&args.place)?;
            let map = pins.get(&args.name)?;
            let words = Words::read(args.words.iter().map(String::as_str))?;
            map.delete(&words.key)?;
            pins.put(&args.name, &map)?;
            output.done()
        }
        MapCommand::Pin(args) => pin(args, output),
        MapCommand::Pop(_) | MapCommand::Unpin(_) | MapCommand::Events(_) => {
            bail!("say which daemon: --daemon ADDR:PORT")
        }
    }
}

fn folder(place: &MapPlace) -> Result<PinDir> {
    let dir = place.dir.as_ref();
    PinDir::open(dir.context("say where: --pins DIR or --daemon ADDR:PORT")?)
}

/// Prints one element.
fn print_element(def: &MapDef, element: &Element, output: Output) -> Result<()> {
    match output.wanted() {
        true => output.json(&element_json(def, element)),
        false => print(&element_text(def, element)),
    }
}

impl Output {
    /// JSON is wanted.
    pub(super) fn wanted(self) -> bool {
        self.json || self.pretty
    }

    /// Prints JSON, on one line unless it is for people.
    pub(super) fn json(self, value: &Value) -> Result<()> {
        match self.pretty {
            true => print(&format!("{value:#}\n")),
            false => print(&format!("{value}\n")),
        }
    }

    /// What a change says when it is done: nothing, or as bpftool an empty object.
    pub(super) fn done(self) -> Result<()> {
        match self.wanted() {
            true => self.json(&json!({})),
            false => Ok(()),
        }
    }
}

fn show(pins: &PinDir, output: Output) -> Result<()> {
    let names = pins.names()?;
    let maps = names.into_iter().map(|name| Ok((pins.get(&name)?, name)));
    let maps = maps.collect::<Result<Vec<(Map, String)>>>()?;
    if output.wanted() {
        let maps = maps.iter().map(|(map, name)| {
            let mut about = about_json(map);
            about["pinned"] = json!([name]);
            about
        });
        return output.json(&maps.collect());
    }
    let lines = maps.iter().map(|(map, name)| {
        let def = map.def();
        format!(
            "{name}: {}  flags {:#x}  key {}B  value {}B  max_entries {}  {} elements\n",
            dash_prog::map::kind_name(def.kind),
            def.flags,
            def.key_size,
            def.value_size,
            def.max_entries,
            map.len(),
        )
    });
    print(&lines.collect::<String>())
}

fn create(args: &MapCreate, output: Output) -> Result<()> {
    let pins = folder(&args.place)?;
    if pins.names()?.contains(&args.name) {
        bail!("a map is pinned as {} already", args.name);
    }
    let kind = kind_by_name(&args.kind);
    let def = MapDef {
        name: args.name.clone(),
        kind: kind.with_context(|| format!("no kind of maps is called {:?}", args.kind))?,
        key_size: args.key,
        value_size: args.value,
        max_entries: args.entries,
        flags: args.flags,
        ..MapDef::default()
    };
    pins.put(&args.name, &Map::new(&def, 1)?)?;
    output.done()
}

fn dump(map: &Map, output: Output) -> Result<()> {
    let elements = map.dump();
    let def = map.def();
    if output.wanted() {
        let all = elements.iter().map(|element| element_json(def, element));
        return output.json(&all.collect());
    }
    let all = elements.iter().map(|element| element_text(def, element));
    let plural = if elements.len() == 1 { "" } else { "s" };
    let count = format!("Found {} element{plural}\n", elements.len());
    print(&(all.collect::<String>() + &count))
}

fn pin(args: &MapPin, output: Output) -> Result<()> {
    let path = args.from.display();
    let text = fs::read_to_string(&args.from).with_context(|| format!("cannot read {path}"))?;
    let value: Value = serde_json::from_str(&text).with_context(|| path.to_string())?;
    let maps = value
        .as_array()
        .with_context(|| format!("{path} holds no maps"))?;
    let found = maps.iter().find(|map| map["name"] == args.name.as_str());
    let found = found.with_context(|| format!("no map in {path} is called {}", args.name))?;
    let map = map_from_json(found).with_context(|| format!("{path}: {}", args.name))?;
    folder(&args.place)?.put(&args.name, &map)?;
    output.done()
}
