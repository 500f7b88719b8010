#![no_main]
//! Headers of safetensors files.

use libfuzzer_sys::fuzz_target;
use loram_io::checkpoint::parse_header;

fuzz_target!(|data: &[u8]| {
    let Ok(header) = parse_header(data) else { return };
    for t in &header.tensors {
        // what is accepted lies inside the file and has the size that it says
        assert!(t.start.checked_add(t.bytes).is_some_and(|end| end <= data.len()));
        assert_eq!(Some(t.bytes), t.dtype.bytes_for(&t.shape));
    }
});
