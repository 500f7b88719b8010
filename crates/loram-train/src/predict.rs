//! The answers of a model to the records of a data set: labels, numbers, or texts.

use crate::base::stage;
use crate::batching::{batch, eval_batches, permutation};
use crate::dataset::{DEFAULT_MAX_LENGTH, DataOptions, fetched};
use crate::generate::{GenerateOptions, Generated, end_of_turn, generate_all, prompt_ids};
use crate::observer::{Observer, Stage};
use crate::session::Session;
use crate::text_metrics::TextScores;
use crate::{Error, Result};
use loram_io::data::{Answer, DataSpec, Example, Input, Label, Labels, Preparer, Record, Target, Text, load_inputs};
use loram_nn::HeadKind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How answers are made.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictOptions {
    /// Records that the model works on at a time.
    pub batch_size: usize,
    /// For answers that are texts.
    pub generation: GenerateOptions,
    /// Texts for each record.
    pub samples: usize,
}

/// A text that a model wrote for a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Number of the record.
    pub record: usize,
    /// Number of the text among those of the record.
    pub sample: usize,
    /// The text.
    pub made: Generated,
}

/// The answers that a session's model gives.
pub fn answer_of(session: &Session) -> Answer {
    match session.objective.head(&session.labels) {
        HeadKind::LanguageModel => Answer::Text,
        HeadKind::Pooled { .. } => Answer::Label,
        HeadKind::Tokens { .. } => Answer::Tags,
    }
}

impl Session {
    /// Reads the records of a data set without what the model is asked for.
    ///
    /// # Errors
    /// Those of [`load_inputs`], and of downloads.
    pub fn inputs(&self, data: &DataOptions, observer: &mut dyn Observer) -> Result<Vec<Input>> {
        let source = data.paths.join(", ");
        stage(observer, Stage::Data, 0, 0, &source);
        let paths = fetched(&data.paths, observer)?;
        let spec = DataSpec { paths, format: None, columns: data.columns.clone(), text_field: data.text_field.clone() };
        let mut inputs = load_inputs(&spec, answer_of(self))?;
        if let Some(limit) = data.max_samples.filter(|n| *n < inputs.len()) {
            let mut order = permutation(inputs.len(), data.seed, 0);
            order.truncate(limit);
            order.sort_unstable();
            let mut all: Vec<Option<Input>> = inputs.into_iter().map(Some).collect();
            inputs = order.into_iter().filter_map(|i| all[i].take()).collect();
        }
        stage(observer, Stage::Data, inputs.len() as u64, inputs.len() as u64, &source);
        Ok(inputs)
    }

    /// Hands the row of each record to `row`, in their order: its own fields, and
    /// - of a language model `prediction` and `finish`, with `sample` where there are several texts for each;
    /// - of a classifier `prediction`, the label, or all that hold, and `probabilities` by label;
    /// - of a regression `prediction`, the number;
    /// - of a model for words `prediction` and `probabilities`, lists with the label of each word and its probability; null behind the
    ///   longest sequence.
    ///
    /// # Errors
    /// A record that does not fit the model; the error names it. Errors of `row`.
    pub fn predict(
        &self,
        data: &DataOptions,
        options: &PredictOptions,
        observer: &mut dyn Observer,
        row: &mut dyn FnMut(Map<String, Value>) -> Result<()>,
    ) -> Result<()> {
        let inputs = self.inputs(data, observer)?;
        let with = |input: &Input, answer: Map<String, Value>| {
            let mut fields = input.fields.clone();
            fields.extend(answer);
            fields
        };
        if answer_of(self) == Answer::Text {
            return self.write(&inputs, data, options, observer, &mut |input, Written { sample, made, .. }| {
                let mut answer = Map::new();
                if options.samples > 1 {
                    answer.insert("sample".into(), json!(sample));
                }
                answer.insert("prediction".into(), json!(made.text));
                answer.insert("finish".into(), json!(made.finish));
                row(with(input, answer))
            });
        }
        let preparer = self.preparer(data)?;
        let examples = inputs.iter().map(|input| self.example(&preparer, input)).collect::<Result<Vec<_>>>()?;
        let lengths: Vec<usize> = examples.iter().map(Example::tokens).collect();
        for range in eval_batches(&lengths, options.batch_size, 8192) {
            stage(observer, Stage::Predict, range.start as u64, inputs.len() as u64, "");
            let outputs = self.model.logits(&batch(&examples[range.clone()]))?;
            let rows = |e: &Example| match &e.target {
                Some(Target::Tags(tags)) => tags.len(),
                _ => 1,
            };
            let width = outputs.len() / examples[range.clone()].iter().map(rows).sum::<usize>().max(1);
            let mut outputs = outputs.chunks_exact(width.max(1));
            for (input, example) in inputs[range.clone()].iter().zip(&examples[range]) {
                let own: Vec<&[f32]> = outputs.by_ref().take(rows(example)).collect();
                let counted: Vec<&[f32]> = match &example.target {
                    Some(Target::Tags(tags)) => {
                        own.into_iter().zip(tags).filter(|(_, tag)| **tag >= 0).map(|(row, _)| row).collect()
                    }
                    _ => own,
                };
                let mut answer = self.objective.prediction(&counted, &self.labels);
                if let Text::Words(words) = &input.text {
                    for list in answer.values_mut().filter_map(Value::as_array_mut) {
                        list.resize(words.len(), Value::Null);
                    }
                }
                row(with(input, answer))?;
            }
        }
        stage(observer, Stage::Predict, inputs.len() as u64, inputs.len() as u64, "");
        Ok(())
    }

    /// Lets a language model write texts for all records, several at a time; `each` gets them in the order of the records.
    ///
    /// # Errors
    /// A record whose prompt leaves no room; the error names it. Errors of `each`.
    pub fn write(
        &self,
        inputs: &[Input],
        data: &DataOptions,
        options: &PredictOptions,
        observer: &mut dyn Observer,
        each: &mut dyn FnMut(&Input, Written) -> Result<()>,
    ) -> Result<()> {
        let preparer = self.preparer(data)?;
        let samples = options.samples.max(1);
        let total = (inputs.len() * samples) as u64;
        let mut prompts = Vec::new();
        for (i, input) in inputs.iter().enumerate() {
            let (ids, generation) = self.prompt(&preparer, input, &options.generation, data.max_length)?;
            if ids.len() >= generation.max_length {
                let what = format!("the prompt has {} tokens, the model takes {}", ids.len(), generation.max_length);
                return Err(Error::Data(format!("{}: {what} together with the answer", input.at)));
            }
            for sample in 0..samples {
                let mut own = generation.clone();
                own.sampling.seed = seed_of(generation.sampling.seed, i, sample);
                prompts.push((ids.clone(), own));
            }
        }
        // texts end in another order than they begin
        let mut early: BTreeMap<usize, Generated> = BTreeMap::new();
        let (mut next, mut done) = (0, 0);
        stage(observer, Stage::Predict, 0, total, "");
        generate_all(&self.model, &self.base.tokenizer, prompts, options.batch_size, &mut |index, made| {
            done += 1;
            stage(observer, Stage::Predict, done, total, "");
            early.insert(index, made);
            while let Some(made) = early.remove(&next) {
                let record = next / samples;
                each(&inputs[record], Written { record, sample: next % samples, made })?;
                next += 1;
            }
            Ok(())
        })
    }

    /// Lets a language model answer the records and compares the answers with those in the data.
    ///
    /// # Errors
    /// Those of [`Session::write`]; a record without an answer.
    pub fn evaluate_texts(
        &self,
        data: &DataOptions,
        options: &PredictOptions,
        observer: &mut dyn Observer,
    ) -> Result<TextScores> {
        let inputs = self.inputs(data, observer)?;
        if let Some(without) = inputs.iter().find(|input| input.reference.is_none()) {
            let what = "no completion to compare a generated answer with";
            return Err(Error::Data(format!("{}: {what}", without.at)));
        }
        let mut scores = TextScores::default();
        self.write(&inputs, data, options, observer, &mut |input, written| {
            scores.add(&written.made.text, input.reference.as_deref().unwrap_or_default());
            Ok(())
        })?;
        Ok(scores)
    }

    fn preparer(&self, data: &DataOptions) -> Result<Preparer> {
        let limit = self.base.config.max_length();
        let longest = data.max_length.unwrap_or(self.base.max_length().min(DEFAULT_MAX_LENGTH)).min(limit);
        let mut preparer = Preparer::new(self.base.tokenizer.clone(), longest, data.chat_template.clone());
        preparer.chat_template_kwargs.clone_from(&data.chat_template_kwargs);
        preparer.labels = Labels { names: self.labels.clone() };
        Ok(preparer)
    }

    /// The input of a head. The words of a text have the first label, which marks their first tokens.
    fn example(&self, preparer: &Preparer, input: &Input) -> Result<Example> {
        let label = match &input.text {
            Text::Words(words) => {
                let first = self.labels.first().cloned().unwrap_or_default();
                Some(Label::Tags(vec![Label::Name(first); words.len()]))
            }
            _ => None,
        };
        let record = Record { label, ..Record::new(input.at.clone(), input.text.clone()) };
        let none = || Error::Data(format!("{}: no tokens", input.at));
        preparer.prepare(&record)?.into_iter().next().ok_or_else(none)
    }

    /// The tokens of a prompt, and the settings with the ends that its chat template names; both together have at most `longest` tokens.
    fn prompt(
        &self,
        preparer: &Preparer,
        input: &Input,
        options: &GenerateOptions,
        longest: Option<usize>,
    ) -> Result<(Vec<u32>, GenerateOptions)> {
        let (tokenizer, mut options) = (&self.base.tokenizer, options.clone());
        options.max_length = longest.map_or(options.max_length, |n| n.min(options.max_length));
        let named = |e: Error| Error::Data(format!("{}: {e}", input.at));
        let ids = match &input.text {
            Text::Chat(chat) => {
                let template = preparer.template()?;
                let rendered = template.render(&chat.messages, &chat.context, true);
                let (id, text) = end_of_turn(template, tokenizer)?;
                options.eos.extend(id);
                options.stop.extend(text);
                tokenizer.encode(&rendered.map_err(|e| named(e.into()))?, false)?.ids
            }
            Text::PromptCompletion { prompt, .. } => prompt_ids(tokenizer, prompt).map_err(named)?,
            _ => return Err(Error::Data(format!("{}: no prompt", input.at))),
        };
        match ids.is_empty() {
            true => Err(Error::Data(format!("{}: the prompt is empty", input.at))),
            false => Ok((ids, options)),
        }
    }
}

/// The seed of a text: another one for each, whatever else is generated beside it.
fn seed_of(seed: u64, record: usize, sample: usize) -> u64 {
    let mut x = seed;
    for part in [record as u64, sample as u64] {
        // SplitMix64
        x = (x ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    x
}
