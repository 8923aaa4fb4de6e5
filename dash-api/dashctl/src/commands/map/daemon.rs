//! `dashctl map ... --daemon`: maps of programs that a daemon runs.

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use dash_bpf::MapDef;
use dash_prog::Element;
use dash_prog::map::kind_by_name;
use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::programs_client::ProgramsClient;
use dash_proto::dashwire::v1::update_map_request::To;
use dashctl::mapfile::{Words, element_json, element_text};
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::Channel;

use super::{print, print_element};
use crate::cli::{Connection, MapCommand, MapCreate, MapEvents, MapPin, Output, Runs};
use crate::commands::programs;

/// Who is asked.
pub(super) struct Daemon<'a> {
    address: &'a str,
    connection: &'a Connection,
}

/// The daemon that a command is for, if it is for one.
pub(super) fn of(command: &MapCommand) -> Option<Daemon<'_>> {
    let place = match command {
        MapCommand::Show(place) => place,
        MapCommand::Create(args) => &args.place,
        MapCommand::Dump(args) => &args.place,
        MapCommand::Lookup(args) | MapCommand::Update(args) | MapCommand::Delete(args) => {
            &args.place
        }
        MapCommand::Pin(args) => &args.place,
        MapCommand::Pop(map) | MapCommand::Unpin(map) => return Some(Daemon::at(&map.daemon)),
        MapCommand::Events(args) => return Some(Daemon::at(&args.map.daemon)),
    };
    let address = place.daemon.as_deref()?;
    Some(Daemon {
        address,
        connection: &place.connection,
    })
}

impl<'a> Daemon<'a> {
    fn at(Runs { daemon, connection }: &'a Runs) -> Self {
        Self {
            address: daemon,
            connection,
        }
    }

    fn call<R>(
        &self,
        ask: impl AsyncFnOnce(ProgramsClient<Channel>) -> Result<R, Status>,
    ) -> Result<R> {
        programs::call(self.address, self.connection, ask)
    }

    pub(super) fn run(&self, command: &MapCommand, output: Output) -> Result<()> {
        match command {
            MapCommand::Show(_) => return self.show(output),
            MapCommand::Create(args) => self.create(args)?,
            MapCommand::Dump(args) => return self.dump(&args.name, output),
            MapCommand::Lookup(args) => {
                let key = words(&args.words)?.key;
                return self.element(&args.name, key, false, output);
            }
            MapCommand::Pop(map) => return self.element(&map.name, Vec::new(), true, output),
            MapCommand::Update(args) => self.update(&args.name, &args.words)?,
            MapCommand::Delete(args) => {
                let request = wire::DeleteMapRequest {
                    map: args.name.clone(),
                    key: words(&args.words)?.key,
                };
                self.call(async |mut client| client.delete_map(request).await)?;
            }
            MapCommand::Pin(args) => self.pin(args)?,
            MapCommand::Unpin(map) => {
                let request = wire::UnpinMapRequest {
                    name: map.name.clone(),
                };
                self.call(async |mut client| client.unpin_map(request).await)?;
            }
            MapCommand::Events(args) => return self.events(args, output),
        }
        output.done()
    }

    fn show(&self, output: Output) -> Result<()> {
        let request = wire::ListProgramsRequest {};
        let list = self.call(async |mut client| client.list_programs(request).await)?;
        let wire::ListProgramsResponse {
            objects, pinned, ..
        } = list.into_inner();
        let maps = objects.into_iter().flat_map(|object| object.maps);
        let maps: Vec<_> = maps.chain(pinned).collect();
        if output.wanted() {
            return output.json(&maps.iter().map(about).collect());
        }
        let lines = maps.iter().map(|map| {
            format!(
                "{}: {}  flags {:#x}  key {}B  value {}B  max_entries {}  {} elements  id {}{}\n",
                map.name,
                map.kind,
                map.flags,
                map.key_size,
                map.value_size,
                map.max_entries,
                map.entries,
                map.id,
                if map.metrics { "  on /metrics" } else { "" },
            )
        });
        print(&lines.collect::<String>())
    }

    fn create(&self, args: &MapCreate) -> Result<()> {
        let request = wire::CreateMapRequest {
            name: args.name.clone(),
            kind: args.kind.clone(),
            key_size: args.key,
            value_size: args.value,
            max_entries: args.entries,
            flags: args.flags,
        };
        self.call(async |mut client| client.create_map(request).await)
            .map(drop)
    }

    fn element(&self, map: &str, key: Vec<u8>, take: bool, output: Output) -> Result<()> {
        let request = wire::LookupMapRequest {
            map: map.to_owned(),
            key,
            take,
        };
        let response = self.call(async |mut client| client.lookup_map(request).await)?;
        let wire::LookupMapResponse { map, element } = response.into_inner();
        let Some(element) = element else {
            bail!("no such element");
        };
        print_element(&definition(map.as_ref())?, &bytes(element), output)
    }

    fn update(&self, map: &str, words: &[String]) -> Result<()> {
        let texts: Vec<&str> = words.iter().map(String::as_str).collect();
        let (words, to) = match texts.as_slice() {
            [key @ .., "value", "map", name] => (key, Some(To::Inner((*name).to_owned()))),
            [key @ .., "value", "program", name] => (key, Some(To::Program((*name).to_owned()))),
            all => (all, None),
        };
        let Words { key, value, flags } = Words::read(words.iter().copied())?;
        let request = wire::UpdateMapRequest {
            map: map.to_owned(),
            key,
            to: Some(to.unwrap_or(To::Value(value))),
            flags,
        };
        self.call(async |mut client| client.update_map(request).await)
            .map(drop)
    }

    fn pin(&self, args: &MapPin) -> Result<()> {
        let map = args.from.to_str().context("OBJECT/MAP is not text")?;
        let request = wire::PinMapRequest {
            map: map.to_owned(),
            name: args.name.clone(),
        };
        self.call(async |mut client| client.pin_map(request).await)
            .map(drop)
    }

    /// Prints elements as they come: there may be more than fit in memory.
    fn dump(&self, map: &str, output: Output) -> Result<()> {
        let request = wire::DumpMapRequest {
            map: map.to_owned(),
        };
        let mut all = Vec::new();
        let count = self.call(async |mut client| {
            let mut parts = client.dump_map(request).await?.into_inner();
            let (mut about, mut count) = (None, 0);
            while let Some(part) = parts.message().await? {
                about = about.or(part.map);
                let def = definition(about.as_ref());
                let def = def.map_err(|error| Status::internal(error.to_string()))?;
                for element in part.elements {
                    count += 1;
                    let element = bytes(element);
                    if output.wanted() {
                        all.push(element_json(&def, &element));
                    } else if print(&element_text(&def, &element)).is_err() {
                        // A reader that went away has had enough.
                        return Ok(count);
                    }
                }
            }
            Ok(count)
        })?;
        if output.wanted() {
            return output.json(&Value::Array(all));
        }
        let plural = if count == 1 { "" } else { "s" };
        print(&format!("Found {count} element{plural}\n"))
    }

    /// Records of a ring buffer or an array of perf events until there are as many as asked for.
    fn events(&self, args: &MapEvents, output: Output) -> Result<()> {
        let request = wire::EventsRequest {
            map: args.map.name.clone(),
        };
        let mut left = args.count.unwrap_or(u64::MAX);
        self.call(async |mut client| {
            let mut events = client.events(request).await?.into_inner();
            let mut out = std::io::stdout().lock();
            while left > 0
                && let Some(batch) = events.message().await?
            {
                for record in batch.records {
                    if left == 0 {
                        break;
                    }
                    left -= 1;
                    let data: String = record.iter().map(|byte| format!("{byte:02x}")).collect();
                    let line = match output.wanted() {
                        true => json!({ "data": data }).to_string(),
                        false => data,
                    };
                    let written = writeln!(out, "{line}").and_then(|()| out.flush());
                    if written.is_err() {
                        // A reader that went away has had enough.
                        left = 0;
                    }
                }
                match batch.lost {
                    0 => {}
                    lost if output.wanted() => {
                        // As above.
                        if writeln!(out, "{}", json!({ "lost": lost })).is_err() {
                            left = 0;
                        }
                    }
                    lost => eprintln!("{lost} records found no room"),
                }
            }
            Ok(())
        })?;
        match left {
            0 => Ok(()),
            _ if args.count.is_none() => Ok(()),
            left => bail!("the map is gone; {left} records were to come"),
        }
    }
}

fn words(words: &[String]) -> Result<Words> {
    Words::read(words.iter().map(String::as_str))
}

fn bytes(element: wire::MapElement) -> Element {
    let wire::MapElement { key, value } = element;
    Element { key, value }
}

/// What is to be known of a map to print its elements.
fn definition(map: Option<&wire::ProgramMap>) -> Result<MapDef> {
    let map = map.context("the daemon does not say what map it is")?;
    let kind = kind_by_name(&map.kind);
    Ok(MapDef {
        name: map.name.clone(),
        kind: kind.with_context(|| format!("no kind of maps is called {:?}", map.kind))?,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        flags: map.flags,
        ..MapDef::default()
    })
}

/// What a map is, as `bpftool map show -j` has it.
pub(in crate::commands) fn about(map: &wire::ProgramMap) -> Value {
    json!({
        "id": map.id,
        "name": map.name,
        "type": map.kind,
        "flags": map.flags,
        "bytes_key": map.key_size,
        "bytes_value": map.value_size,
        "max_entries": map.max_entries,
        "entries": map.entries,
        "cpus": map.cpus,
        "metrics": map.metrics,
    })
}
