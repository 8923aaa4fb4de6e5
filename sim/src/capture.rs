//! Capture files: pcap (microsecond and nanosecond) and pcapng in, nanosecond pcap out.
//!
//! Reading streams: one packet at a time, whatever the size of the file. A packet that the capture
//! cut short (snap length) is given as it was saved.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::Block;
use pcap_file::pcapng::PcapNgReader;
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError, TsResolution};
use thiserror::Error;

/// Longest packet that is believed: `MAXIMUM_SNAPLEN` of tcpdump.
const MAX_SNAPLEN: u32 = 262_144;

const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const PCAP_MAGICS: [u32; 4] = [0xa1b2_c3d4, 0xd4c3_b2a1, 0xa1b2_3c4d, 0x4d3c_b2a1];

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Time of capture since the epoch, ns.
    pub timestamp_ns: u64,
    /// Its bytes, as many as were saved.
    pub data: Vec<u8>,
}

/// Why a capture could not be read or written. Packets count from 1, as Wireshark shows them.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "fields are what the message says")]
pub enum CaptureError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} is not a capture: it starts with {start:02x?}, which is neither pcap nor pcapng"
    )]
    NotACapture { path: PathBuf, start: Vec<u8> },
    #[error("{path}: bad file header: {reason}")]
    Header { path: PathBuf, reason: String },
    #[error("{path}: packets are of link type {link}, not Ethernet")]
    NotEthernet { path: PathBuf, link: String },
    #[error("{path}: the file ends inside packet {packet}")]
    Truncated { path: PathBuf, packet: u64 },
    #[error("{path}: packet {packet} is corrupt: {reason}")]
    Corrupt {
        path: PathBuf,
        packet: u64,
        reason: String,
    },
    #[error("{path} would be read and emptied at once: write to another file")]
    SameFile { path: PathBuf },
    #[error("{path}: packet {packet} cannot be written: {reason}")]
    Write {
        path: PathBuf,
        packet: u64,
        reason: String,
    },
}

/// Opens a capture and gives its packets in order, reading as it goes.
///
/// ```no_run
/// for packet in nic_sim::read_capture("in.pcap".as_ref())? {
///     println!("{}", nic_sim::describe(&packet?.data));
/// }
/// # Ok::<(), nic_sim::CaptureError>(())
/// ```
pub fn read_capture(path: &Path) -> Result<CaptureReader, CaptureError> {
    CaptureReader::open(path)
}

/// Packets of a capture file. Ends after the first error.
#[derive(Debug)]
pub struct CaptureReader {
    path: PathBuf,
    source: Option<Source>,
    /// Packets read so far.
    count: u64,
}

enum Source {
    Pcap {
        reader: PcapReader<File>,
        nanoseconds: bool,
    },
    Ng {
        reader: PcapNgReader<File>,
        interfaces: Vec<Interface>,
        last_ns: u64,
    },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pcap {
                nanoseconds: false, ..
            } => "pcap, microseconds",
            Self::Pcap {
                nanoseconds: true, ..
            } => "pcap, nanoseconds",
            Self::Ng { .. } => "pcapng",
        })
    }
}

/// What a pcapng interface says about its packets.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: DataLink,
    snaplen: u32,
    /// Ticks a second.
    rate: u128,
    offset_s: u64,
}

impl Interface {
    fn new(block: &InterfaceDescriptionBlock<'_>) -> Self {
        let mut interface = Self {
            link: block.linktype,
            snaplen: block.snaplen,
            rate: 1_000_000,
            offset_s: 0,
        };
        for option in &block.options {
            match *option {
                // The high bit chooses powers of 2 over powers of 10.
                InterfaceDescriptionOption::IfTsResol(r) if r & 0x80 != 0 => {
                    interface.rate = 1 << (r & 0x7f).min(64)
                }
                InterfaceDescriptionOption::IfTsResol(r) => {
                    interface.rate = 10u128.pow(u32::from(r).min(19))
                }
                InterfaceDescriptionOption::IfTsOffset(s) => interface.offset_s = s,
                _ => {}
            }
        }
        interface
    }
    /// `None` where nanoseconds overflow 64 bits (after the year 2554).
    fn nanoseconds(self, ticks: u64) -> Option<u64> {
        let ns = u128::from(ticks) * 1_000_000_000 / self.rate
            + u128::from(self.offset_s) * 1_000_000_000;
        ns.try_into().ok()
    }
}

/// What went wrong with one packet, before the place is known.
enum Bad {
    Eof,
    Io(io::Error),
    Link(DataLink),
    Other(String),
}

impl From<PcapError> for Bad {
    fn from(error: PcapError) -> Self {
        match error {
            PcapError::IncompleteBuffer => Self::Eof,
            PcapError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => Self::Eof,
            PcapError::IoError(e) => Self::Io(e),
            other => Self::Other(other.to_string()),
        }
    }
}

impl CaptureReader {
    /// Opens a capture; the kind is told from its first bytes, never from its name.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let path = path.to_path_buf();
        let io_error = |source| CaptureError::Io {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(io_error)?;
        let mut start = Vec::with_capacity(4);
        (&file).take(4).read_to_end(&mut start).map_err(io_error)?;
        (&file).seek(SeekFrom::Start(0)).map_err(io_error)?;
        let header = |e: PcapError| CaptureError::Header {
            path: path.clone(),
            reason: match e.into() {
                Bad::Eof => "the file ends inside it".to_owned(),
                Bad::Io(e) => e.to_string(),
                Bad::Link(link) => format!("{link:?}"),
                Bad::Other(reason) => reason,
            },
        };
        let magic = <[u8; 4]>::try_from(start.as_slice()).unwrap_or_default();
        let source = if magic == PCAPNG_MAGIC {
            Source::Ng {
                reader: PcapNgReader::new(file).map_err(header)?,
                interfaces: Vec::new(),
                last_ns: 0,
            }
        } else if PCAP_MAGICS.contains(&u32::from_be_bytes(magic)) {
            let reader = PcapReader::new(file).map_err(header)?;
            let head = reader.header();
            // The upper bits of the field say whether frames end in an FCS (pcap-linktype).
            let link = DataLink::from(u32::from(head.datalink) & 0xffff);
            if link != DataLink::ETHERNET {
                return Err(CaptureError::NotEthernet {
                    path,
                    link: format!("{link:?}"),
                });
            }
            Source::Pcap {
                reader,
                nanoseconds: head.ts_resolution == TsResolution::NanoSecond,
            }
        } else {
            return Err(CaptureError::NotACapture { path, start });
        };
        Ok(Self {
            path,
            source: Some(source),
            count: 0,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the next packet into `data` and gives its timestamp; `None` at the end.
    pub fn read_into(&mut self, data: &mut Vec<u8>) -> Result<Option<u64>, CaptureError> {
        let Some(source) = &mut self.source else {
            return Ok(None);
        };
        let packet = self.count + 1;
        let bad = match source.next(data) {
            Ok(Some(timestamp_ns)) => {
                self.count = packet;
                return Ok(Some(timestamp_ns));
            }
            Ok(None) => {
                self.source = None;
                return Ok(None);
            }
            Err(bad) => bad,
        };
        self.source = None;
        let path = self.path.clone();
        Err(match bad {
            Bad::Eof => CaptureError::Truncated { path, packet },
            Bad::Io(source) => CaptureError::Io { path, source },
            Bad::Link(link) => CaptureError::NotEthernet {
                path,
                link: format!("{link:?}"),
            },
            Bad::Other(reason) => CaptureError::Corrupt {
                path,
                packet,
                reason,
            },
        })
    }
}

impl Iterator for CaptureReader {
    type Item = Result<Captured, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut data = Vec::new();
        match self.read_into(&mut data) {
            Ok(Some(timestamp_ns)) => Some(Ok(Captured { timestamp_ns, data })),
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        }
    }
}

impl Source {
    fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<u64>, Bad> {
        out.clear();
        match self {
            Self::Pcap {
                reader,
                nanoseconds,
            } => {
                // The library's checked form refuses packets longer than the snap length on the
                // wire, which every cut-short capture has: check the raw fields here.
                let Some(raw) = reader.next_raw_packet() else {
                    return Ok(None);
                };
                let raw = raw?;
                let fraction = if *nanoseconds {
                    u64::from(raw.ts_frac)
                } else {
                    u64::from(raw.ts_frac) * 1000
                };
                if fraction >= 1_000_000_000 {
                    return Err(Bad::Other(format!(
                        "its time has {} in the field for fractions of a second",
                        raw.ts_frac
                    )));
                }
                if raw.incl_len > raw.orig_len || raw.incl_len > MAX_SNAPLEN {
                    return Err(Bad::Other(format!(
                        "it saved {} bytes of {}",
                        raw.incl_len, raw.orig_len
                    )));
                }
                out.extend_from_slice(&raw.data);
                Ok(Some(u64::from(raw.ts_sec) * 1_000_000_000 + fraction))
            }
            Self::Ng {
                reader,
                interfaces,
                last_ns,
            } => {
                while let Some(block) = reader.next_block() {
                    let (interface, ticks, data, original) = match block? {
                        Block::SectionHeader(_) => {
                            interfaces.clear();
                            continue;
                        }
                        Block::InterfaceDescription(block) => {
                            interfaces.push(Interface::new(&block));
                            continue;
                        }
                        // The library leaves the ticks of the interface in the "nanoseconds".
                        Block::EnhancedPacket(p) => (
                            p.interface_id,
                            Some(p.timestamp.as_nanos() as u64),
                            p.data,
                            p.original_len,
                        ),
                        Block::Packet(p) => (
                            u32::from(p.interface_id),
                            Some(p.timestamp),
                            p.data,
                            p.original_len,
                        ),
                        Block::SimplePacket(p) => (0, None, p.data, p.original_len),
                        _ => continue,
                    };
                    let known = interfaces.get(interface as usize).copied();
                    let of = known.ok_or_else(|| {
                        Bad::Other(format!(
                            "it names interface {interface}, which is not described"
                        ))
                    })?;
                    if of.link != DataLink::ETHERNET {
                        return Err(Bad::Link(of.link));
                    }
                    if let Some(ticks) = ticks {
                        *last_ns = of.nanoseconds(ticks).ok_or_else(|| {
                            Bad::Other("its time is past the year 2554".to_owned())
                        })?;
                    }
                    // A simple packet has neither time nor saved length, only padding: it happens
                    // right after the one before, and ends at its length on the wire or the snap length.
                    let saved = match (ticks, of.snaplen) {
                        (Some(_), _) => data.len(),
                        (None, 0) => original as usize,
                        (None, snaplen) => original.min(snaplen) as usize,
                    };
                    let data = data.get(..saved).ok_or_else(|| {
                        Bad::Other(format!("it says {saved} bytes and has {}", data.len()))
                    })?;
                    out.extend_from_slice(data);
                    return Ok(Some(*last_ns));
                }
                Ok(None)
            }
        }
    }
}

/// Writes a pcap with nanosecond timestamps and link type Ethernet.
#[derive(Debug)]
pub struct CaptureWriter {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
    count: u64,
}

impl CaptureWriter {
    /// Creates or empties the file and writes its header.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let io_error = |source| CaptureError::Io {
            path: path.to_path_buf(),
            source,
        };
        let file = File::create(path).map_err(io_error)?;
        let header = PcapHeader {
            snaplen: MAX_SNAPLEN,
            ts_resolution: TsResolution::NanoSecond,
            endianness: pcap_file::Endianness::Little,
            ..PcapHeader::default()
        };
        let writer =
            PcapWriter::with_header(BufWriter::new(file), header).map_err(|e| match e {
                PcapError::IoError(source) => io_error(source),
                other => io_error(io::Error::other(other)),
            })?;
        Ok(Self {
            path: path.to_path_buf(),
            writer,
            count: 0,
        })
    }

    /// Appends a packet.
    pub fn write(&mut self, timestamp_ns: u64, data: &[u8]) -> Result<(), CaptureError> {
        let packet = PcapPacket::new(Duration::from_nanos(timestamp_ns), data.len() as u32, data);
        self.count += 1;
        match self.writer.write_packet(&packet) {
            Ok(_) => Ok(()),
            Err(PcapError::IoError(source)) => Err(CaptureError::Io {
                path: self.path.clone(),
                source,
            }),
            Err(e) => Err(CaptureError::Write {
                path: self.path.clone(),
                packet: self.count,
                reason: e.to_string(),
            }),
        }
    }

    /// Packets written.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Writes out what is buffered and closes. Without it, a dropped writer cannot report a full
    /// disk.
    pub fn finish(self) -> Result<(), CaptureError> {
        let path = self.path;
        self.writer
            .into_writer()
            .flush()
            .map_err(|source| CaptureError::Io { path, source })
    }
}
