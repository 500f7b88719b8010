//! Examples: records as tokens, ready for a model.

/// The target of a text for a head.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// Id of a class.
    Class(usize),
    /// A number.
    Value(f32),
    /// For each class, by id, true where it holds.
    Classes(Vec<bool>),
    /// For each token the id of its class, −100 where it has none.
    Tags(Vec<i64>),
    /// True for an answer that is desirable.
    Desirable(bool),
}

/// A sequence of tokens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sequence {
    /// Tokens.
    pub input_ids: Vec<u32>,
    /// True for each token that the loss counts. Empty for heads.
    pub loss_mask: Vec<bool>,
    /// Segment per token; empty when there is one.
    pub token_type_ids: Vec<u32>,
    /// True when the text was truncated.
    pub truncated: bool,
}

impl Sequence {
    /// Per token the id of the next one where that counts, else −100.
    pub fn labels(&self) -> impl Iterator<Item = i64> {
        (0..self.input_ids.len()).map(|i| match self.loss_mask.get(i + 1) {
            Some(true) => i64::from(self.input_ids[i + 1]),
            _ => -100,
        })
    }

    /// Number of tokens that the loss counts: the first has nothing before it.
    pub fn counted(&self) -> usize {
        self.loss_mask.iter().skip(1).filter(|&&c| c).count()
    }
}

/// The part of a record that a model learns from at a time: one sequence, or several that are compared, such as an answer that
/// is preferred and one that is rejected.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Example {
    /// Sequences, in the order of the record's texts.
    pub sequences: Vec<Sequence>,
    /// The target of a head.
    pub target: Option<Target>,
    /// For each sequence Σ log p of its counted tokens, in nats, under the model that losses of preferences compare with; empty where
    /// that is not known yet.
    pub reference: Vec<f64>,
}

impl Example {
    /// An example of one sequence.
    pub fn of(sequence: Sequence) -> Example {
        Example { sequences: vec![sequence], ..Example::default() }
    }

    /// Number of tokens in all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(|s| s.input_ids.len()).sum()
    }

    /// Per token of all sequences the id of the next one where that counts, else −100.
    pub fn labels(&self) -> Vec<i64> {
        self.sequences.iter().flat_map(Sequence::labels).collect()
    }

    /// Number of units that the loss of the example is a sum over: the counted tokens of a single sequence, or those with a class
    /// of their own; 1 when there is another target, or several sequences are compared.
    pub fn units(&self) -> usize {
        match (&self.target, &self.sequences[..]) {
            (Some(Target::Tags(tags)), _) => tags.iter().filter(|&&t| t >= 0).count(),
            (None, [one]) => one.counted(),
            _ => 1,
        }
    }

    /// True when some sequence was truncated.
    pub fn truncated(&self) -> bool {
        self.sequences.iter().any(|s| s.truncated)
    }

    /// True when a sequence has nothing that the loss counts, so that there is nothing to learn or to compare. The
    /// sequences of heads have no mask and need none.
    pub(super) fn lacks_counted(&self) -> bool {
        if let Some(Target::Tags(_)) = self.target {
            return self.units() == 0;
        }
        self.sequences.iter().any(|s| s.counted() == 0 && (self.target.is_none() || !s.loss_mask.is_empty()))
    }
}
