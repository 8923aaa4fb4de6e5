//! The service `dashwire.v1.Programs`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dash_bpf::MapKind;
use dash_prog::helpers::Services;
use dash_prog::{Element, LoadOptions, Loaded, Map, MapError};
use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::programs_server::Programs as Service;
use dash_verify::{Judge, Policy};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::messages::{self, refused, status};
use super::{Found, ProgramsError, services};
use crate::args::{Args, EngineName};
use crate::control::Control;
use crate::plane::Plane;

/// Longest time a link is timed.
const LONGEST: Duration = Duration::from_secs(60);
/// How often a ring buffer is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Records or elements, and bytes of them, in one message.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 256 << 10;
/// Messages that wait for the client; beyond, records wait in the ring buffer.
const MESSAGES: usize = 8;

/// The service.
#[derive(Clone, Debug)]
pub struct Programs {
    control: Control,
    engine: EngineName,
    options: LoadOptions,
    /// One object is verified at a time: it may take the better part of a core and some memory.
    loading: Arc<Mutex<()>>,
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Programs {
    /// A service over a data plane that was started with `args`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(control: Control, args: &Args) -> Self {
        let options = LoadOptions {
            cache_dir: args.cache.clone(),
            fuel: args.program_fuel,
            cpus: u32::try_from(args.worker_count()).unwrap_or(u32::MAX),
            services: Services {
                print: Some(services::printer()),
                fib: None,
            },
            ..LoadOptions::default()
        };
        Self {
            control,
            engine: args.engine,
            options,
            loading: Arc::default(),
        }
    }

    fn options(&self, request: &wire::LoadProgramRequest) -> Result<LoadOptions, Status> {
        let bad = |field: &str, error: &dyn std::fmt::Display| {
            Status::invalid_argument(format!("{field}: {error}"))
        };
        let engine = match request.engine.as_str() {
            "" => self.engine.as_str(),
            named => named,
        };
        let policy = self.options.policy;
        let judge: Judge = match request.verifier.as_str() {
            "" => policy.judge,
            named => named.parse().map_err(|e| bad("verifier", &e))?,
        };
        Ok(LoadOptions {
            engine: engine.parse().map_err(|e| bad("engine", &e))?,
            policy: Policy { judge, ..policy },
            ..self.options.clone()
        })
    }

    /// Runs a job on the control thread.
    async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Plane) -> Result<R, ProgramsError> + Send + 'static,
    ) -> Result<R, Status> {
        self.control
            .call(job)
            .await?
            .map_err(|error| status(&error))
    }

    async fn find(&self, path: &str) -> Result<Found, Status> {
        let path = path.to_owned();
        self.call(move |plane| plane.programs.map(&path)).await
    }
}

#[tonic::async_trait]
impl Service for Programs {
    type DumpMapStream = Answers<wire::DumpMapResponse>;
    type EventsStream = Answers<wire::EventsResponse>;

    async fn load(
        &self,
        request: Request<wire::LoadProgramRequest>,
    ) -> Answer<wire::LoadProgramResponse> {
        let request = request.into_inner();
        let mut options = self.options(&request)?;
        let wire::LoadProgramRequest {
            name, elf, metrics, ..
        } = request;
        let wanted = name.clone();
        let (pins, fib) = self
            .call(move |plane| {
                plane.programs.check(&wanted)?;
                Ok((plane.programs.pins_for_loading(), plane.underlay.clone()))
            })
            .await?;
        options.pins = Some(pins);
        options.services.fib = Some(fib);
        // Away from the control thread, which has packets to serve.
        let turn = Arc::clone(&self.loading).lock_owned().await;
        let loaded = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let files: Vec<&[u8]> = elf.iter().map(Vec::as_slice).collect();
            Loaded::from_elf(&files, &options)
        });
        let loaded = loaded
            .await
            .map_err(|_| Status::internal("the loader panicked on this object: a bug of ours"))?;
        let object = self
            .call(move |plane| {
                let loaded = loaded.map_err(|source| ProgramsError::Load {
                    name: name.clone(),
                    source: Box::new(source),
                })?;
                let entry = plane.programs.add(&name, loaded, metrics)?;
                Ok(messages::object(&name, entry))
            })
            .await?;
        Ok(Response::new(wire::LoadProgramResponse {
            object: Some(object),
        }))
    }

    async fn unload(
        &self,
        request: Request<wire::UnloadProgramRequest>,
    ) -> Answer<wire::UnloadProgramResponse> {
        let name = request.into_inner().name;
        self.call(move |plane| plane.programs.unload(&name)).await?;
        Ok(Response::new(wire::UnloadProgramResponse {}))
    }

    async fn attach(&self, request: Request<wire::AttachRequest>) -> Answer<wire::AttachResponse> {
        let wanted = messages::attachment(request.into_inner())?;
        let (link, attached) = self
            .call(move |plane| {
                let link = plane.attach(wanted)?;
                let entry = plane.programs.links().get(&link);
                Ok((link, entry.is_some_and(super::LinkEntry::attached)))
            })
            .await?;
        Ok(Response::new(wire::AttachResponse { link, attached }))
    }

    async fn detach(&self, request: Request<wire::DetachRequest>) -> Answer<wire::DetachResponse> {
        let link = request.into_inner().link;
        self.call(move |plane| plane.programs.detach(&mut plane.engine, link))
            .await?;
        Ok(Response::new(wire::DetachResponse {}))
    }

    async fn list_programs(
        &self,
        _: Request<wire::ListProgramsRequest>,
    ) -> Answer<wire::ListProgramsResponse> {
        let list = self.call(|plane| {
            let programs = &plane.programs;
            let objects = programs.objects().iter();
            let links = programs.links().iter();
            let pins = programs.pins().all().into_iter();
            Ok(wire::ListProgramsResponse {
                objects: objects.map(|(name, e)| messages::object(name, e)).collect(),
                links: links.map(|(id, link)| messages::link(*id, link)).collect(),
                pinned: pins
                    .map(|(name, map)| messages::map(name, &map, false))
                    .collect(),
            })
        });
        Ok(Response::new(list.await?))
    }

    async fn profile(
        &self,
        request: Request<wire::ProfileRequest>,
    ) -> Answer<wire::ProfileResponse> {
        let wire::ProfileRequest { link, milliseconds } = request.into_inner();
        let time = Duration::from_millis(milliseconds.into());
        if time.is_zero() || time > LONGEST {
            return Err(Status::invalid_argument(format!(
                "milliseconds: {milliseconds} is not from 1 to {}",
                LONGEST.as_millis()
            )));
        }
        let (link, instructions) = self
            .call(move |plane| {
                let entry = plane.programs.links().get(&link);
                let entry = entry.ok_or(ProgramsError::NoLink(link))?;
                Ok((entry.link().clone(), messages::slots(entry.instructions)))
            })
            .await?;
        let before = link.stats();
        let timing = link.timing();
        tokio::time::sleep(time).await;
        drop(timing);
        let after = link.stats();
        Ok(Response::new(wire::ProfileResponse {
            runs: after.timed - before.timed,
            nanoseconds: after.nanoseconds - before.nanoseconds,
            instructions,
        }))
    }

    async fn create_map(
        &self,
        request: Request<wire::CreateMapRequest>,
    ) -> Answer<wire::CreateMapResponse> {
        let request = request.into_inner();
        let (def, cpus) = (messages::definition(&request)?, self.options.cpus);
        let map = self
            .call(move |plane| plane.programs.create_map(&def, cpus))
            .await?;
        let map = messages::map(request.name, &map, false);
        Ok(Response::new(wire::CreateMapResponse { map: Some(map) }))
    }

    async fn lookup_map(
        &self,
        request: Request<wire::LookupMapRequest>,
    ) -> Answer<wire::LookupMapResponse> {
        let wire::LookupMapRequest {
            map: path,
            key,
            take,
        } = request.into_inner();
        let Found { map, .. } = self.find(&path).await?;
        let value = match take {
            true if map.def().kind.holds_records() => {
                return Err(Status::invalid_argument(format!(
                    "{path} is {}: ask for its events",
                    holder(map.def().kind)
                )));
            }
            true if !key.is_empty() => {
                return Err(Status::invalid_argument(
                    "key: what a queue or stack gives has none",
                ));
            }
            true => map.pop(),
            false => map.lookup(&key),
        };
        let value = value.map_err(|error| refused(&error))?;
        Ok(Response::new(wire::LookupMapResponse {
            element: value.map(|value| messages::element(Element { key, value })),
            map: Some(messages::map(path, &map, false)),
        }))
    }

    async fn dump_map(
        &self,
        request: Request<wire::DumpMapRequest>,
    ) -> Answer<Self::DumpMapStream> {
        let path = request.into_inner().map;
        let Found { map, .. } = self.find(&path).await?;
        if map.def().kind.holds_records() {
            return Err(Status::invalid_argument(format!(
                "{path} is {}: ask for its events",
                holder(map.def().kind)
            )));
        }
        let (out, answers) = mpsc::channel(MESSAGES);
        // On a thread that nobody waits for: there may be millions.
        tokio::task::spawn_blocking(move || {
            let head = Some(messages::map(path, &map, false));
            let mut dump = Dump {
                out,
                batch: wire::DumpMapResponse {
                    map: head,
                    elements: Vec::new(),
                },
                bytes: 0,
            };
            // A client that went away is told nothing.
            let _ = dump.all(&map);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn update_map(
        &self,
        request: Request<wire::UpdateMapRequest>,
    ) -> Answer<wire::UpdateMapResponse> {
        use wire::update_map_request::To;
        let wire::UpdateMapRequest {
            map: path,
            key,
            to,
            flags,
        } = request.into_inner();
        let Found { map, .. } = self.find(&path).await?;
        let done = match to {
            None => return Err(Status::invalid_argument("value: say which")),
            Some(To::Value(value)) => {
                let value = for_all_cpus(&map, value);
                map.update(&key, &value, flags)
            }
            Some(To::Inner(inner)) => {
                let inner = self.find(&inner).await?;
                map.set_map(&key, &inner.map, flags)
            }
            Some(To::Program(_)) if map.def().kind != MapKind::ProgArray => {
                return Err(Status::invalid_argument(format!(
                    "program: {path} is no program array"
                )));
            }
            Some(To::Program(name)) => {
                let number = self.call(move |plane| plane.programs.number(&path, &name));
                map.update(&key, &number.await?.to_ne_bytes(), flags)
            }
        };
        done.map_err(|error| refused(&error))?;
        Ok(Response::new(wire::UpdateMapResponse {}))
    }

    async fn delete_map(
        &self,
        request: Request<wire::DeleteMapRequest>,
    ) -> Answer<wire::DeleteMapResponse> {
        let wire::DeleteMapRequest { map: path, key } = request.into_inner();
        let Found { map, .. } = self.find(&path).await?;
        map.delete(&key).map_err(|error| refused(&error))?;
        Ok(Response::new(wire::DeleteMapResponse {}))
    }

    async fn pin_map(&self, request: Request<wire::PinMapRequest>) -> Answer<wire::PinMapResponse> {
        let wire::PinMapRequest { map, name } = request.into_inner();
        self.call(move |plane| plane.programs.pin(&map, &name))
            .await?;
        Ok(Response::new(wire::PinMapResponse {}))
    }

    async fn unpin_map(
        &self,
        request: Request<wire::UnpinMapRequest>,
    ) -> Answer<wire::UnpinMapResponse> {
        let name = request.into_inner().name;
        self.call(move |plane| plane.programs.unpin(&name)).await?;
        Ok(Response::new(wire::UnpinMapResponse {}))
    }

    async fn events(&self, request: Request<wire::EventsRequest>) -> Answer<Self::EventsStream> {
        let path = request.into_inner().map;
        let found = self.find(&path).await?;
        let def = found.map.def();
        if !def.kind.holds_records() {
            return Err(Status::invalid_argument(format!(
                "{path} is a {}, not a ring buffer or an array of perf events",
                dash_prog::map::kind_name(def.kind)
            )));
        }
        let (out, answers) = mpsc::channel(MESSAGES);
        tokio::spawn(async move {
            let mut told = found.map.lost();
            loop {
                // Room first, so that what was taken out of the ring has somewhere to go.
                let Ok(room) = out.reserve().await else {
                    return;
                };
                // What is there before the map goes is still given.
                let alive = found.alive();
                let (mut records, mut bytes) = (Vec::new(), 0);
                while records.len() < BATCH && bytes < BATCH_BYTES {
                    let Ok(Some(record)) = found.map.pop() else {
                        break;
                    };
                    bytes += record.len();
                    records.push(record);
                }
                let lost = found.map.lost() - told;
                if !records.is_empty() || lost > 0 {
                    told += lost;
                    room.send(Ok(wire::EventsResponse { records, lost }));
                    continue;
                }
                drop(room);
                if !alive {
                    return;
                }
                tokio::select! {
                    () = out.closed() => return,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// What a map that holds records is.
fn holder(kind: MapKind) -> &'static str {
    match kind {
        MapKind::PerfEventArray => "an array of perf events",
        _ => "a ring buffer",
    }
}

/// One value, for all workers: as control sets it in maps per CPU.
fn for_all_cpus(map: &Map, mut value: Vec<u8>) -> Vec<u8> {
    let def = map.def();
    if map.is_per_cpu() && value.len() == def.value_size as usize {
        value.resize(def.stride() as usize, 0);
        value = value.repeat(map.cpus() as usize);
    }
    value
}

/// Elements on their way to a client.
struct Dump {
    out: mpsc::Sender<Result<wire::DumpMapResponse, Status>>,
    batch: wire::DumpMapResponse,
    bytes: usize,
}

/// The client is gone.
struct Gone;

impl Dump {
    fn all(&mut self, map: &Map) -> Result<(), Gone> {
        if let Err(error) = self.each(map)? {
            return self.out.blocking_send(Err(refused(&error))).or(Err(Gone));
        }
        self.send()
    }

    fn each(&mut self, map: &Map) -> Result<Result<(), MapError>, Gone> {
        if map.def().key_size == 0 {
            for element in map.dump() {
                self.give(element)?;
            }
            return Ok(Ok(()));
        }
        // Where programs add and remove meanwhile, keys may come again: never more than fit.
        let mut key = None::<Vec<u8>>;
        for _ in 0..map.def().max_entries {
            let next = match map.next_key(key.as_deref()) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            };
            match map.lookup(&next) {
                Ok(Some(value)) => self.give(Element {
                    key: next.clone(),
                    value,
                })?,
                Ok(None) => {}
                Err(error) => return Ok(Err(error)),
            }
            key = Some(next);
        }
        Ok(Ok(()))
    }

    fn give(&mut self, element: Element) -> Result<(), Gone> {
        self.bytes += element.key.len() + element.value.len();
        self.batch.elements.push(messages::element(element));
        match self.batch.elements.len() >= BATCH || self.bytes >= BATCH_BYTES {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn send(&mut self) -> Result<(), Gone> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.out.blocking_send(Ok(batch)).or(Err(Gone))
    }
}
