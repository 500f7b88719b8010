#![no_main]
//! Training data: the first byte says which kind of file the rest is.

use libfuzzer_sys::fuzz_target;
use loram_io::data::{DataSpec, Labels, find_format, load_records};
use std::sync::LazyLock;
use loram_io::TextTokenizer;
use loram_io::data::Preparer;

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
    TextTokenizer::load(loram_fuzz::repository().join("assets/tiny-llama-en")).expect("a tokenizer of the repository")
});

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let names = ["a.jsonl", "a.json", "a.txt", "a.jsonl.gz", "a.csv", "a.tsv", "a.parquet", "a.arrow"];
    let name = names[usize::from(kind % 8)];
    let path = loram_fuzz::folder().join(name);
    loram_fuzz::put(&path, rest);
    let formats = [None, find_format("classification"), find_format("messages"), find_format("regression")];
    let spec = DataSpec {
        paths: vec![path.display().to_string()],
        format: formats[usize::from(kind / 8 % 4)],
        ..DataSpec::default()
    };
    let Ok(records) = load_records(&spec) else { return };
    let mut preparer = Preparer::new(TOKENIZER.clone(), 64, Some("chatml".into()));
    let Ok(labels) = Labels::from_records(&records) else { return };
    preparer.labels = labels;
    let Ok((examples, _)) = preparer.prepare_all(&records) else { return };
    for e in examples.iter().take(4) {
        assert!(e.sequences.iter().all(|s| s.input_ids.len() <= 64));
        for s in &e.sequences {
            let _ = preparer.render(s);
        }
    }
});
