//! Headers and recipes from elsewhere: random and mutated inputs never panic, and what is accepted is sound.
//! `PROPTEST_CASES=1000000 cargo test --workspace --test io_tests parsers::` tries more.

use loram_io::adapter::Recipe;
use loram_io::checkpoint::{parse_header, parse_index};
use proptest::prelude::*;
use std::path::Path;

/// A header with its length before it and `data` bytes behind it.
fn file(header: &[u8], data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; data]].concat()
}

const HEADER: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b.c":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"e":{"dtype":"I8","shape":[0],"data_offsets":[32,32]}}"#;
const RECIPE: &str = r#"{"format":1,"loram_version":"0.1.0","form":"native","scheme":"loram","options":{"basis":"dst","gain":"log","gain_statistic":"second-moment"},"seed":42,"layers":{"q":{"scheme":"loram","path":"q","n":8,"m":6,"r":2,"scaling":1.0,"seed":42,"beta":1.5,"gain":0.3,"basis":"dst"},"k":{"scheme":"gaussian","path":"k","n":8,"m":6,"r":2,"scaling":1.0,"seed":42}},"base":{"algorithm":"sha256-blocks","layers":{"q":"0011223344556677"}}}"#;
const INDEX: &str = r#"{"metadata":{"total_size":8},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#;

/// Replacements of a few bytes: bytes, digits, and meaningful pieces.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words: [&[u8]; 16] = [
        b"",
        b"-1",
        b"0",
        b"1e9",
        b"18446744073709551615",
        b"18446744073709551616",
        b"null",
        b"[]",
        b"{}",
        b"\"a\"",
        b"NaN",
        b"\"F64\"",
        b"../",
        b"[0,",
        b"\"loram\":",
        b"\\u0000",
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::collection::vec(b'0'..=b'9', 1..21),
        prop::sample::select(words.map(<[u8]>::to_vec).to_vec()),
    ]
}

/// The text with up to six stretches replaced.
fn mutated(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, piece()), 0..7).prop_map(move |edits| {
        let mut out = text.as_bytes().to_vec();
        for (at, cut, new) in edits {
            let at = at.index(out.len() + 1);
            let end = (at + cut).min(out.len());
            out.splice(at..end, new);
        }
        out
    })
}

fn check_header(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(header) = parse_header(bytes) else { return Ok(()) };
    let mut end = None;
    for t in &header.tensors {
        prop_assert_eq!(Some(t.bytes), t.dtype.bytes_for(&t.shape));
        prop_assert_eq!(t.start, end.unwrap_or(t.start), "no holes, no overlap");
        end = Some(t.start + t.bytes);
    }
    prop_assert!(end.is_none_or(|end| end == bytes.len()));
    // whatever we accept, the safetensors library accepts with the same contents
    let theirs = safetensors::SafeTensors::deserialize(bytes);
    prop_assert!(theirs.is_ok(), "{:?}", theirs.err());
    let theirs = theirs.unwrap();
    prop_assert_eq!(theirs.len(), header.tensors.len());
    for t in &header.tensors {
        let other = theirs.tensor(&t.name).unwrap();
        prop_assert_eq!((other.shape(), other.data().len()), (&t.shape[..], t.bytes));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000)))]

    #[test]
    fn headers_of_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in any::<bool>()) {
        check_header(&if prefix { file(&bytes, 8) } else { bytes })?;
    }

    #[test]
    fn mutated_headers(header in mutated(HEADER), data in prop_oneof![4 => Just(32usize), 1 => 0usize..64], cut in 0usize..40) {
        let whole = file(&header, data);
        check_header(&whole)?;
        check_header(&whole[..whole.len().saturating_sub(cut)])?;
    }

    #[test]
    fn mutated_recipes(text in mutated(RECIPE)) {
        let text = String::from_utf8_lossy(&text);
        if let Ok(recipe) = Recipe::parse(&text, Path::new("loram.json")) {
            prop_assert_eq!(recipe.format, 1);
            for layer in recipe.layers.values() {
                // larger ones only cost memory here
                let small = layer.n.saturating_add(layer.m).saturating_mul(layer.r) < 1 << 16;
                if let Some(init) = small.then(|| loram_core::from_recipe(layer)).flatten() {
                    prop_assert_eq!((init.n, init.m, init.r), (layer.n, layer.m, layer.r));
                    prop_assert_eq!(init.check(), Ok(()));
                    prop_assert!(layer.r <= layer.n.min(layer.m));
                }
            }
        }
    }

    #[test]
    fn mutated_indices(text in mutated(INDEX)) {
        if let Ok(map) = parse_index(&String::from_utf8_lossy(&text)) {
            for file in map.values() {
                let inside = Path::new(file).components().all(|c| matches!(c, std::path::Component::Normal(_)));
                prop_assert!(inside && !file.is_empty());
            }
        }
    }
}

#[test]
fn the_inputs_that_are_mutated_are_valid() {
    assert_eq!(parse_header(&file(HEADER.as_bytes(), 32)).unwrap().tensors.len(), 3);
    assert_eq!(Recipe::parse(RECIPE, Path::new("loram.json")).unwrap().layers.len(), 2);
    assert_eq!(parse_index(INDEX).unwrap().len(), 2);
}
