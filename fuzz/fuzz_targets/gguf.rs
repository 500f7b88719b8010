#![no_main]
//! GGUF files: the header, and what the file says as a configuration, as weights and as a tokenizer.

use libfuzzer_sys::fuzz_target;
use loram_io::gguf::parse_gguf;
use loram_io::{Checkpoint, ModelConfig, TextTokenizer};

fuzz_target!(|data: &[u8]| {
    let Ok(header) = parse_gguf(data) else { return };
    for t in &header.tensors {
        // what is accepted lies inside the file and has the size that it says
        assert!(t.start.checked_add(t.bytes).is_some_and(|end| end <= data.len()));
        assert_eq!(Some(t.bytes), t.dtype.bytes_for(&t.shape));
    }
    let path = loram_fuzz::folder().join("model.gguf");
    loram_fuzz::put(&path, data);
    let _ = ModelConfig::load(&path);
    if let Ok(checkpoint) = Checkpoint::open(&path) {
        for name in checkpoint.names() {
            let tensor = checkpoint.tensor(name).expect("a name of the checkpoint");
            let _ = tensor.to_f32();
        }
    }
    let Ok(tokenizer) = TextTokenizer::load(&path) else { return };
    for text in ["", "The quick brown fox, ünïcödé 🙂\n 12 345!"] {
        let Ok(encoded) = tokenizer.encode(text, true) else { continue };
        let _ = tokenizer.decode(&encoded.ids, true);
    }
});
