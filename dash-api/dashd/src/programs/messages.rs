//! Messages of the service `dashwire.v1.Programs` from and to what they are about.

use dash_model::key::EniKey;
use dash_prog::map::{kind_by_name, kind_name};
use dash_prog::{Element, Map, MapError};
use dash_proto::dashwire::v1 as wire;
use tonic::Status;

use super::{At, Entry, LinkEntry, Place, ProgramsError, Request};

/// Longest key of an ENI, in bytes.
const LONGEST_KEY: usize = 256;

/// An error with its causes, under the code that says what kind it is.
pub(super) fn status(error: &ProgramsError) -> Status {
    use ProgramsError as E;
    // With every cause: the verifier's words are the last.
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    match error {
        E::BadName(_)
        | E::Load { .. }
        | E::WhichProgram { .. }
        | E::NoNumbers { .. }
        | E::NoPort { .. }
        | E::Hook { .. }
        | E::Map(_) => Status::invalid_argument(text),
        E::Exists(_) | E::Pinned(_) => Status::already_exists(text),
        E::Full(_) | E::TooLarge { .. } => Status::resource_exhausted(text),
        E::NoObject(_) | E::NoProgram { .. } | E::NoMap { .. } | E::NoPin(_) | E::NoLink(_) => {
            Status::not_found(text)
        }
        E::InUse { .. } | E::Target(nic_target::TargetError::Unsupported { .. }) => {
            Status::failed_precondition(text)
        }
        E::Code(_) | E::Target(_) => Status::unavailable(text),
    }
}

/// What a map refuses.
pub(super) fn refused(error: &MapError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn map(name: String, map: &Map, metrics: bool) -> wire::ProgramMap {
    let def = map.def();
    wire::ProgramMap {
        name,
        kind: kind_name(def.kind).to_owned(),
        key_size: def.key_size,
        value_size: def.value_size,
        max_entries: def.max_entries,
        entries: map.len(),
        metrics,
        id: map.id(),
        flags: def.flags,
        cpus: map.cpus(),
    }
}

/// The definition of a map that is to be made.
pub(super) fn definition(request: &wire::CreateMapRequest) -> Result<dash_bpf::MapDef, Status> {
    let kind = kind_by_name(&request.kind).ok_or_else(|| {
        Status::invalid_argument(format!("no kind of maps is called {:?}", request.kind))
    })?;
    Ok(dash_bpf::MapDef {
        name: request.name.clone(),
        kind,
        key_size: request.key_size,
        value_size: request.value_size,
        max_entries: request.max_entries,
        flags: request.flags,
        ..dash_bpf::MapDef::default()
    })
}

pub(super) fn element(element: Element) -> wire::MapElement {
    let Element { key, value } = element;
    wire::MapElement { key, value }
}

pub(super) fn object(name: &str, entry: &Entry) -> wire::ProgramObject {
    let programs: Vec<_> = entry.loaded.programs().collect();
    let maps = entry.loaded.maps().iter();
    wire::ProgramObject {
        name: name.to_owned(),
        engine: programs
            .first()
            .map_or("", |program| program.engine().name())
            .to_owned(),
        programs: programs
            .iter()
            .map(|program| wire::Program {
                name: program.name().to_owned(),
                section: program.section().to_owned(),
                instructions: slots(program.instructions()),
            })
            .collect(),
        maps: maps
            .map(|of| {
                let bare = &of.def().name;
                map(format!("{name}/{bare}"), of, entry.metrics.contains(bare))
            })
            .collect(),
    }
}

pub(super) fn slots(instructions: usize) -> u32 {
    u32::try_from(instructions).unwrap_or(u32::MAX)
}

pub(super) fn link(id: u32, link: &LinkEntry) -> wire::ProgramLink {
    let [aborted, dropped, passed, sent_back, redirected] = link.stats().verdicts;
    let (point, port, eni) = match &link.at {
        At::Ingress(port) => (wire::HookPoint::Ingress, *port, ""),
        At::Egress(port) => (wire::HookPoint::Egress, *port, ""),
        At::EniOutbound(key) => (wire::HookPoint::EniOutbound, 0, key.as_str()),
        At::EniInbound(key) => (wire::HookPoint::EniInbound, 0, key.as_str()),
    };
    wire::ProgramLink {
        id,
        program: link.program.clone(),
        point: point.into(),
        port: port.into(),
        eni: eni.to_owned(),
        sequence: link.sequence,
        aborted,
        dropped,
        passed,
        sent_back,
        redirected,
        attached: link.attached(),
    }
}

/// What a request wants attached.
pub(super) fn attachment(request: wire::AttachRequest) -> Result<Request, Status> {
    let wrong = |text: String| Status::invalid_argument(text);
    let place = match (at(&request)?, request.replace) {
        (None, 0) => return Err(wrong("point: say where to attach the program".to_owned())),
        (Some(at), 0) => Place::New(at, request.sequence),
        (None, link) if request.sequence == 0 => Place::Of(link),
        (_, link) => {
            return Err(wrong(format!(
                "replace: point and sequence stay those of link {link}, so give none"
            )));
        }
    };
    Ok(Request {
        program: request.program,
        place,
    })
}

fn at(request: &wire::AttachRequest) -> Result<Option<At>, Status> {
    let wrong = |text: String| Status::invalid_argument(text);
    let port = || match u16::try_from(request.port) {
        _ if !request.eni.is_empty() => Err(wrong(format!(
            "eni: a port's programs see packets of all ENIs, not of {} alone",
            request.eni
        ))),
        Ok(port) => Ok(port),
        Err(_) => Err(wrong(format!("port: there is no port {}", request.port))),
    };
    let eni = || match request.eni.len() {
        0 => Err(wrong("eni: say which".to_owned())),
        1..=LONGEST_KEY => Ok(EniKey::from(request.eni.as_str())),
        long => Err(wrong(format!("eni: a key of {long} bytes"))),
    };
    let point = wire::HookPoint::try_from(request.point)
        .map_err(|_| wrong(format!("point: there is no point {}", request.point)))?;
    Ok(match point {
        wire::HookPoint::Unspecified => None,
        wire::HookPoint::Ingress => Some(At::Ingress(port()?)),
        wire::HookPoint::Egress => Some(At::Egress(port()?)),
        wire::HookPoint::EniOutbound => Some(At::EniOutbound(eni()?)),
        wire::HookPoint::EniInbound => Some(At::EniInbound(eni()?)),
    })
}
