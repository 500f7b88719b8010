//! Statistics that are collected while a model runs, against torch's hooks and autograd (`fixtures/make_observed.py`).

use loram_io::{Checkpoint, ModelConfig};
use loram_nn::{Batch, CrossEntropy, HeadKind, LoadOptions, Model, Observe};
use std::path::PathBuf;

fn at(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn fixture(name: &str) -> Checkpoint {
    let path = at(name);
    if path.is_dir() { Checkpoint::open(&path).unwrap() } else { Checkpoint::open_file(&path).unwrap() }
}

/// Sequences of the small Llama's reference, in batches of these.
fn batches(cut: &[std::ops::Range<usize>]) -> Vec<(Batch, CrossEntropy)> {
    let bytes = |name: &str| -> Vec<i64> {
        let file = fixture("ref/llama.safetensors");
        let tensor = file.tensor(name).unwrap();
        tensor.bytes().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (tokens, labels) = (bytes("input_ids"), bytes("labels"));
    let lengths: Vec<usize> = bytes("lengths").into_iter().map(|n| n as usize).collect();
    let start = |document: usize| lengths[..document].iter().sum::<usize>();
    let one = |r: &std::ops::Range<usize>| {
        let batch = Batch {
            tokens: tokens[start(r.start)..start(r.end)].iter().map(|&t| t as u32).collect(),
            lengths: lengths[r.clone()].to_vec(),
            ..Batch::default()
        };
        (batch, CrossEntropy::new(labels[start(r.start)..start(r.end)].to_vec()))
    };
    cut.iter().map(one).collect()
}

/// The second half of each document, from document 2 on.
fn later_halves(batch: &Batch, first: usize) -> Vec<bool> {
    let of = |(i, &n): (usize, &usize)| (0..n).map(|t| first + i >= 2 && t >= n / 2).collect::<Vec<_>>();
    batch.lengths.iter().enumerate().flat_map(of).collect()
}

#[test]
fn sums_over_inputs_and_gradients_are_those_of_torch() {
    let ckpt = fixture("models/llama");
    let config = ModelConfig::load(at("models/llama")).unwrap();
    let reference = fixture("ref/observed-llama.safetensors");
    for gradient_checkpointing in [false, true] {
        let options = LoadOptions { gradient_checkpointing, ..LoadOptions::new(HeadKind::LanguageModel) };
        let mut model = Model::load(&ckpt, &config, &options).unwrap();
        for (what, kind) in
            [(Observe::Covariance, "covariance"), (Observe::Moment, "moment"), (Observe::Gradient, "gradient")]
        {
            let wanted: Vec<String> =
                reference.names().filter_map(|n| Some(n.strip_suffix(&format!(".{kind}"))?.to_string())).collect();
            assert_eq!(wanted.len(), 5);
            for cut in [vec![0..3, 3..4], vec![0..1, 1..4], vec![0..2, 2..3, 3..4]] {
                model.observe(what, wanted.clone());
                for ((batch, mut loss), r) in batches(&cut).into_iter().zip(&cut) {
                    model.observe_batch(&batch, &mut loss, &later_halves(&batch, r.start), 1.0).unwrap();
                }
                let found = model.observed().unwrap();
                assert_eq!(found.len(), wanted.len());
                for (path, values) in found {
                    let want = reference.tensor(&format!("{path}.{kind}")).unwrap().to_f32().unwrap();
                    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                    let off = norm(&mut values.iter().zip(&want).map(|(x, w)| x - w)) / norm(&mut want.iter().copied());
                    assert!(off < 1e-5, "{path} {kind} in batches {cut:?} is off by {off:e}");
                }
            }
        }
        assert!(model.params().is_empty(), "nothing is trained");
    }
}
