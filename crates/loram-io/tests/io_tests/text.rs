//! Tokenizers against transformers, and data in every format.

use loram_io::data::*;
use loram_io::tokenizer::TextTokenizer;
use loram_io::{Error, testing};
use std::path::PathBuf;

fn folder(name: &str) -> Option<PathBuf> {
    match name {
        "tiny-llama-en" => Some(testing::tiny_llama()),
        "minilm" => testing::minilm_dir(),
        other => testing::shared_dir().map(|d| d.join("models").join(other)),
    }
}

#[test]
fn the_same_tokens_as_transformers() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for c in &cases {
        let name = c["model"].as_str().unwrap();
        let Some(dir) = folder(name) else {
            println!("skipped: no model {name} here");
            continue;
        };
        let t = TextTokenizer::load(dir).unwrap();
        let text = c["text"].as_str().unwrap();
        let ids =
            |key: &str| -> Vec<u32> { c[key].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32).collect() };
        if let Some(pair) = c["pair"].as_str() {
            let (e, cut) = t.encode_cut(text, Some(pair), 100).unwrap();
            assert_eq!((e.ids.clone(), cut), (ids("ids"), false), "{name} pair");
            if name == "minilm" {
                assert_eq!(e.type_ids, ids("types"));
                let (short, cut) = t.encode_cut(text, Some(pair), 7).unwrap();
                assert!(cut && short.ids.len() == 7 && short.ids.last() == e.ids.last());
            }
            continue;
        }
        let found = t.encode(text, true).unwrap().ids;
        assert_eq!(found, ids("ids"), "{name} {text:?}");
        assert_eq!(t.encode(text, false).unwrap().ids, ids("plain"), "{name} {text:?}");
        let decoded = c["decoded"].as_str().unwrap();
        if name != "minilm" {
            assert_eq!(t.decode(&found, true).unwrap(), decoded);
            let mut stream = t.stream();
            let mut parts: String = found.iter().map(|&i| stream.push(i).unwrap()).collect();
            parts += &stream.finish().unwrap();
            assert_eq!(parts.trim_start(), decoded.trim_start(), "streamed");
        }
    }
}

fn write(name: &str, text: &str) -> (tempfile::TempDir, DataSpec) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let spec = DataSpec { paths: vec![path.to_str().unwrap().to_string()], ..Default::default() };
    (dir, spec)
}

fn preparer(max_length: usize) -> Preparer {
    Preparer::new(TextTokenizer::load(testing::tiny_llama()).unwrap(), max_length, Some("chatml".into()))
}

/// The rendered pieces of the first example.
fn rendered(text: &str) -> Vec<(String, bool)> {
    let (_dir, spec) = write("d.jsonl", text);
    let records = load_records(&spec).unwrap();
    let p = preparer(200);
    let (examples, _) = p.prepare_all(&records).unwrap();
    p.render(&examples[0].sequences[0]).unwrap().into_iter().map(|s| (s.text, s.counted)).collect()
}

#[test]
fn formats_and_loss_masks() {
    let eos = "<|endoftext|>";
    let expect = |text: &str, prompt: &str, counted: &str| {
        let got = rendered(text);
        let want = [(prompt.to_string(), false), (counted.to_string(), true)];
        let want: Vec<_> = want.into_iter().filter(|w| !w.0.is_empty()).collect();
        assert_eq!(got, want, "{text}");
    };
    expect(r#"{"text": "Once upon a time"}"#, "", &format!("Once upon a time{eos}"));
    expect(r#"{"prompt": "Question: two", "completion": " and two"}"#, "Question: two", &format!(" and two{eos}"));
    let alpaca = rendered(r#"{"instruction": "Say hi.", "input": "", "output": "Hi."}"#);
    assert!(alpaca[0].0.ends_with("### Response:\n") && !alpaca[0].1 && alpaca[1].0 == format!("Hi.{eos}"));
    let chat = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there"}]}"#;
    expect(chat, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Hello there<|im_end|>\n");
    let share = r#"{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello there"}]}"#;
    assert_eq!(rendered(share), rendered(chat));
    let pairs = r#"{"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello there"}]}"#;
    assert_eq!(rendered(pairs), rendered(chat));
}

#[test]
fn records_give_variables_to_the_template() {
    let template = "{% if tools %}{{ tools | tojson }}{% endif %}{% if not enable_thinking %}/no_think{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    let text = |record: &str| {
        let (_dir, spec) = write("d.jsonl", record);
        let records = load_records(&spec)?;
        let tokenizer = TextTokenizer::load(testing::tiny_llama()).unwrap();
        let p = Preparer::new(tokenizer, 200, Some(template.into()));
        let (examples, _) = p.prepare_all(&records)?;
        Ok::<String, Error>(p.render(&examples[0].sequences[0])?.into_iter().map(|s| s.text).collect())
    };
    let turns = r#""messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]"#;
    for (extra, want) in [
        ("", "/no_think<user>a<assistant>b"),
        (r#", "tools": [{"name": "f"}]"#, "[{\"name\": \"f\"}]/no_think<user>a<assistant>b"),
        (r#", "tools": "[{\"name\": \"f\"}]""#, "[{\"name\": \"f\"}]/no_think<user>a<assistant>b"),
        (r#", "tools": null, "chat_template_kwargs": {"enable_thinking": true}"#, "<user>a<assistant>b"),
    ] {
        assert_eq!(text(&format!("{{{turns}{extra}}}")).unwrap(), want);
    }
    for (extra, expected) in [
        (r#", "tools": "x""#, "field `tools`: expected a list or its JSON text"),
        (r#", "chat_template_kwargs": 1"#, "field `chat_template_kwargs`: expected an object"),
    ] {
        let e = text(&format!("{{{turns}{extra}}}")).unwrap_err().to_string();
        assert!(e.contains("d.jsonl:1") && e.contains(expected), "{e}");
    }
    let e = text(r#"{"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]}"#)
        .unwrap_err()
        .to_string();
    assert!(e.contains("`user`, `bot`") && e.contains("nothing to learn"), "{e}");
}

#[test]
fn whole_files_and_compressed_ones() {
    let (_d, spec) = write("a.txt", &"A long story. ".repeat(100));
    let p = preparer(64);
    let (examples, report) = p.prepare_all(&load_records(&spec).unwrap()).unwrap();
    assert!(examples.len() > 3 && report.truncated == 0 && report.longest == 64, "{report:?}");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, b"[{\"q\": \"x\", \"a\": \"y\"}, {\"q\": \"x\", \"a\": \"z\"}]").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.json.gz");
    std::fs::write(&path, gz.finish().unwrap()).unwrap();
    let columns = [("prompt", "q"), ("completion", "a")].map(|(k, v)| (k.to_string(), v.to_string())).into();
    let spec = DataSpec { paths: vec![path.to_str().unwrap().into()], columns, ..Default::default() };
    assert_eq!(load_records(&spec).unwrap().len(), 2);
}

#[test]
fn truncation_is_counted() {
    let text = r#"{"prompt": "one two three four five six", "completion": " seven"}"#;
    let (_d, spec) = write("a.jsonl", &format!("{text}\n{{\"prompt\": \"a\", \"completion\": \" b\"}}\n"));
    let (examples, report) = preparer(5).prepare_all(&load_records(&spec).unwrap()).unwrap();
    assert_eq!((examples.len(), report.dropped), (1, 1), "the first has no room for its completion");
    let e = preparer(2).prepare_all(&load_records(&spec).unwrap()[..1]).unwrap_err();
    assert!(e.to_string().contains("max_length 2"), "{e}");
}

#[test]
fn labels() {
    let (_d, train) =
        write("a.jsonl", "{\"text\": \"good\", \"label\": \"pos\"}\n{\"text\": \"bad\", \"label\": \"neg\"}\n");
    let records = load_records(&train).unwrap();
    let labels = Labels::from_records(&records).unwrap();
    assert_eq!(labels.names, ["neg", "pos"]);
    let (_e, dev) = write("b.jsonl", "{\"text\": \"hm\", \"label\": \"neutral\"}\n");
    let mut p = preparer(50);
    p.labels = labels;
    let e = p.prepare_all(&load_records(&dev).unwrap()).unwrap_err().to_string();
    assert!(e.contains("b.jsonl:1") && e.contains("neutral") && e.contains("neg, pos"), "{e}");
    let (_f, numbers) =
        write("c.jsonl", "{\"text\": \"a\", \"text_pair\": \"b\", \"label\": 3.5}\n{\"text\": \"a\", \"label\": 4}\n");
    let targets: Vec<_> =
        p.prepare_all(&load_records(&numbers).unwrap()).unwrap().0.iter().map(|e| e.target.clone()).collect();
    assert_eq!(targets, [Some(Target::Value(3.5)), Some(Target::Value(4.0))]);
}

#[test]
fn the_first_token_of_a_word_has_its_tag() {
    let line = r#"{"tokens": ["Once", "upon", "unbelievably", "old", "."], "ner_tags": ["B-X", "O", "I-X", 0, "O"]}"#;
    let (_d, spec) = write("t.jsonl", &format!("{line}\n"));
    let records = load_records(&spec).unwrap();
    let mut p = preparer(64);
    p.labels = Labels { names: ["B-X", "I-X", "O"].map(String::from).into() };
    let (examples, report) = p.prepare_all(&records).unwrap();
    let (ids, Some(Target::Tags(tags))) = (&examples[0].sequences[0].input_ids, &examples[0].target) else {
        panic!("{:?}", examples[0].target)
    };
    assert_eq!(tags.iter().filter(|t| **t >= 0).copied().collect::<Vec<_>>(), [0, 2, 1, 0, 2]);
    assert_eq!((report.counted, ids.len()), (5, tags.len()));
    // words have a space before them, as in the middle of a text
    let starts: Vec<usize> = (0..tags.len()).filter(|&i| tags[i] >= 0).collect();
    let ends = starts[1..].iter().copied().chain([ids.len()]);
    let words: Vec<String> =
        starts.iter().zip(ends).map(|(&from, to)| p.tokenizer().decode(&ids[from..to], true).unwrap()).collect();
    assert_eq!(
        words.iter().map(|w| w.trim_end_matches('\n')).collect::<Vec<_>>(),
        [" Once", " upon", " unbelievably", " old", " ."]
    );
    // of a word that is cut off nothing counts
    p.max_length = starts[3];
    let (cut, report) = p.prepare_all(&records).unwrap();
    assert_eq!((cut[0].units(), report.truncated), (3, 1));
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    let expect = |name: &str, text: &str, parts: &[&str]| {
        let (_d, spec) = write(name, text);
        let e: Error = load_records(&spec).unwrap_err();
        let said = e.to_string();
        assert_eq!(e.exit_code(), 2);
        assert!(parts.iter().all(|p| said.contains(p)), "{said} lacks one of {parts:?}");
    };
    expect("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \"x\"\n", &["a.jsonl:2", "malformed"]);
    expect("a.jsonl", "\n\n", &["empty"]);
    expect(
        "a.jsonl",
        "{\"text\": \"x\"}\n{\"prompt\": \"x\", \"completion\": \"y\"}\n",
        &["a.jsonl:2", "mixed formats", "a.jsonl:1"],
    );
    expect("a.jsonl", "{\"foo\": 1}\n", &["a.jsonl:1", "`foo`"]);
    expect("a.jsonl", "{\"text\": 5}\n", &["a.jsonl:1", "a number"]);
    expect("a.jsonl", "[1]", &["record 1", "object"]);
    expect("a.xlsx", "x", &["a.xlsx", ".jsonl"]);
    expect("a.csv", "x", &["a.csv", "empty"]);
    expect("a.csv", "text,label\na\n", &["a.csv:2", "1 cells"]);
    expect("a.jsonl", "{\"messages\": []}\n", &["a.jsonl:1", "empty"]);
    let spec = DataSpec { paths: vec!["/nowhere/x.jsonl".into()], ..Default::default() };
    assert!(load_records(&spec).unwrap_err().to_string().contains("/nowhere/x.jsonl"));
    let bad = tempfile::tempdir().unwrap();
    assert!(TextTokenizer::load(bad.path()).err().unwrap().to_string().contains("tokenizer.json"));
}

#[test]
fn real_data_sets() {
    let Some(shared) = testing::shared_dir() else {
        println!("skipped: no shared data here");
        return;
    };
    let p = preparer(512);
    for (file, format) in [
        ("e2e/dev.jsonl", "prompt"),
        ("gsm8k/dev.jsonl", "prompt"),
        ("alpaca/dev.json", "prompt"),
        ("wikisql/valid.jsonl", "text"),
        ("tinyshakespeare/dev.txt", "stream"),
    ] {
        let spec =
            DataSpec { paths: vec![shared.join("data").join(file).to_str().unwrap().into()], ..Default::default() };
        let (examples, report) = p.prepare_all(&load_records(&spec).unwrap()).unwrap();
        println!("{file} ({format}): {report:?}");
        assert!(examples.len() > 20 && report.counted > 1000);
    }
    for file in ["sst2", "cola", "banking77", "stsb"] {
        let load = |split: &str| {
            let path = shared.join("data").join(file).join(split);
            load_records(&DataSpec { paths: vec![path.to_str().unwrap().into()], ..Default::default() }).unwrap()
        };
        let mut p = preparer(128);
        p.labels = Labels::from_records(&load("train.jsonl")).unwrap();
        let (examples, _) = p.prepare_all(&load("dev.jsonl")).unwrap();
        println!("{file}: {} labels, {} examples", p.labels.names.len(), examples.len());
        assert!(examples.iter().all(|e| e.target.is_some()));
    }
}
