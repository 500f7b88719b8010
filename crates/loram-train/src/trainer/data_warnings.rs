//! Warnings about the data of a run, before it begins.

use crate::config::TrainConfig;
use crate::dataset::Dataset;
use loram_io::data::{Example, Target, expand_paths};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The warnings about data that are ready.
pub(super) fn data_warnings(train: &Dataset, eval: Option<&Dataset>, config: &TrainConfig) -> Vec<String> {
    let mut out = Vec::new();
    let sets = [("training", Some(train)), ("evaluation", eval)];
    for (name, set) in sets {
        let Some(set) = set else { continue };
        let r = &set.report;
        if r.truncated > 0 {
            out.push(format!(
                "{} of {} {name} examples were longer than max_length {} and were truncated",
                r.truncated, r.examples, set.max_length
            ));
        }
        if r.dropped > 0 {
            out.push(format!("{} {name} records were left out: no token of them counts for the loss", r.dropped));
        }
    }
    out.extend(equal_answers(train));
    out.extend(unbalanced(train));
    out.extend(spaces(train.prompts_with_space, train.report.examples));
    out.extend(shared_files(&config.train_data, &config.eval_data));
    out
}

/// A space at the end of a prompt becomes a token of its own, while tokenizers join it to the next word in other texts.
fn spaces(prompts: usize, examples: usize) -> Option<String> {
    (prompts > 0).then(|| {
        format!(
            "{prompts} of {examples} prompts end in a space: after training, prompts must end in one too, and most tokenizers \
             join it to the next word. Move the space to the start of the completion"
        )
    })
}

/// Pairs whose answers are the same, maybe after truncation.
fn equal_answers(train: &Dataset) -> Option<String> {
    let equal = |e: &&Example| matches!(&e.sequences[..], [a, b] if a.input_ids == b.input_ids);
    let n = train.examples.iter().filter(equal).count();
    (n > 0).then(|| {
        let of = train.report.examples;
        format!(
            "{n} of {of} pairs have the same tokens in both answers: there is nothing to prefer (max_length is {})",
            train.max_length
        )
    })
}

/// Weights that do not make up for different numbers of desirable and undesirable answers, by the bounds of KTO (2402.01306, eq. 8).
fn unbalanced(train: &Dataset) -> Option<String> {
    let judged = |yes| train.examples.iter().filter(|e| e.target == Some(Target::Desirable(yes))).count() as f64;
    let (desirable, undesirable) = (judged(true), judged(false));
    if desirable == undesirable || desirable + undesirable == 0.0 {
        return None;
    }
    if desirable.min(undesirable) == 0.0 {
        let label = desirable > 0.0;
        return Some(format!(
            "all answers have the label {label}: kto learns from the difference to answers of the other label"
        ));
    }
    let (d, u) = (train.loss.desirable_weight, train.loss.undesirable_weight);
    let ratio = d * desirable / (u * undesirable);
    (!(0.995..=1.335).contains(&ratio)).then(|| {
        let (low, high) = (u * undesirable / desirable, 1.33 * u * undesirable / desirable);
        format!(
            "{desirable} answers are desirable, {undesirable} are not: set desirable_weight to between {low:.2} and {high:.2} so that \
             both count alike (it is {d})"
        )
    })
}

/// An evaluation on training data measures what was learnt by heart.
fn shared_files(train: &[String], eval: &[String]) -> Option<String> {
    let files = |paths: &[String]| -> BTreeSet<PathBuf> {
        let all = expand_paths(paths).unwrap_or_default();
        all.into_iter().map(|p| std::fs::canonicalize(&p).unwrap_or_else(|_| p.into())).collect()
    };
    let shared = files(train).intersection(&files(eval)).next().cloned()?;
    Some(format!(
        "{} is training and evaluation data: the evaluation then measures what was learnt by heart, not what the model can do",
        shared.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_for_both_is_noticed_however_it_is_named() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name).display().to_string();
        for name in ["a.jsonl", "b.jsonl"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert!(
            shared_files(&[at("*.jsonl")], &[at("./b.jsonl")])
                .unwrap()
                .contains("b.jsonl is training and evaluation data")
        );
        assert_eq!(shared_files(&[at("a.jsonl")], &[at("b.jsonl")]), None);
        let demo = "demo:restaurants?n=8".to_string();
        assert!(shared_files(std::slice::from_ref(&demo), std::slice::from_ref(&demo)).is_some());
        assert_eq!(shared_files(&["demo:restaurants?n=8".into()], &["demo:restaurants?n=8&split=dev".into()]), None);
    }
}
