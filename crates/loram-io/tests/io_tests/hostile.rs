//! Files that nobody honest writes: false numbers, damaged tokenizers, pipes in place of files. Each is one clear error, at once.

use loram_io::adapter::Recipe;
use loram_io::data::{DataSpec, Labels, load_records};
use loram_io::{ModelConfig, TextTokenizer};
use serde_json::{Value, json};
use std::path::Path;

fn config(changes: &[(&str, Value)]) -> Result<ModelConfig, String> {
    let text = std::fs::read_to_string(loram_io::testing::tiny_llama().join("config.json")).unwrap();
    let Value::Object(mut raw) = serde_json::from_str(&text).unwrap() else { unreachable!() };
    raw.extend(changes.iter().map(|(k, v)| (k.to_string(), v.clone())));
    ModelConfig::parse(raw, Path::new("config.json")).map_err(|e| e.to_string())
}

#[test]
fn numbers_of_a_model_are_bounded_before_anything_is_allocated() {
    config(&[]).unwrap();
    for field in
        ["num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size", "num_attention_heads", "head_dim"]
    {
        for n in [json!(4_294_967_295u64), json!(u64::MAX), json!(1e15)] {
            let e = config(&[(field, n.clone()), ("num_key_value_heads", json!(1))]).unwrap_err();
            assert!(e.starts_with("config.json: field `") && !e.contains("unwrap"), "{field} {n}: {e}");
        }
    }
    for model_type in ["llama", "qwen2", "qwen3", "mistral", "smollm3"] {
        let e =
            config(&[("model_type", json!(model_type)), ("num_hidden_layers", json!(4_294_967_295u64))]).unwrap_err();
        assert!(e.contains("`num_hidden_layers`") && e.contains("4294967295") && e.contains("at most 16384"), "{e}");
    }
    let e = config(&[("num_labels", json!(4_000_000_000u64))]).unwrap_err();
    assert!(e.contains("`num_labels`") && e.contains("65536"), "{e}");
    let wide =
        [("num_attention_heads", json!(1 << 20)), ("num_key_value_heads", json!(1)), ("head_dim", json!(1 << 20))];
    assert!(config(&wide).unwrap_err().contains("`head_dim`"));
}

#[test]
fn layers_of_a_recipe_are_bounded() {
    let recipe = |n: u64, r: u64| {
        let layer = json!({"scheme": "gaussian", "path": "q", "n": n, "m": 8, "r": r, "scaling": 1.0, "seed": 1});
        let file = json!({"format": 1, "loram_version": "0.1.0", "form": "native", "scheme": "gaussian", "seed": 1, "layers": {"q": layer}});
        Recipe::parse(&file.to_string(), Path::new("loram.json")).map_err(|e| e.to_string())
    };
    recipe(8, 4).unwrap();
    for (n, r) in [(1 << 40, 8), (1 << 28, 1 << 20), (u64::MAX, 1), (8, u64::MAX)] {
        let e = recipe(n, r).unwrap_err();
        assert!(e.starts_with("loram.json: layer `q`: ") && e.contains("no layer of a model"), "{e}");
    }
}

/// A small tokenizer with a part in place of its own, in a folder.
fn tokenizer(part: &str, value: Value) -> tempfile::TempDir {
    let mut file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "the": 1, "fox": 2, "t": 3}, "unk_token": "[UNK]"},
    });
    file[part] = value;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    dir
}

#[test]
fn a_tokenizer_on_which_the_library_panics_is_an_error_that_names_the_file() {
    let dir = tokenizer("decoder", json!(null));
    assert_eq!(TextTokenizer::load(dir.path()).unwrap().encode("the fox", true).unwrap().ids, [1, 2]);
    let damaged = |e: loram_io::Error| {
        let e = e.to_string();
        assert!(e.contains("tokenizer.json: the tokenizer is damaged"), "{e}");
    };
    // found when a text is decoded
    let dir = tokenizer("decoder", json!({"type": "Strip", "content": "t", "start": 0, "stop": 4_294_967_296u64}));
    damaged(TextTokenizer::load(dir.path()).unwrap().decode(&[1, 3], false).unwrap_err());
    // when two texts are encoded
    let template = json!({
        "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "o", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    });
    let dir = tokenizer("post_processor", template);
    if let Ok(t) = TextTokenizer::load(dir.path()) {
        damaged(t.encode_cut("the", Some("fox"), 8).unwrap_err());
    }
    // when the file is read: found by fuzzing, no JSON within the decoder
    let dir = tokenizer("decoder", json!({"type": "here"}));
    let path = dir.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap().replace(r#"{"type":"here"}"#, r#"{"type" "here"}"#);
    std::fs::write(&path, text).unwrap();
    assert!(TextTokenizer::load(dir.path()).is_err());
    let merges = json!({"type": "BPE", "vocab": {"t": 0, "h": 1, "th": 2}, "merges": ["t h", "▁happ he"], "dropout": null, "unk_token": null,
        "continuing_subword_prefix": "████", "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false});
    let dir = tokenizer("model", merges);
    assert!(TextTokenizer::load(dir.path()).is_err());
}

#[test]
fn a_limit_of_no_tokens_is_no_limit() {
    for n in [json!(-5), json!(0), json!(1e30)] {
        let dir = tokenizer("decoder", json!(null));
        std::fs::write(dir.path().join("tokenizer_config.json"), json!({"model_max_length": n}).to_string()).unwrap();
        assert_eq!(TextTokenizer::load(dir.path()).unwrap().max_length(), None, "{n}");
    }
    let dir = tokenizer("decoder", json!(null));
    std::fs::write(dir.path().join("config.json"), json!({"eos_token_id": 4_294_967_298u64}).to_string()).unwrap();
    assert_eq!(TextTokenizer::load(dir.path()).unwrap().eos_id(), None, "not 2");
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_and_devices_in_a_model_folder_are_refused() {
    for name in ["config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json", "loram.json"] {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(name)).unwrap();
        let e = match name {
            "config.json" => ModelConfig::load(dir.path()).map(drop),
            "tokenizer.json" => TextTokenizer::load(dir.path()).map(drop),
            "loram.json" => Recipe::read(&dir.path().join(name)).map(drop),
            _ => loram_io::Checkpoint::open(dir.path()).map(drop),
        };
        let e = e.unwrap_err();
        assert!(e.to_string().contains("is a device; expected a file") && e.exit_code() == 2, "{name}: {e}");
    }
}

/// The error of a data file with these bytes.
fn data(name: &str, bytes: &[u8]) -> loram_io::Error {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let spec = DataSpec { paths: vec![path.display().to_string()], ..DataSpec::default() };
    match load_records(&spec) {
        Err(e) => e,
        Ok(records) => Labels::from_records(&records).unwrap_err(),
    }
}

#[test]
fn labels_are_counted_before_they_are_listed() {
    for id in ["4000000000", "18446744073709551615", "65536"] {
        let e =
            data("a.jsonl", format!("{{\"text\":\"a\",\"label\":0}}\n{{\"text\":\"b\",\"label\":{id}}}\n").as_bytes());
        assert!(e.to_string().contains(&format!("a.jsonl:2: label {id}: ")) && e.exit_code() == 2, "{e}");
    }
    let many: String = (0..=65_536).map(|i| format!("{{\"text\":\"a\",\"label\":\"l{i}\"}}\n")).collect();
    let e = data("a.jsonl", many.as_bytes()).to_string();
    assert!(e.contains("a.jsonl:65537: label `l65536`: more than 65536"), "{e}");
}

#[test]
fn packed_data_that_no_text_packs_so_well_are_not_unpacked_to_the_end() {
    use std::io::Write;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let line = format!("{{\"text\":\"{}\"}}\n", "a".repeat(1 << 20));
    for _ in 0..80 {
        packer.write_all(line.as_bytes()).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 600_000);
    let e = data("a.jsonl.gz", &bomb);
    assert!(e.to_string().contains("unpack to more than 67.1 MB") && e.exit_code() == 2, "{e}");
    let e = data("a.jsonl.gz", &bomb[..1000]);
    assert!(e.to_string().contains("cannot be unpacked") && e.exit_code() == 2, "{e}");
}

#[test]
fn a_line_has_a_largest_length() {
    let e = data("a.jsonl", format!("{{\"text\":\"a\"}}\n{}", "[".repeat((64 << 20) + 1)).as_bytes()).to_string();
    assert!(e.contains("a.jsonl:2: a line of 67108865 bytes"), "{e}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_is_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("zero.jsonl");
    std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
    let spec = DataSpec { paths: vec![link.display().to_string()], ..DataSpec::default() };
    let e = load_records(&spec).unwrap_err();
    assert!(e.to_string().contains("zero.jsonl: is a device; expected a file") && e.exit_code() == 2, "{e}");
}
