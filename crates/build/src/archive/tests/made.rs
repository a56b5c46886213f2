//! Archives written by hand: every field can lie.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

// === zip, by hand: every field can lie ===

#[derive(Clone)]
pub(super) struct Zip {
    pub(super) name: Vec<u8>,
    /// Unix mode with its type bits; 0 means made on another system.
    pub(super) mode: u32,
    pub(super) method: u16,
    pub(super) flags: u16,
    pub(super) data: Vec<u8>,
    pub(super) size: Option<u32>,
    pub(super) crc: Option<u32>,
    pub(super) header: Option<u32>,
}

pub(super) fn zip_file(name: &str, data: &str) -> Zip {
    Zip { name: name.into(), mode: 0o100644, method: 0, flags: 0x800, data: data.into(), size: None, crc: None, header: None }
}

pub(super) fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

pub(super) fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zip_bytes(entries: &[Zip]) -> Vec<u8> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for e in entries {
        let start = e.header.unwrap_or(out.len() as u32);
        let packed = if e.method == 8 { deflated(&e.data) } else { e.data.clone() };
        let crc = e.crc.unwrap_or_else(|| crc32(&e.data));
        let size = e.size.unwrap_or(e.data.len() as u32);
        let mut common = Vec::new();
        common.extend(20u16.to_le_bytes());
        common.extend(e.flags.to_le_bytes());
        common.extend(e.method.to_le_bytes());
        common.extend([0, 0, 0x21, 0x58]);
        common.extend(crc.to_le_bytes());
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend(size.to_le_bytes());
        common.extend((e.name.len() as u16).to_le_bytes());
        common.extend(0u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(&e.name);
        out.extend(&packed);
        central.extend(b"PK\x01\x02");
        central.extend(if e.mode == 0 { [20, 0] } else { [20, 3] });
        central.extend(&common);
        central.extend([0; 6]);
        central.extend((e.mode << 16).to_le_bytes());
        central.extend(start.to_le_bytes());
        central.extend(&e.name);
    }
    let at = out.len() as u32;
    out.extend(&central);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((entries.len() as u16).to_le_bytes());
    out.extend((central.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

// === tar, by hand ===

pub(super) struct Tar {
    pub(super) name: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) link: Vec<u8>,
    pub(super) data: Vec<u8>,
    pub(super) size: Option<u64>,
}

pub(super) fn tar_file(name: &str, data: &str) -> Tar {
    Tar { name: name.into(), kind: b'0', mode: 0o644, link: vec![], data: data.into(), size: None }
}

pub(super) fn tar_kind(kind: u8, name: &str, link: &str) -> Tar {
    Tar { kind, link: link.into(), ..tar_file(name, "") }
}

pub(super) fn tar_raw(entries: &[Tar]) -> Vec<u8> {
    let mut out = Vec::new();
    for e in entries {
        let mut header = [0u8; 512];
        let n = e.name.len().min(100);
        header[..n].copy_from_slice(&e.name[..n]);
        header[100..107].copy_from_slice(format!("{:07o}", e.mode).as_bytes());
        let size = e.size.unwrap_or(e.data.len() as u64);
        header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = e.kind;
        let n = e.link.len().min(100);
        header[157..157 + n].copy_from_slice(&e.link[..n]);
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(header);
        out.extend(&e.data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

pub(super) fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn tar_bytes(entries: &[Tar]) -> Vec<u8> {
    gz(&tar_raw(entries))
}

pub(super) fn pax_record(key: &str, value: &str) -> String {
    let body = format!(" {key}={value}\n");
    let mut length = body.len() + 1;
    while format!("{length}{body}").len() != length {
        length += 1;
    }
    format!("{length}{body}")
}

pub(super) fn pax_entry(kind: u8, records: &[(&str, &str)]) -> Tar {
    let data: String = records.iter().map(|(k, v)| pax_record(k, v)).collect();
    Tar { kind, ..tar_file("pax", &data) }
}
