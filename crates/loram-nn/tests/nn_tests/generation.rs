//! Generation against passes over whole sequences.

use crate::reference::{Reference, doubles, worst};
use loram_nn::Compute;
use loram_nn::{Batch, Generator, Model, feed_all};

/// Token by token with a cache is the same as all at once.
#[test]
fn generation_with_a_cache() {
    let others = ["gemma2", "gemma3", "granite", "phi3", "olmo3", "glm4", "exaone4", "ministral3"];
    for name in ["llama", "mistral", "qwen3", "smollm3", "llama-yarn", "llama-sharded"].into_iter().chain(others) {
        let reference = Reference::read(name);
        let model = reference.model(name, Compute::F32, false);
        let tokens: Vec<u32> = reference.batch().tokens[8..31].to_vec();
        // of a sequence alone: rotary embeddings may depend on its length
        let last = |n: usize| {
            let batch = Batch { lengths: vec![n], tokens: tokens[..n].to_vec(), ..Default::default() };
            let all = doubles(&model.logits(&batch).unwrap());
            all[all.len() - all.len() / n..].to_vec()
        };
        let mut text = model.generator().unwrap();
        let mut at = 0;
        for n in [5, 1, 1, 7, 1, 8] {
            let found = doubles(&text.feed(&tokens[at..at + n]).unwrap());
            at += n;
            let w = worst(&found, &last(at));
            assert!(w < 1e-4, "{name} after {at}: {w}");
        }
        text.truncate(5);
        let w = worst(&doubles(&text.feed(&tokens[5..6]).unwrap()), &last(6));
        assert!(w < 1e-4, "{name} after going back: {w}");
    }
}

/// The logits after the last of these tokens, of a pass over them alone.
fn last(model: &Model, tokens: &[u32]) -> Vec<f64> {
    let batch = Batch { lengths: vec![tokens.len()], tokens: tokens.to_vec(), ..Default::default() };
    let all = doubles(&model.logits(&batch).unwrap());
    all[all.len() - all.len() / tokens.len()..].to_vec()
}

/// Sequences that are fed together, some of them more tokens than others, do not see each other.
#[test]
fn several_sequences_together() {
    let names = ["llama", "phi3", "gemma3", "gpt-oss", "mixtral", "lfm2", "gpt2", "glm4", "minicpm"];
    for name in names {
        let reference = Reference::read(name);
        let model = reference.model(name, Compute::F32, false);
        let all = reference.batch().tokens;
        let texts = [&all[0..9], &all[8..31], &all[3..8]];
        let mut sequences: Vec<Generator<'_>> = (0..3).map(|_| model.generator().unwrap()).collect();
        let mut at = [0; 3];
        // a sequence joins, one leaves
        for step in [[5, 0, 2], [1, 9, 1], [1, 1, 1], [2, 5, 0], [0, 8, 0]] {
            let new: Vec<usize> = (0..3).filter(|&i| step[i] > 0).collect();
            let mut fed: Vec<(&mut Generator<'_>, &[u32])> = Vec::new();
            for (i, sequence) in sequences.iter_mut().enumerate().filter(|(i, _)| step[*i] > 0) {
                fed.push((sequence, &texts[i][at[i]..at[i] + step[i]]));
                at[i] += step[i];
            }
            let found = feed_all(&mut fed).unwrap();
            for (&i, found) in new.iter().zip(found) {
                let w = worst(&doubles(&found), &last(&model, &texts[i][..at[i]]));
                assert!(w < 1e-4, "{name}, sequence {i} after {}: {w}", at[i]);
                assert_eq!(sequences[i].tokens(), &texts[i][..at[i]]);
            }
        }
    }
}

#[test]
fn a_wrong_token_changes_nothing() {
    let reference = Reference::read("llama");
    let model = reference.model("llama", Compute::F32, false);
    let [mut a, mut b] = [model.generator().unwrap(), model.generator().unwrap()];
    assert!(feed_all(&mut []).unwrap().is_empty());
    let error = feed_all(&mut [(&mut a, &[1, 2]), (&mut b, &[u32::MAX])]).unwrap_err().to_string();
    assert!(error.contains("token id 4294967295"), "{error}");
    assert!(feed_all(&mut [(&mut a, &[1]), (&mut b, &[])]).is_err());
    assert!(a.tokens().is_empty() && b.tokens().is_empty());
}
