//! A port whose wire is a capture file on each side: time is the capture's.

use std::io;
use std::path::{Path, PathBuf};

use nic_target::{Frame, FramePool, Port, Rx, Tx};

use crate::capture::{CaptureError, CaptureReader, CaptureWriter};

/// Reads frames from one file and writes what is sent to another; either may be absent.
#[derive(Debug)]
pub struct PcapPort {
    name: String,
    input: Option<CaptureReader>,
    output: Option<Output>,
    next: Next,
    too_long: u64,
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    writer: Option<CaptureWriter>,
}

/// The packet read ahead, so that a frame is taken from the pool only for a packet that is there.
#[derive(Debug, Default)]
struct Next {
    timestamp_ns: Option<u64>,
    data: Vec<u8>,
}

/// MAC of capture ports: locally administered, the one of the golden packets.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

impl PcapPort {
    /// Opens `input` and creates `output`. Without input the port is at its end at once; without
    /// output what is sent is only counted.
    pub fn open(input: Option<&Path>, output: Option<&Path>) -> Result<Self, CaptureError> {
        if let (Some(input), Some(output)) = (input, output) {
            // By what the names lead to: links and relative paths count.
            if let (Ok(a), Ok(b)) = (input.canonicalize(), output.canonicalize())
                && a == b
            {
                return Err(CaptureError::SameFile {
                    path: output.to_owned(),
                });
            }
        }
        let show = |p: Option<&Path>| p.map_or("-".to_owned(), |p| p.display().to_string());
        Ok(Self {
            name: format!("pcap:in={},out={}", show(input), show(output)),
            input: input.map(CaptureReader::open).transpose()?,
            output: output
                .map(|path| {
                    Ok(Output {
                        path: path.to_owned(),
                        writer: Some(CaptureWriter::create(path)?),
                    })
                })
                .transpose()?,
            next: Next::default(),
            too_long: 0,
        })
    }

    /// Packets of the input left out because no buffer holds them ([`nic_target::frame::MAX_FRAME`]).
    pub fn too_long(&self) -> u64 {
        self.too_long
    }

    /// Writes out what is buffered. Sending afterwards fails; a second call does nothing.
    pub fn finish(&mut self) -> Result<(), CaptureError> {
        match self.output.as_mut().and_then(|o| o.writer.take()) {
            Some(writer) => writer.finish(),
            None => Ok(()),
        }
    }
}

impl Port for PcapPort {
    fn name(&self) -> &str {
        &self.name
    }
    fn mac(&self) -> [u8; 6] {
        MAC
    }
    fn rx(
        &mut self,
        index: u16,
        pool: &mut FramePool,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> io::Result<Rx> {
        let mut received = 0;
        let Some(input) = &mut self.input else {
            return Ok(Rx::End);
        };
        while received < max {
            if self.next.timestamp_ns.is_none() {
                self.next.timestamp_ns = input
                    .read_into(&mut self.next.data)
                    .map_err(io::Error::other)?;
            }
            let Some(timestamp_ns) = self.next.timestamp_ns else {
                return Ok(if received == 0 {
                    Rx::End
                } else {
                    Rx::Received(received)
                });
            };
            let Some(mut frame) = pool.take() else { break };
            self.next.timestamp_ns = None;
            if !frame.fill(&self.next.data) {
                self.too_long += 1;
                pool.give(frame);
                continue;
            }
            frame.port = index;
            frame.timestamp_ns = timestamp_ns;
            burst.push(frame);
            received += 1;
        }
        Ok(Rx::Received(received))
    }
    fn tx(&mut self, pool: &mut FramePool, frames: &mut Vec<Frame>) -> io::Result<Tx> {
        let mut tx = Tx::default();
        let mut failed = None;
        for frame in frames.drain(..) {
            let written = match &mut self.output {
                None => Ok(()),
                Some(Output {
                    writer: Some(writer),
                    ..
                }) if failed.is_none() => writer
                    .write(frame.timestamp_ns, frame.data())
                    .map_err(io::Error::other),
                Some(output) => Err(io::Error::other(format!(
                    "{} is closed",
                    output.path.display()
                ))),
            };
            match written {
                Ok(()) => {
                    tx.sent += 1;
                    tx.octets += frame.len() as u64;
                }
                Err(e) => {
                    tx.dropped += 1;
                    failed.get_or_insert(e);
                }
            }
            pool.give(frame);
        }
        failed.map_or(Ok(tx), Err)
    }
    fn virtual_time(&self) -> bool {
        true
    }
}
