//! A client of the service, and the compiler of its programs.

use std::path::Path;
use std::process::Command;

use dash_proto::dashwire::v1 as wire;
use dash_proto::dashwire::v1::programs_client::ProgramsClient;
use dash_proto::dashwire::v1::update_map_request::To;
use tonic::Status;
use tonic::transport::Channel;
use wire::HookPoint;

use crate::support::Daemon;

/// What clang makes of C with `dash_bpf.h`; `None`, said on stderr, where it does not.
pub(crate) fn clang(source: &str) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let (c, o) = (folder.path().join("p.c"), folder.path().join("p.o"));
    std::fs::write(&c, source).unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../offload/prog/include");
    let done = Command::new("clang")
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g"])
        // Where Debian has <asm/types.h>.
        .args(["-I", "/usr/include/x86_64-linux-gnu"])
        .args(["-I", "/usr/include/aarch64-linux-gnu", "-I"])
        .arg(include)
        .arg("-c")
        .arg(&c)
        .arg("-o")
        .arg(&o)
        .output();
    match done {
        Ok(output) if output.status.success() => Some(std::fs::read(&o).unwrap()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!text.contains("p.c:"), "{text}");
            eprintln!("SKIP: clang does not compile for eBPF: {text}");
            None
        }
        Err(why) => {
            eprintln!("SKIP: no clang: {why}");
            None
        }
    }
}

/// The service, asked by a test.
pub(crate) struct Client(pub(crate) ProgramsClient<Channel>);

impl Client {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Self(ProgramsClient::new(daemon.channel.clone()))
    }

    pub(crate) async fn load(
        &mut self,
        name: &str,
        elf: &[u8],
    ) -> Result<wire::ProgramObject, Status> {
        let request = wire::LoadProgramRequest {
            name: name.to_owned(),
            elf: vec![elf.to_vec()],
            metrics: match name {
                "test" => vec!["seen".to_owned()],
                _ => vec![],
            },
            ..wire::LoadProgramRequest::default()
        };
        let response = self.0.load(request).await?;
        Ok(response.into_inner().object.unwrap())
    }

    pub(crate) async fn attach(
        &mut self,
        program: &str,
        point: HookPoint,
        eni: &str,
        sequence: u32,
    ) -> Result<u32, Status> {
        let request = wire::AttachRequest {
            program: program.to_owned(),
            point: point.into(),
            eni: eni.to_owned(),
            sequence,
            ..wire::AttachRequest::default()
        };
        Ok(self.0.attach(request).await?.into_inner().link)
    }

    pub(crate) async fn replace(&mut self, link: u32, program: &str) -> Result<u32, Status> {
        let request = wire::AttachRequest {
            program: program.to_owned(),
            replace: link,
            ..wire::AttachRequest::default()
        };
        Ok(self.0.attach(request).await?.into_inner().link)
    }

    pub(crate) async fn detach(&mut self, link: u32) -> Result<(), Status> {
        let request = wire::DetachRequest { link };
        self.0.detach(request).await.map(drop)
    }

    pub(crate) async fn links(&mut self) -> Vec<wire::ProgramLink> {
        let list = self.0.list_programs(wire::ListProgramsRequest {}).await;
        list.unwrap().into_inner().links
    }

    pub(crate) async fn link(&mut self, id: u32) -> wire::ProgramLink {
        let links = self.links().await;
        links.into_iter().find(|link| link.id == id).unwrap()
    }

    pub(crate) async fn write(&mut self, map: &str, key: &[u8], to: To) -> Result<(), Status> {
        let request = wire::UpdateMapRequest {
            map: map.to_owned(),
            key: key.to_vec(),
            to: Some(to),
            flags: 0,
        };
        self.0.update_map(request).await.map(drop)
    }

    pub(crate) async fn verdict(&mut self, place: u32, verdict: u32) {
        let to = To::Value(verdict.to_ne_bytes().to_vec());
        let done = self.write("test/verdicts", &place.to_ne_bytes(), to).await;
        done.unwrap();
    }

    pub(crate) async fn read(
        &mut self,
        map: &str,
        key: &[u8],
        take: bool,
    ) -> Result<Option<Vec<u8>>, Status> {
        let request = wire::LookupMapRequest {
            map: map.to_owned(),
            key: key.to_vec(),
            take,
        };
        let response = self.0.lookup_map(request).await?.into_inner();
        Ok(response.element.map(|element| element.value))
    }

    /// The count of packets at a place.
    pub(crate) async fn seen(&mut self, place: u32) -> u64 {
        let value = self.read("test/seen", &place.to_ne_bytes(), false).await;
        u64::from_ne_bytes(value.unwrap().unwrap()[..8].try_into().unwrap())
    }

    /// Which programs ran since it was asked last.
    pub(crate) async fn order(&mut self) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(value) = self.read("test/order", &[], true).await.unwrap() {
            all.push(u32::from_ne_bytes(value.try_into().unwrap()));
        }
        all
    }

    pub(crate) async fn dump(&mut self, map: &str) -> Result<Vec<wire::MapElement>, Status> {
        let request = wire::DumpMapRequest {
            map: map.to_owned(),
        };
        let (mut parts, mut all) = (self.0.dump_map(request).await?.into_inner(), Vec::new());
        while let Some(part) = parts.message().await? {
            all.extend(part.elements);
        }
        Ok(all)
    }
}
