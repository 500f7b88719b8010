#![no_main]
//! Indices of shards.

use libfuzzer_sys::fuzz_target;
use loram_io::checkpoint::parse_index;
use std::path::{Component, Path};

fuzz_target!(|text: &str| {
    let Ok(map) = parse_index(text) else { return };
    for file in map.values() {
        assert!(!file.is_empty() && Path::new(file).components().all(|c| matches!(c, Component::Normal(_))));
    }
});
