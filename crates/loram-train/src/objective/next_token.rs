//! Next-token prediction: cross-entropy of every token that counts.

use super::batches::{batch_and_loss, each};
use super::column::{Column, ColumnType};
use super::definition::{Evaluation, ExampleScores, Objective, Pass, Task, Trained};
use super::metric::Metric;
use super::settings::LossSettings;
use crate::metrics::Metrics;
use crate::{Error, Result};
use loram_io::data::{Example, Record};
use loram_nn::{CrossEntropy, HeadKind, Loss, Model};

/// Continue texts (`causal_lm`).
#[derive(Debug)]
pub struct NextToken;

const PERPLEXITY: Metric =
    Metric { higher_is_better: false, per_token: true, ..Metric::new("perplexity", "perplexity", "perplexity") };
const TOKEN_ACCURACY: Metric =
    Metric { percent: true, per_token: true, ..Metric::new("token_accuracy", "token accuracy", "token accuracy") };
/// Greedy generation gives a completion exactly if each of its tokens has the largest logit behind those before it.
const EXACT_MATCH: Metric =
    Metric { percent: true, of_examples: true, ..Metric::new("exact_match", "exact match", "exact match") };

impl NextToken {
    /// Scores of single examples: sums of the losses of their counted tokens, the number of these tokens, and how many of
    /// them had the largest logit.
    pub fn scores(nats: Vec<f64>, tokens: Vec<u64>, correct: Vec<u64>) -> ExampleScores {
        let columns =
            [("nats", Column::Real(nats)), ("tokens", Column::Whole(tokens)), ("correct", Column::Whole(correct))];
        ExampleScores::of(&NextToken, columns)
    }
}

impl Objective for NextToken {
    fn name(&self) -> &'static str {
        "causal_lm"
    }

    /// As the subcommand of TRL and the stage of LLaMA-Factory.
    fn aliases(&self) -> &'static [&'static str] {
        &["sft"]
    }

    fn takes(&self, record: &Record) -> bool {
        record.texts.len() == 1 && record.label.is_none()
    }

    fn head(&self, _: &[String]) -> HeadKind {
        HeadKind::LanguageModel
    }

    fn guess(&self, outputs: usize) -> Option<f64> {
        (outputs > 1).then(|| (outputs as f64).ln())
    }

    fn trained(&self, trained: &Trained<'_>) -> bool {
        trained.head() == HeadKind::LanguageModel
    }

    /// The label of a token is the next token where that counts.
    fn losses(&self, _: &mut Model, passes: &[Pass<'_>], _: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        each(passes, |examples| Ok(Box::new(CrossEntropy::new(examples.iter().flat_map(|e| e.labels()).collect()))))
    }

    fn metrics(&self) -> &'static [Metric] {
        &[Metric::LOSS, PERPLEXITY, TOKEN_ACCURACY, EXACT_MATCH]
    }

    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics> {
        let (counted, correct) = (found.loss.counted, found.loss.correct);
        if counted == 0 {
            return Err(Error::Data("no token of the evaluation data counts for the loss".into()));
        }
        let mut metrics = found.metrics();
        metrics.tokens = counted as u64;
        metrics.set(PERPLEXITY, metrics.loss.exp());
        metrics.set(TOKEN_ACCURACY, correct as f64 / counted as f64);
        Ok(metrics)
    }

    fn scores_kind(&self) -> &'static str {
        "language"
    }

    fn score_columns(&self) -> &'static [(&'static str, ColumnType)] {
        &[("nats", ColumnType::Real), ("tokens", ColumnType::Whole), ("correct", ColumnType::Whole)]
    }

    /// One example at a time: the model returns the loss of a batch as one number.
    fn example_scores(
        &self,
        model: &mut Model,
        task: Task<'_>,
        examples: &[Example],
        _: usize,
    ) -> Result<ExampleScores> {
        let (mut nats, mut tokens, mut correct) = (Vec::new(), Vec::new(), Vec::new());
        for e in examples {
            let (batch, mut loss) = batch_and_loss(task, model, [e])?;
            let found = model.evaluate(&batch, &mut *loss)?.loss;
            nats.push(found.loss_sum);
            tokens.push(found.counted as u64);
            correct.push(found.correct as u64);
        }
        Ok(NextToken::scores(nats, tokens, correct))
    }

    fn score(&self, scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64> {
        let nats = || chosen.iter().map(|&i| scores.reals("nats")[i]).sum::<f64>();
        let count = |name| chosen.iter().map(|&i| scores.wholes(name)[i]).sum::<u64>() as f64;
        Some(match metric {
            "loss" => nats() / count("tokens"),
            "perplexity" => (nats() / count("tokens")).exp(),
            "token_accuracy" => count("correct") / count("tokens"),
            "exact_match" => {
                let exact = |i: &&usize| scores.wholes("correct")[**i] == scores.wholes("tokens")[**i];
                chosen.iter().filter(exact).count() as f64 / chosen.len() as f64
            }
            _ => return None,
        })
    }
}
