//! Opening, checking and writing safetensors files: every rule of the format has its own error.

use half::{bf16, f16};
use loram_core::{LayerInput, LayerPlan, SchemeOptions, SchemeSpec, StoredWeight, initialize};
use loram_io::checkpoint::*;
use loram_io::{Checkpoint, DType, Error, testing};
use proptest::prelude::*;
use std::borrow::Cow;
use std::path::Path;

/// A file with this header text and that many data bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(std::iter::repeat_n(0u8, data));
    out
}

fn problem(header: &str, data: usize) -> HeaderProblem {
    parse_header(&file(header, data)).unwrap_err()
}

const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"BF16","shape":[1,3],"data_offsets":[8,14]}}"#;

#[test]
fn every_broken_header_has_its_name() {
    use HeaderProblem as P;
    let header = parse_header(&file(GOOD, 14)).unwrap();
    assert_eq!(header.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);

    assert!(matches!(parse_header(b"short"), Err(P::Truncated { found: 5 })));
    assert!(matches!(parse_header(&[0xff; 64]), Err(P::HeaderTooLarge { .. })));
    assert!(matches!(parse_header(&file(GOOD, 14)[..40]), Err(P::HeaderPastEnd { found: 40, .. })));
    let mut not_utf8 = file(GOOD, 14);
    not_utf8[10] = 0xff;
    assert!(matches!(parse_header(&not_utf8), Err(P::NotUtf8 { at: 10 })));
    assert!(matches!(problem("{]", 0), P::NotJson { .. }));
    assert!(matches!(problem("[1]", 0), P::NotJson { .. }));
    assert!(matches!(problem(&"[".repeat(100_000), 0), P::NotJson { .. }), "deep nesting must not use up the stack");
    let entry = |fields: &str, data| problem(&format!(r#"{{"x":{{{fields}}}}}"#), data);
    assert!(matches!(entry(r#""dtype":"F32""#, 0), P::BadEntry { .. }));
    assert!(matches!(entry(r#""dtype":"F32","shape":[-1],"data_offsets":[0,4]"#, 4), P::BadEntry { .. }));
    assert!(matches!(entry(r#""dtype":"F33","shape":[1],"data_offsets":[0,4]"#, 4), P::UnknownDtype { .. }));
    assert!(matches!(entry(r#""dtype":"F32","shape":[1],"data_offsets":[4,0]"#, 4), P::BackwardOffsets { .. }));
    assert!(matches!(
        entry(r#""dtype":"F32","shape":[2],"data_offsets":[0,8]"#, 4),
        P::OutOfRange { available: 4, .. }
    ));
    assert!(matches!(
        entry(r#""dtype":"F32","shape":[3],"data_offsets":[0,8]"#, 8),
        P::SizeMismatch { expected: 12, found: 8, .. }
    ));
    let huge = r#""dtype":"F32","shape":[4611686018427387904,16],"data_offsets":[0,0]"#;
    assert!(matches!(entry(huge, 0), P::ShapeOverflow { .. }));
    let two = |a: &str, b: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
        )
    };
    assert!(matches!(problem(&two("[0,4]", "[2,6]"), 6), P::Overlap { .. }));
    assert!(matches!(problem(&two("[0,4]", "[0,4]"), 4), P::Overlap { .. }));
    assert!(matches!(problem(&two("[0,4]", "[6,10]"), 10), P::Hole { bytes: 2, .. }));
    assert!(matches!(problem(&two("[0,4]", "[4,8]"), 11), P::TrailingBytes { bytes: 3 }));
    assert!(matches!(problem(&two("[0,4]", "[4,8]").replace("\"b\"", "\"a\""), 8), P::DuplicateName { .. }));
    assert!(matches!(problem(r#"{"__metadata__":{"a":1}}"#, 0), P::BadMetadata { .. }));
}

#[test]
fn empty_tensors_and_scalars_are_fine() {
    let text = r#"{"e":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    assert_eq!(parse_header(&file(text, 4)).unwrap().tensors.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_header(&bytes);
    }

    #[test]
    fn random_header_text_never_panics(text in "[\\[\\]{}\",:0-9a-zA-Z_ \\\\-]{0,120}", data in 0usize..40) {
        let _ = parse_header(&file(&text, data));
    }

    #[test]
    fn mutated_headers_never_panic_nor_reach_past_the_file(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = file(GOOD, 14);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(header) = parse_header(&bytes) {
            for t in header.tensors {
                prop_assert!(t.start + t.bytes <= bytes.len());
            }
        }
    }

    #[test]
    fn numbers_anywhere_in_an_entry_never_panic(dims in proptest::collection::vec(any::<u64>(), 0..4), a in any::<u64>(), b in any::<u64>()) {
        let text = format!(r#"{{"x":{{"dtype":"F16","shape":{dims:?},"data_offsets":[{a},{b}]}}}}"#);
        let _ = parse_header(&file(&text, 16));
    }

    #[test]
    fn index_text_never_panics(text in "[\\[\\]{}\",:a-z./_ ]{0,100}") {
        let _ = parse_index(&text);
    }
}

fn write(dir: &Path, name: &str, tensors: &[(&str, DType, &[usize], &[f32])]) {
    let tensors = tensors.iter().map(|(n, d, s, v)| (TensorSpec::new(*n, *d, s), Cow::Borrowed(*v))).collect();
    write_safetensors(dir.join(name), &pt_metadata(), tensors).unwrap();
}

#[test]
fn written_tensors_read_back_in_every_float_type() {
    let dir = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..200_000).map(|i| ((i * 7919) % 1000) as f32 / 37.0 - 13.0).collect();
    let all = [DType::F64, DType::F32, DType::F16, DType::BF16];
    let tensors: Vec<_> = all.iter().map(|d| (d.name(), *d, &[400usize, 500][..], &values[..])).collect();
    write(dir.path(), "model.safetensors", &tensors);
    let ckpt = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(ckpt.files()[0].metadata["format"], "pt");
    for d in all {
        let t = ckpt.tensor(d.name()).unwrap();
        assert_eq!((t.dtype(), t.shape()), (d, &[400, 500][..]));
        let expected: Vec<f32> = values
            .iter()
            .map(|v| match d {
                DType::F16 => f16::from_f32(*v).to_f32(),
                DType::BF16 => bf16::from_f32(*v).to_f32(),
                _ => *v,
            })
            .collect();
        assert_eq!(t.to_f32().unwrap(), expected, "{d}");
        let mut part = vec![0.0; 1000];
        t.stored().unwrap().read(70_123..71_123, &mut part);
        assert_eq!(part, expected[70_123..71_123]);
        let (whole, in_file) = (StoredWeight::of(&expected, 400, 500), t.in_file().unwrap());
        assert_eq!(in_file.try_sums().unwrap(), whole.sums(), "{d}: the same bits from the file as from memory");
        for gain in ["log", "sketch"] {
            let spec = SchemeSpec::parse("loram", &SchemeOptions::default().with("gain", gain)).unwrap();
            let plan = LayerPlan { path: "layer".into(), n: 400, m: 500, r: 4, lora_alpha: 4.0, scaling: 1.0 };
            let read = initialize(&spec, LayerInput::read(&spec, &in_file, &plan, 0).unwrap(), &plan, 0).unwrap();
            let whole = initialize(&spec, whole, &plan, 0).unwrap();
            assert!(read.factors == whole.factors && read.recipe == whole.recipe, "{d} {spec:?}");
        }
        t.check_finite().unwrap();
        t.release();
        assert_eq!(t.to_f32().unwrap(), expected, "the same after its pages were released");
    }
    let in_place = |name: &str| ckpt.tensor(name).unwrap().stored().unwrap().as_f32().is_some_and(|x| x == values);
    assert!(in_place("F32") && !in_place("BF16") && !in_place("F16"));
    // the same again gives the same bytes
    let first = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    write(dir.path(), "again.safetensors", &tensors);
    assert_eq!(first, std::fs::read(dir.path().join("again.safetensors")).unwrap());
}

#[test]
fn misaligned_data_is_read_correctly() {
    let dir = tempfile::tempdir().unwrap();
    for odd in 0..8 {
        let text = format!("{GOOD}{}", " ".repeat(odd));
        let mut bytes = file(&text, 0);
        bytes.extend([1.5f32, -2.25].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend([0.5f32, 3.0, -1.0].iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()));
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        let ckpt = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(ckpt.tensor("a").unwrap().to_f32().unwrap(), [1.5, -2.25]);
        assert_eq!(ckpt.tensor("b").unwrap().to_f32().unwrap(), [0.5, 3.0, -1.0]);
        let sums = |name: &str| ckpt.tensor(name).unwrap().in_file().unwrap().try_sums();
        assert_eq!(sums("a").unwrap(), (-0.75, 7.3125));
        assert_eq!(sums("b").unwrap(), (2.5, 10.25));
        // a file that is cut off meanwhile is an error with its name
        let path = dir.path().join("model.safetensors");
        let len = std::fs::metadata(&path).unwrap().len();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(len - 8).unwrap();
        let error = sums("b").unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }
}

#[test]
fn non_finite_weights_are_found_by_name_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut values = vec![0.5f32; 300 * 400];
    values[100 * 400 + 7] = f32::NAN;
    values[200 * 400] = f32::INFINITY;
    for d in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        write(dir.path(), "model.safetensors", &[("layer.weight", d, &[300, 400], &values)]);
        let e = Checkpoint::open(dir.path()).unwrap().tensor("layer.weight").unwrap().check_finite().unwrap_err();
        let e = e.to_string();
        assert!(e.contains("layer.weight") && e.contains("2 NaN or infinite") && e.contains("[100, 7]"), "{e}");
    }
}

#[test]
fn half_precision_does_not_overflow_silently_and_integers_are_no_weights() {
    let dir = tempfile::tempdir().unwrap();
    let spec = |d| vec![(TensorSpec::new("w", d, &[1]), Cow::Owned(vec![70_000.0f32]))];
    let path = dir.path().join("x.safetensors");
    let e = write_safetensors(&path, &pt_metadata(), spec(DType::F16)).unwrap_err();
    assert!(e.to_string().contains("beyond the range of F16"), "{e}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left behind");
    assert!(write_safetensors(&path, &pt_metadata(), spec(DType::I8)).is_err());

    let text = r#"{"q":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#;
    std::fs::write(dir.path().join("model.safetensors"), file(text, 4)).unwrap();
    let q = Checkpoint::open(dir.path()).unwrap().tensor("q").unwrap();
    assert!(q.to_f32().unwrap_err().to_string().contains("I8"));
    assert_eq!(q.to_i64().unwrap(), [0; 4]);
}

#[test]
fn writer_refuses_wrong_order_wrong_size_and_missing_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let specs = || vec![TensorSpec::new("a", DType::F32, &[2]), TensorSpec::new("b", DType::F32, &[1])];
    let create = || SafetensorsWriter::create(&path, &pt_metadata(), specs()).unwrap();
    assert!(create().put_f32("b", &[0.0]).unwrap_err().to_string().contains("out of order"));
    assert!(create().put("a", &[0; 4]).is_err());
    let mut w = create();
    w.put_f32("a", &[1.0, 2.0]).unwrap();
    assert!(w.finish().unwrap_err().to_string().contains("`b`"));
    assert!(!path.exists());
    let twice = vec![TensorSpec::new("a", DType::F32, &[1]), TensorSpec::new("a", DType::F32, &[1])];
    assert!(SafetensorsWriter::create(&path, &pt_metadata(), twice).is_err());
}

#[test]
fn sharded_checkpoints_and_every_broken_index() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    write(d, "s1.safetensors", &[("a", DType::F32, &[1], &[1.0]), ("twice", DType::F32, &[1], &[5.0])]);
    write(d, "s2.safetensors", &[("b", DType::F32, &[1], &[2.0]), ("twice", DType::F32, &[1], &[6.0])]);
    let index = |map: &str| std::fs::write(d.join(INDEX_FILE), format!(r#"{{"weight_map":{map}}}"#)).unwrap();
    let open = || Checkpoint::open(d);
    let fails = |needle: &str| {
        let e = open().unwrap_err();
        assert!(matches!(e, Error::Index { .. }) && e.exit_code() == 2, "{e}");
        assert!(e.to_string().contains(needle), "{e}");
    };

    index(r#"{"a":"s1.safetensors","b":"s2.safetensors","twice":"s2.safetensors"}"#);
    let ckpt = open().unwrap();
    assert!(ckpt.is_sharded() && ckpt.len() == 3);
    assert_eq!(ckpt.tensor("twice").unwrap().to_f32().unwrap(), [6.0], "the index decides");
    let e = ckpt.tensor("aa").unwrap_err().to_string();
    assert!(e.contains("`aa`") && e.contains("nearest name is `a`"), "{e}");

    index(r#"{"a":"s1.safetensors","b":"s3.safetensors"}"#);
    fails("shard `s3.safetensors` is missing");
    index(r#"{"a":"s1.safetensors","c":"s2.safetensors","twice":"s1.safetensors"}"#);
    fails("`c`");
    index(r#"{"a":"s1.safetensors","b":"s2.safetensors"}"#);
    fails("in two shards");
    for outside in ["../x.safetensors", "/etc/passwd", "..\\\\x", "sub/../../x"] {
        index(&format!(r#"{{"a":"{outside}"}}"#));
        fails("outside the model folder");
    }
    index(r#"{"a":3}"#);
    fails("not a file name");
    index("{}");
    fails("empty");
    index("[]");
    fails("weight_map");
    std::fs::write(d.join(INDEX_FILE), "{").unwrap();
    fails("not JSON");
}

#[test]
fn folders_without_safetensors_say_why_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let says = |needle: &str| {
        let e = Checkpoint::open(dir.path()).unwrap_err();
        assert!(e.to_string().contains(needle) && e.exit_code() == 2, "{e}");
    };
    says("not a model folder");
    std::fs::write(dir.path().join("x.gguf"), "").unwrap();
    says("GGUF");
    std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    says("never loaded; convert once with");
    std::fs::write(dir.path().join("adapter_model.safetensors"), "").unwrap();
    says("adapter folder");
    let e = Checkpoint::open(dir.path().join("nowhere")).unwrap_err();
    assert!(e.to_string().contains("no such model folder"), "{e}");
    std::fs::write(dir.path().join("model.safetensors"), "").unwrap();
    says("truncated file: 0 bytes");
}

#[test]
fn our_small_model_opens_and_is_finite() {
    let ckpt = Checkpoint::open(testing::tiny_llama()).unwrap();
    assert!(ckpt.contains("model.embed_tokens.weight") && !ckpt.contains("lm_head.weight"));
    for name in ckpt.names() {
        let t = ckpt.tensor(name).unwrap();
        assert_eq!(t.dtype(), DType::BF16);
        t.check_finite().unwrap();
    }
}

#[test]
fn the_safetensors_library_reads_what_we_write() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "x.safetensors", &[("b", DType::BF16, &[3], &[1.0, 2.0, 3.0]), ("a", DType::F32, &[1], &[4.0])]);
    let bytes = std::fs::read(dir.path().join("x.safetensors")).unwrap();
    let st = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(st.tensor("a").unwrap().data(), 4.0f32.to_le_bytes());
    assert_eq!(st.tensor("b").unwrap().shape(), [3]);
}
