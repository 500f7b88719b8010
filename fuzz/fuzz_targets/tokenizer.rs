#![no_main]
//! `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, and what the tokenizer does with a text.

use libfuzzer_sys::fuzz_target;
use loram_io::TextTokenizer;

fuzz_target!(|data: &[u8]| {
    let Some([tokenizer, settings, special]) = loram_fuzz::parts(data) else { return };
    let dir = loram_fuzz::folder();
    loram_fuzz::put(&dir.join("tokenizer.json"), tokenizer);
    loram_fuzz::put(&dir.join("tokenizer_config.json"), settings);
    loram_fuzz::put(&dir.join("special_tokens_map.json"), special);
    let Ok(tokenizer) = TextTokenizer::load(&dir) else { return };
    for text in ["", "The quick brown fox, ünïcödé 🙂\n 12 345!"] {
        for special in [true, false] {
            let Ok(encoded) = tokenizer.encode(text, special) else { continue };
            assert_eq!(encoded.ids.len(), encoded.offsets.len());
            let _ = tokenizer.decode(&encoded.ids, special);
        }
        let _ = tokenizer.encode_cut(text, Some("and a second one"), 5);
    }
    let mut stream = tokenizer.stream();
    for id in [0, 1, 2, 3, u32::MAX] {
        let _ = stream.push(id);
    }
    let _ = stream.finish();
});
