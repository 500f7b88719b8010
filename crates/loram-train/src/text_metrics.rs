//! Metrics of generated texts against references, as the libraries that papers use compute them.

use regex::Regex;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Sums over texts and their references.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextScores {
    texts: usize,
    exact: usize,
    rouge_l: f64,
    /// n-grams of 1 to 4 words that texts and references share, and those of the texts.
    shared: [usize; 4],
    made: [usize; 4],
    words: usize,
    reference_words: usize,
}

impl TextScores {
    /// Adds a text and its reference.
    pub fn add(&mut self, text: &str, reference: &str) {
        self.texts += 1;
        self.exact += usize::from(text.trim() == reference.trim());
        self.rouge_l += rouge_l(text, reference);
        let (text, reference) = (bleu_words(text), bleu_words(reference));
        self.words += text.len();
        self.reference_words += reference.len();
        for n in 1..=4 {
            let (mine, theirs) = (n_grams(&text, n), n_grams(&reference, n));
            self.made[n - 1] += mine.values().sum::<usize>();
            self.shared[n - 1] += mine.iter().map(|(gram, k)| *k.min(theirs.get(gram).unwrap_or(&0))).sum::<usize>();
        }
    }

    /// The figures: name, title, value from 0 to 1.
    pub fn described(&self) -> [(&'static str, &'static str, f64); 3] {
        [
            ("exact_match", "exact match", self.exact_match()),
            ("rouge_l", "ROUGE-L", self.rouge_l()),
            ("bleu", "BLEU", self.bleu()),
        ]
    }

    /// Number of texts.
    pub fn texts(&self) -> usize {
        self.texts
    }

    /// Share of texts that are equal to their reference, spaces around them apart.
    pub fn exact_match(&self) -> f64 {
        self.exact as f64 / self.texts.max(1) as f64
    }

    /// Mean F1 of the longest common subsequence of words, as `rouge_score` computes `rougeL` without stemming.
    pub fn rouge_l(&self) -> f64 {
        self.rouge_l / self.texts.max(1) as f64
    }

    /// BLEU of all texts together, 0 to 1: sacrebleu's with its defaults (tokenisation 13a, exponential smoothing), over 100.
    pub fn bleu(&self) -> f64 {
        if self.shared.iter().all(|&k| k == 0) {
            return 0.0;
        }
        let (mut logs, mut smooth) = (0.0, 1.0);
        for (&shared, &made) in self.shared.iter().zip(&self.made) {
            if made == 0 {
                return 0.0;
            }
            logs += match shared {
                0 => {
                    smooth *= 2.0;
                    (1.0 / (smooth * made as f64)).ln()
                }
                _ => (shared as f64 / made as f64).ln(),
            };
        }
        let short = 1.0 - self.reference_words as f64 / self.words.max(1) as f64;
        (logs / 4.0 + short.min(0.0)).exp()
    }
}

fn n_grams(words: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut out = HashMap::new();
    for gram in words.windows(n) {
        *out.entry(gram).or_default() += 1;
    }
    out
}

/// Words of mteval-v13a.
fn bleu_words(text: &str) -> Vec<String> {
    static RULES: LazyLock<[(Regex, &str); 4]> = LazyLock::new(|| {
        [
            (r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", " $1 "),
            (r"([^0-9])([\.,])", "$1 $2 "),
            (r"([\.,])([^0-9])", " $1 $2"),
            (r"([0-9])(-)", "$1 $2 "),
        ]
        .map(|(pattern, to)| (Regex::new(pattern).expect("a pattern"), to))
    });
    let mut text = text.replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, sign) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, sign);
    }
    text = format!(" {text} ");
    for (rule, to) in RULES.iter() {
        text = rule.replace_all(&text, *to).into_owned();
    }
    text.split_whitespace().map(str::to_string).collect()
}

/// F1 of the longest common subsequence of lower-case words of letters and digits.
fn rouge_l(text: &str, reference: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let lower = text.to_lowercase();
        let parts = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
        parts.filter(|w| !w.is_empty()).map(str::to_string).collect()
    };
    let (a, b) = (words(text), words(reference));
    let mut row = vec![0usize; b.len() + 1];
    for x in &a {
        let mut corner = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { corner + 1 } else { above.max(row[j]) };
            corner = above;
        }
    }
    let common = row[b.len()] as f64;
    match common > 0.0 {
        true => 2.0 * common / (a.len() + b.len()) as f64,
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Against rouge_score and sacrebleu (fixtures/make_text_metrics.py).
    #[test]
    fn as_the_libraries_of_papers() {
        let file = loram_io::testing::repo_root().join("fixtures/ref/text_metrics.json");
        let cases: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let mut scores = TextScores::default();
            for pair in case["pairs"].as_array().unwrap() {
                scores.add(pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            }
            for (name, found) in
                [("bleu", scores.bleu()), ("rouge_l", scores.rouge_l()), ("exact_match", scores.exact_match())]
            {
                let wanted = case[name].as_f64().unwrap();
                assert!((found - wanted).abs() < 1e-9, "{name} of {}: {found}, {wanted}", case["pairs"]);
            }
        }
    }
}
