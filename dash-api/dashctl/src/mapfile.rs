//! Maps of users' programs as JSON, after bpftool, and elements as its words.
//!
//! A file holds maps whole, so one of them can be made again from it: that is what pins outside a
//! daemon are.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use dash_bpf::{MapDef, MapKind};
use dash_prog::map::{kind_by_name, kind_name};
use dash_prog::{Element, Map, Pins};
use serde_json::{Value, json};

use crate::underlay;

/// Bytes as bpftool writes them in JSON.
fn hex(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:#04x}")).collect()
}

/// Bytes as bpftool prints them.
fn plain(bytes: &[u8]) -> String {
    let bytes = bytes.iter().map(|byte| format!("{byte:02x}"));
    bytes.collect::<Vec<_>>().join(" ")
}

fn is_per_cpu(def: &MapDef) -> bool {
    matches!(
        def.kind,
        MapKind::PercpuArray | MapKind::PercpuHash | MapKind::LruPercpuHash
    )
}

/// The values of an element: one, or one a CPU.
fn values<'e>(def: &MapDef, element: &'e Element) -> Vec<&'e [u8]> {
    let (stride, size) = (def.stride() as usize, def.value_size as usize);
    match is_per_cpu(def) && stride > 0 {
        true => {
            let each = element.value.chunks(stride);
            each.map(|value| &value[..size.min(value.len())]).collect()
        }
        false => vec![element.value.as_slice()],
    }
}

/// An element of a map so defined, as `bpftool map dump -j` has it.
pub fn element_json(def: &MapDef, element: &Element) -> Value {
    let mut out = json!({});
    if !element.key.is_empty() {
        out["key"] = hex(&element.key);
    }
    let values = values(def, element);
    if is_per_cpu(def) {
        let each = values.iter().enumerate();
        let each = each.map(|(cpu, value)| json!({ "cpu": cpu, "value": hex(value) }));
        out["values"] = each.collect();
    } else {
        out["value"] = hex(&element.value);
    }
    out
}

/// An element of a map so defined, as bpftool prints it.
pub fn element_text(def: &MapDef, element: &Element) -> String {
    let key = match element.key.as_slice() {
        [] => String::new(),
        key => format!("key: {}  ", plain(key)),
    };
    let values = values(def, element);
    match is_per_cpu(def) {
        false => format!("{key}value: {}\n", plain(&element.value)),
        true => {
            let each = values.iter().enumerate();
            let each = each.map(|(cpu, value)| format!("value (CPU {cpu:02}): {}\n", plain(value)));
            format!("{}\n{}", key.trim_end(), each.collect::<String>())
        }
    }
}

/// What a map is, as `bpftool map show -j` has it.
pub fn about_json(map: &Map) -> Value {
    let def = map.def();
    json!({
        "id": map.id(),
        "name": def.name,
        "type": kind_name(def.kind),
        "flags": def.flags,
        "bytes_key": def.key_size,
        "bytes_value": def.value_size,
        "max_entries": def.max_entries,
        "cpus": map.cpus(),
    })
}

/// A map whole.
pub fn map_json(map: &Map) -> Value {
    let mut out = about_json(map);
    let elements = map.dump();
    let elements = elements
        .iter()
        .map(|element| element_json(map.def(), element));
    out["elements"] = elements.collect();
    out
}

/// Makes a map again.
///
/// # Errors
/// The value is not one that [`map_json`] made, or of a kind whose elements are not bytes.
pub fn map_from_json(value: &Value) -> Result<Map> {
    let number = |name: &str| {
        let number = value[name].as_u64().and_then(|n| u32::try_from(n).ok());
        number.with_context(|| format!("{name} is not a number"))
    };
    let text = |name: &str| {
        value[name]
            .as_str()
            .with_context(|| format!("{name} is missing"))
    };
    let kind = text("type")?;
    let def = MapDef {
        name: text("name")?.to_owned(),
        kind: kind_by_name(kind).with_context(|| format!("no kind of maps is called {kind:?}"))?,
        key_size: number("bytes_key")?,
        value_size: number("bytes_value")?,
        max_entries: number("max_entries")?,
        flags: number("flags")?,
        ..MapDef::default()
    };
    if def.kind.holds_maps() || def.kind == MapKind::ProgArray {
        bail!("a {kind} cannot be kept in a file: it names what is in another object");
    }
    let map = Map::new(&def, number("cpus")?)?;
    let elements = value["elements"]
        .as_array()
        .context("elements are missing")?;
    // A stack is listed from its top.
    let elements: Vec<&Value> = match def.kind {
        MapKind::Stack => elements.iter().rev().collect(),
        _ => elements.iter().collect(),
    };
    for element in elements {
        let key = match &element["key"] {
            Value::Null => Vec::new(),
            key => bytes(key)?,
        };
        let value = match element["values"].as_array() {
            None => bytes(&element["value"])?,
            Some(each) => {
                let mut all = Vec::new();
                for cpu in each {
                    let mut value = bytes(&cpu["value"])?;
                    value.resize(def.stride() as usize, 0);
                    all.extend(value);
                }
                all
            }
        };
        map.update(&key, &value, 0)?;
    }
    Ok(map)
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    let all = value.as_array().context("not a list of bytes")?;
    let byte = |value: &Value| byte(value.as_str()?, false);
    let all: Option<Vec<u8>> = all.iter().map(byte).collect();
    all.context("not a list of bytes")
}

fn byte(word: &str, hex: bool) -> Option<u8> {
    match word.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None if hex => u8::from_str_radix(word, 16).ok(),
        None => word.parse().ok(),
    }
}

/// What a word of bytes says: one byte as bpftool has it, or more under a name of ours.
fn word_bytes(word: &str, hex: bool) -> Option<Vec<u8>> {
    let Some((form, value)) = word.split_once(':') else {
        return byte(word, hex).map(|byte| vec![byte]);
    };
    Some(match form {
        "u16" => value.parse::<u16>().ok()?.to_ne_bytes().to_vec(),
        "u32" => value.parse::<u32>().ok()?.to_ne_bytes().to_vec(),
        "u64" => value.parse::<u64>().ok()?.to_ne_bytes().to_vec(),
        "be16" => value.parse::<u16>().ok()?.to_be_bytes().to_vec(),
        "be32" => value.parse::<u32>().ok()?.to_be_bytes().to_vec(),
        "ip" => match value.parse().ok()? {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        },
        "mac" => underlay::mac(value).ok()?.to_vec(),
        _ => return None,
    })
}

/// An element as bpftool's words say it: `key [hex] BYTES [value [hex] BYTES] [any|exist|noexist]`. Besides,
/// a word may be a number in this machine's byte order (`u16:N`, `u32:N`, `u64:N`) or the network's (`be16:N`,
/// `be32:N`), or an address (`ip:A`, `mac:M`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Bytes of the key.
    pub key: Vec<u8>,
    /// Bytes of the value.
    pub value: Vec<u8>,
    /// `BPF_ANY`, `BPF_NOEXIST` or `BPF_EXIST`.
    pub flags: u64,
}

impl Words {
    /// Reads words.
    ///
    /// # Errors
    /// One is none of these.
    pub fn read<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Self> {
        let mut out = Self::default();
        let (mut to, mut base) = (None, false);
        for word in words {
            match word {
                "key" | "value" => (to, base) = (Some(word), false),
                "hex" if to.is_some() => base = true,
                "any" => out.flags = 0,
                "noexist" => out.flags = 1,
                "exist" => out.flags = 2,
                _ => {
                    let wrong = || {
                        anyhow!(
                            "{word:?} is not a byte, u16:N, u32:N, u64:N, be16:N, be32:N, ip:A or mac:M, \
                             nor key, value, hex, any, exist or noexist"
                        )
                    };
                    let bytes = word_bytes(word, base).ok_or_else(wrong)?;
                    match to {
                        Some("key") => out.key.extend(bytes),
                        Some(_) => out.value.extend(bytes),
                        None => return Err(wrong()),
                    }
                }
            }
        }
        Ok(out)
    }

    /// Sets the element. A value per CPU is set for all of them, as bpftool does.
    ///
    /// # Errors
    /// The map refuses.
    pub fn set(&self, map: &Map) -> Result<()> {
        let mut value = self.value.clone();
        if map.is_per_cpu() && value.len() == map.def().value_size as usize {
            value.resize(map.def().stride() as usize, 0);
            value = value.repeat(map.cpus() as usize);
        }
        Ok(map.update(&self.key, &value, self.flags)?)
    }
}

/// Maps pinned in a folder, each a file.
#[derive(Debug)]
pub struct PinDir {
    dir: PathBuf,
}

impl PinDir {
    /// The folder, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// # Errors
    /// The name is no name of a file in the folder.
    fn path(&self, name: &str) -> Result<PathBuf> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            bail!("{name:?} is not a name to pin a map under");
        }
        Ok(self.dir.join(format!("{name}.json")))
    }

    /// The map under a name, made again.
    ///
    /// # Errors
    /// There is none, or its file is damaged.
    pub fn get(&self, name: &str) -> Result<Map> {
        let path = self.path(name)?;
        let text =
            fs::read_to_string(&path).with_context(|| format!("no map is pinned as {name}"))?;
        let value = serde_json::from_str(&text).map_err(anyhow::Error::from);
        value
            .and_then(|value: Value| map_from_json(&value))
            .with_context(|| path.display().to_string())
    }

    /// Writes a map under a name.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, name: &str, map: &Map) -> Result<()> {
        let path = self.path(name)?;
        // Whole or not at all: a reader may come any time.
        let half = path.with_extension("part");
        fs::write(&half, format!("{:#}\n", map_json(map)))
            .and_then(|()| fs::rename(&half, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Names that are in use, in order.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let unreadable = || format!("cannot read {}", self.dir.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            let json = path.extension().is_some_and(|end| end == "json");
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            names.extend(stem.filter(|_| json).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// All maps, as pins for an object that is loaded.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn pins(&self) -> Result<Pins> {
        let pins = Pins::default();
        for name in self.names()? {
            pins.pin(&name, &self.get(&name)?);
        }
        Ok(pins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn def(kind: MapKind, key_size: u32, value_size: u32, max_entries: u32) -> MapDef {
        MapDef {
            name: "m".to_owned(),
            kind,
            key_size,
            value_size,
            max_entries,
            flags: u32::from(kind == MapKind::LpmTrie),
            ..MapDef::default()
        }
    }

    #[test]
    fn maps_come_back_as_they_were() {
        for (def, cpus) in [
            (def(MapKind::Hash, 3, 5, 10), 1),
            (def(MapKind::PercpuHash, 4, 5, 10), 3),
            (def(MapKind::LpmTrie, 8, 4, 10), 1),
            (def(MapKind::Array, 4, 2, 3), 1),
            (def(MapKind::PercpuArray, 4, 8, 3), 2),
            (def(MapKind::Queue, 0, 4, 5), 1),
            (def(MapKind::Stack, 0, 4, 5), 1),
            (def(MapKind::DevMap, 4, 4, 5), 1),
        ] {
            let map = Map::new(&def, cpus).expect("a map");
            for n in 0..3u8 {
                let mut key = vec![n; def.key_size as usize];
                if def.key_size == 4 || def.key_size == 8 {
                    key.fill(0);
                    key[0] = n;
                }
                let each = (0..cpus as u8).flat_map(|cpu| {
                    let mut value = vec![n * 16 + cpu; def.value_size as usize];
                    if map.is_per_cpu() {
                        value.resize(def.stride() as usize, 0);
                    }
                    value
                });
                let value: Vec<u8> = each.collect();
                map.update(&key, &value, 0).expect("space");
            }
            let again = map_from_json(&map_json(&map)).expect("the same");
            let sorted = |map: &Map| {
                let mut all = map.dump();
                if def.key_size > 0 {
                    all.sort_by(|a, b| a.key.cmp(&b.key));
                }
                all
            };
            assert_eq!(sorted(&again), sorted(&map), "{:?}", def.kind);
            assert!(!map.is_empty(), "{:?}", def.kind);
        }
    }

    #[test]
    fn words_are_bpftools() {
        let words = "key hex 0a ff value 10 0x10 noexist";
        let read = Words::read(words.split(' ')).expect("words");
        assert_eq!(read.key, [0x0a, 0xff]);
        assert_eq!(read.value, [10, 16]);
        assert_eq!(read.flags, 1);
        let words = "key u32:1 be16:53 mac:02:00:00:00:00:01 value ip:10.0.0.1 ip:::1 u16:2 be32:3";
        let read = Words::read(words.split(' ')).expect("words");
        let key = [&1u32.to_ne_bytes()[..], &[0, 53], &[2, 0, 0, 0, 0, 1]];
        assert_eq!(read.key, key.concat());
        assert_eq!(read.value[..4], [10, 0, 0, 1]);
        assert_eq!(
            read.value[19..],
            [&[1][..], &2u16.to_ne_bytes(), &[0, 0, 0, 3]].concat()
        );
        for wrong in [
            "1 2",
            "key 256",
            "key hex zz",
            "value one",
            "key u16:65536",
            "key ip:10.0.0",
            "key mac:2",
            "key u9:1",
        ] {
            assert!(Words::read(wrong.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pins_stay_in_their_folder() {
        let dir = tempfile::tempdir().expect("folder");
        let pins = PinDir::open(dir.path()).expect("folder");
        let map = Map::new(&def(MapKind::Hash, 1, 1, 1), 1).expect("a map");
        for bad in ["", "../x", "a/b", ".hidden"] {
            assert!(pins.put(bad, &map).is_err(), "{bad}");
        }
        pins.put("a", &map).expect("written");
        assert_eq!(pins.names().expect("names"), ["a"]);
        assert!(pins.get("b").is_err());
    }

    #[test]
    fn damaged_files_are_errors() {
        for text in ["{}", "[]", r#"{"type":"hash","name":"x","bytes_key":4}"#] {
            let value: Value = serde_json::from_str(text).expect("JSON");
            assert!(map_from_json(&value).is_err(), "{text}");
        }
    }
}
