//! TensorBoard event files: TFRecord frames around `tensorflow.Event` messages, encoded here.
//!
//! No existing crate fits: tensorboard-rs depends on protobuf 2, which has a known denial of service
//! (RUSTSEC-2024-0437) and no fix, and tfrecord brings a code generator and a licence that is not declared. Two message
//! types and one checksum are less than either.

use crate::Result;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one event file.
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Creates `events.out.tfevents.<seconds>.loram` in a folder. A resumed run creates another file, and TensorBoard joins
    /// them; it is told to forget what earlier files have after the step `resumed`.
    pub fn create(dir: &Path, resumed: Option<usize>) -> Result<EventWriter> {
        let seconds = now() as u64;
        // two runs within one second must not share a file
        let name = |i: u32| dir.join(format!("events.out.tfevents.{seconds}.loram.{i}"));
        let path = (0..).map(name).find(|p| !p.exists()).expect("a free name");
        let file = File::create(&path).map_err(|e| loram_io::Error::io("create", &path, e))?;
        let mut writer = EventWriter { file, path };
        writer.event(|out| bytes(out, 3, b"brain.Event:2"))?;
        if let Some(step) = resumed {
            writer.event(|out| {
                key(out, 2, 0);
                varint(out, step as u64 + 1);
                // SessionLog: status START
                bytes(out, 7, &[0x08, 0x01]);
            })?;
        }
        Ok(writer)
    }

    /// Writes a scalar at a step.
    pub fn scalar(&mut self, step: usize, tag: &str, value: f64) -> Result<()> {
        let mut v = Vec::new();
        bytes(&mut v, 1, tag.as_bytes());
        key(&mut v, 2, 5);
        v.extend_from_slice(&(value as f32).to_le_bytes());
        self.summary(step, &v)
    }

    /// Writes a text (Markdown) at a step.
    pub fn text(&mut self, step: usize, tag: &str, text: &str) -> Result<()> {
        let mut v = Vec::new();
        bytes(&mut v, 1, tag.as_bytes());
        // TensorProto: dtype DT_STRING, shape [1], the string
        let mut tensor = Vec::new();
        key(&mut tensor, 1, 0);
        varint(&mut tensor, 7);
        bytes(&mut tensor, 2, &[0x12, 0x02, 0x08, 0x01]);
        bytes(&mut tensor, 8, text.as_bytes());
        bytes(&mut v, 8, &tensor);
        // SummaryMetadata: plugin_data.plugin_name = "text"
        let mut plugin = Vec::new();
        bytes(&mut plugin, 1, b"text");
        let mut metadata = Vec::new();
        bytes(&mut metadata, 1, &plugin);
        bytes(&mut v, 9, &metadata);
        self.summary(step, &v)
    }

    fn summary(&mut self, step: usize, value: &[u8]) -> Result<()> {
        self.event(|out| {
            key(out, 2, 0);
            varint(out, step as u64);
            let mut summary = Vec::new();
            bytes(&mut summary, 1, value);
            bytes(out, 5, &summary);
        })
    }

    /// Frames one Event: length, checksum, data, checksum.
    fn event(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut data = Vec::new();
        key(&mut data, 1, 1);
        data.extend_from_slice(&now().to_le_bytes());
        fill(&mut data);
        let length = (data.len() as u64).to_le_bytes();
        let mut frame = length.to_vec();
        frame.extend_from_slice(&masked_crc(&length).to_le_bytes());
        frame.extend_from_slice(&data);
        frame.extend_from_slice(&masked_crc(&data).to_le_bytes());
        Ok(self.file.write_all(&frame).map_err(|e| loram_io::Error::io("write", &self.path, e))?)
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

/// A length-delimited field.
fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// CRC-32C (Castagnoli), masked as TFRecord asks.
fn masked_crc(data: &[u8]) -> u32 {
    let crc = !data.iter().fold(!0u32, |mut crc, &b| {
        crc ^= u32::from(b);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
        crc
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_has_the_published_value() {
        // CRC-32C of "123456789" is e3069283 (RFC 3720)
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn frames_are_whole_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let mut w = EventWriter::create(dir.path(), None).unwrap();
        w.scalar(300, "train/loss", 1.5).unwrap();
        w.text(300, "samples/0", "hello").unwrap();
        let all = std::fs::read(&w.path).unwrap();
        let mut at = 0;
        let mut frames = Vec::new();
        while at < all.len() {
            let n = u64::from_le_bytes(all[at..at + 8].try_into().unwrap()) as usize;
            let data = &all[at + 12..at + 12 + n];
            let crc = u32::from_le_bytes(all[at + 12 + n..at + 16 + n].try_into().unwrap());
            assert_eq!(crc, masked_crc(data));
            frames.push(data.to_vec());
            at += 16 + n;
        }
        assert_eq!(frames.len(), 3);
        // step 300 as a varint, tag, and 1.5 in f32
        let tail =
            [&[0x10, 0xac, 0x02, 0x2a, 19, 0x0a, 17, 0x0a, 10][..], b"train/loss", &[0x15, 0, 0, 0xc0, 0x3f]].concat();
        assert!(frames[1].ends_with(&tail), "{:?}", &frames[1]);
        let second = EventWriter::create(dir.path(), Some(300)).unwrap();
        assert_ne!(second.path, w.path);
        // step 301, then the start of a session: a field of two bytes
        assert!(std::fs::read(&second.path).unwrap().windows(7).any(|b| b == [0x10, 0xad, 0x02, 0x3a, 2, 0x08, 0x01]));
    }
}
