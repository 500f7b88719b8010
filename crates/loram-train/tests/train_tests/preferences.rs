//! An objective over pairs of sequences from outside the crate: direct preference optimisation (2305.18290), with the model
//! without adapters as its reference.

use loram_core::Factors;
use loram_io::data::{Example, Preparer, Record, Sequence, Text};
use loram_io::testing::tiny_llama;
use loram_io::{Checkpoint, ModelConfig, TextTokenizer};
use loram_nn::{BatchLoss, HeadKind, IGNORE, LoadOptions, Lora, Loss, Model, Tensor};
use loram_train::objective::{
    Column, ColumnType, Evaluation, ExampleScores, LossSettings, Metric, Pass, Task, Trained, batch_and_loss,
    of_records,
};
use loram_train::optim::Optimizer;
use loram_train::{EvalOptions, Metrics, Objective, Result, TrainConfig, evaluate};

const BETA: f64 = 0.1;

#[derive(Debug)]
struct Preference;

/// Log-likelihoods of sequences: those of the model in this pass, and those of the reference. Sequences 2i and 2i + 1 are a
/// pair.
#[derive(Debug, Clone)]
struct Pairs {
    labels: Vec<i64>,
    /// The sequence of each row.
    sequence: Vec<usize>,
    now: Vec<f64>,
    reference: Option<Vec<f64>>,
}

impl Pairs {
    fn new(examples: &[&Example]) -> Pairs {
        let sequences: Vec<&Sequence> = examples.iter().flat_map(|e| &e.sequences).collect();
        let rows = sequences.iter().enumerate().flat_map(|(i, s)| vec![i; s.input_ids.len()]);
        Pairs {
            labels: sequences.iter().flat_map(|s| s.labels()).collect(),
            sequence: rows.collect(),
            now: vec![0.0; sequences.len()],
            reference: None,
        }
    }

    /// β times how far each pair is apart, beyond the reference.
    fn margins(&self) -> Vec<f64> {
        let reference = self.reference.as_ref().expect("the reference is known");
        let gain: Vec<f64> = self.now.iter().zip(reference).map(|(a, b)| a - b).collect();
        gain.chunks_exact(2).map(|pair| BETA * (pair[0] - pair[1])).collect()
    }
}

impl Loss for Pairs {
    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn counts(&self, row: usize) -> bool {
        self.labels[row] != IGNORE
    }

    fn counted(&self) -> usize {
        self.now.len() / 2
    }

    fn needs_all_rows(&self) -> bool {
        true
    }

    fn chunk(&mut self, logits: &mut Tensor, rows: &[usize], scale: f64, grad: bool) -> loram_nn::Result<()> {
        let slopes: Vec<f64> = match grad {
            true => self.margins().iter().map(|m| scale * BETA / (1.0 + m.exp())).collect(),
            false => Vec::new(),
        };
        let vocabulary = logits.cols();
        for (values, &row) in logits.as_mut_slice::<f32>().chunks_exact_mut(vocabulary).zip(rows) {
            let (s, label) = (self.sequence[row], self.labels[row] as usize);
            let total: f64 = values.iter().map(|&x| f64::from(x).exp()).sum();
            if !grad {
                self.now[s] += f64::from(values[label]) - total.ln();
                continue;
            }
            let weight = if s.is_multiple_of(2) { slopes[s / 2] } else { -slopes[s / 2] };
            for (i, x) in values.iter_mut().enumerate() {
                *x = (weight * (f64::from(*x).exp() / total - f64::from(u8::from(i == label)))) as f32;
            }
        }
        Ok(())
    }

    fn take(&mut self) -> loram_nn::Result<BatchLoss> {
        if self.reference.is_none() {
            return Ok(BatchLoss::default());
        }
        let margins = self.margins();
        self.now.fill(0.0);
        Ok(BatchLoss {
            loss_sum: margins.iter().map(|m| (-m).exp().ln_1p()).sum(),
            counted: margins.len(),
            correct: margins.iter().filter(|m| **m > 0.0).count(),
        })
    }
}

impl Objective for Preference {
    fn name(&self) -> &'static str {
        "preference"
    }

    fn takes(&self, record: &Record) -> bool {
        record.texts.len() == 2
    }

    fn head(&self, _: &[String]) -> HeadKind {
        HeadKind::LanguageModel
    }

    fn trained(&self, _: &Trained<'_>) -> bool {
        false
    }

    fn losses(&self, model: &mut Model, passes: &[Pass<'_>], _: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        let mut loss = |pass: &Pass<'_>| -> Result<Box<dyn Loss>> {
            let mut pairs = Pairs::new(&pass.examples);
            let mut reference = pairs.clone();
            model.without_adapters(|m| m.evaluate(&pass.batch, &mut reference).map(drop))??;
            pairs.reference = Some(reference.now);
            Ok(Box::new(pairs))
        };
        passes.iter().map(&mut loss).collect()
    }

    fn metrics(&self) -> &'static [Metric] {
        &[Metric::LOSS]
    }

    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics> {
        Ok(found.metrics())
    }

    fn scores_kind(&self) -> &'static str {
        "preferences"
    }

    fn score_columns(&self) -> &'static [(&'static str, ColumnType)] {
        &[("loss", ColumnType::Real)]
    }

    fn example_scores(
        &self,
        model: &mut Model,
        task: Task<'_>,
        examples: &[Example],
        _: usize,
    ) -> Result<ExampleScores> {
        let mut losses = Vec::new();
        for e in examples {
            let (batch, mut loss) = batch_and_loss(task, model, [e])?;
            losses.push(model.evaluate(&batch, &mut *loss)?.loss.loss_sum);
        }
        Ok(ExampleScores::new(&Preference, vec![("loss".into(), Column::Real(losses))]).expect("one column"))
    }

    fn score(&self, scores: &ExampleScores, _: &str, chosen: &[usize]) -> Option<f64> {
        (scores.len() == chosen.len()).then_some(0.0)
    }
}

fn model() -> Model {
    let dir = tiny_llama();
    let (checkpoint, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let mut model = Model::load(&checkpoint, &config, &LoadOptions::new(HeadKind::LanguageModel)).unwrap();
    let paths: Vec<(String, usize, usize)> = loram_io::linear_modules(&checkpoint, Some(&config))
        .unwrap()
        .into_iter()
        .filter(|m| m.path.ends_with("q_proj") || m.path.ends_with("v_proj"))
        .map(|m| (m.path, m.n, m.m))
        .collect();
    for (path, n, m) in paths {
        let a = (0..4 * m).map(|i| ((i * 7 + 3) % 11) as f32 * 0.02 - 0.1).collect();
        let factors = Factors { n, m, r: 4, a, b: vec![0.0; 4 * n] };
        let lora = Lora::new(factors, 2.0);
        model.attach(&path, lora).unwrap();
    }
    model
}

#[test]
fn pairs_are_learnt_against_the_model_without_adapters() {
    let pair = |at: &str, prompt: &str, answers: [&str; 2]| {
        let text = |a: &str| Text::PromptCompletion { prompt: prompt.into(), completion: a.into() };
        Record::compared(at, answers.map(text).into())
    };
    let records = [
        pair("a:1", "The colour of the sky is", [" blue.", " a question of the weather and of taste."]),
        pair("a:2", "Two and two", [" are four.", " are five."]),
    ];
    assert_eq!(of_records(&records).unwrap().name(), "dpo");
    let preparer = Preparer::new(TextTokenizer::load(tiny_llama()).unwrap(), 64, None);
    let (examples, report) = preparer.prepare_all(&records).unwrap();
    assert_eq!((examples.len(), report.examples, report.counted), (2, 2, 2));
    let longest = examples.iter().flat_map(|e| &e.sequences).map(|s| s.input_ids.len()).max().unwrap();
    assert_eq!((report.longest, report.tokens), (longest, examples.iter().map(Example::tokens).sum()));
    // a pair of which one half has no room for its answer cannot be compared
    let short = Preparer::new(TextTokenizer::load(tiny_llama()).unwrap(), longest - 1, None);
    assert_eq!(short.prepare_all(&records).unwrap().0.len(), 2, "truncated is not empty");
    let prompt = examples[0].sequences[0].loss_mask.iter().position(|&m| m).unwrap();
    let none = Preparer::new(TextTokenizer::load(tiny_llama()).unwrap(), prompt, None);
    assert!(none.prepare_all(&records[..1]).is_err());

    let mut model = model();
    let config = TrainConfig { learning_rate: 1e-2.into(), ..TrainConfig::default() };
    let mut optimizer = Optimizer::new(&config, model.params().iter()).unwrap();
    let mut losses = Vec::new();
    for step in 0..6 {
        let (batch, mut loss) = batch_and_loss(Task::new(&Preference, &[]), &mut model, &examples).unwrap();
        let lengths: Vec<usize> = examples.iter().flat_map(|e| &e.sequences).map(|s| s.input_ids.len()).collect();
        assert_eq!((batch.lengths.clone(), loss.counted()), (lengths, 2));
        model.params_mut().zero_grads().unwrap();
        let found = model.forward_backward(&batch, &mut *loss, 0.5, step).unwrap();
        optimizer.step(model.params_mut().iter_mut(), 1.0).unwrap();
        losses.push(found.loss_sum / found.counted as f64);
    }
    // with B = 0 the model is its own reference, bit for bit
    assert_eq!(losses[0], 1f64.ln_1p(), "{losses:?}");
    assert!(losses.windows(2).all(|w| w[1] < w[0]) && losses[5] < 0.6, "{losses:?}");
    // in one batch or in two
    let options = |batch_size| EvalOptions { batch_size, ..EvalOptions::default() };
    let [one, two] = [1, 2].map(|n| {
        evaluate(&mut model, Task::new(&Preference, &[]), &examples, options(n), &mut |_, _| {}).unwrap().loss
    });
    assert!((one - two).abs() < 1e-6 && one < losses[5], "{one} {two} {losses:?}");
}
