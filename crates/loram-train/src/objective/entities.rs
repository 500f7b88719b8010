//! Entities in tagged words, and how many of them are found.

/// An entity: its type, its first and its last word.
type Entity<'a> = (&'a str, usize, usize);

/// A tag's prefix and the type after it, as seqeval cuts them: `B-PER` → (`B`, `PER`); without a type `_`.
fn cut(tag: &str) -> (char, &str) {
    let mut chars = tag.chars();
    let prefix = chars.next().unwrap_or('O');
    let rest = chars.as_str();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (prefix, if kind.is_empty() { "_" } else { kind })
}

/// True if an entity ends between two words.
fn ends((before, kind): (char, &str), (now, next): (char, &str)) -> bool {
    matches!(before, 'E' | 'S')
        || matches!((before, now), ('B' | 'I', 'B' | 'S' | 'O'))
        || (!matches!(before, 'O' | '.') && kind != next)
}

/// True if an entity begins between two words.
fn begins((before, kind): (char, &str), (now, next): (char, &str)) -> bool {
    matches!(now, 'B' | 'S')
        || matches!((before, now), ('E' | 'S' | 'O', 'E' | 'I'))
        || (!matches!(now, 'O' | '.') && kind != next)
}

/// The entities of a text, by the rules of conlleval and of seqeval's default mode, `get_entities`: IOB1, IOB2 and IOBES alike, and
/// a tag that continues nothing begins an entity.
fn entities<'a>(tags: &[&'a str]) -> Vec<Entity<'a>> {
    let (mut found, mut before, mut start) = (Vec::new(), ('O', ""), 0);
    for (i, tag) in tags.iter().copied().chain(["O"]).enumerate() {
        let now = cut(tag);
        if ends(before, now) {
            found.push((before.1, start, i - 1));
        }
        if begins(before, now) {
            start = i;
        }
        before = now;
    }
    found
}

/// Numbers of entities.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EntityCounts {
    /// Predicted with the right type and words.
    pub right: u64,
    /// Predicted.
    pub predicted: u64,
    /// In the data.
    pub actual: u64,
}

impl EntityCounts {
    /// Counts the entities of one text.
    pub fn of(predicted: &[&str], actual: &[&str]) -> EntityCounts {
        let (predicted, actual) = (entities(predicted), entities(actual));
        let right = predicted.iter().filter(|e| actual.contains(e)).count() as u64;
        EntityCounts { right, predicted: predicted.len() as u64, actual: actual.len() as u64 }
    }

    /// Adds another text.
    pub fn add(&mut self, other: EntityCounts) {
        self.right += other.right;
        self.predicted += other.predicted;
        self.actual += other.actual;
    }

    /// Share of those predicted that are right; 0 where none is.
    pub fn precision(&self) -> f64 {
        self.right as f64 / self.predicted.max(1) as f64
    }

    /// Share of those in the data that are found; 0 where there is none.
    pub fn recall(&self) -> f64 {
        self.right as f64 / self.actual.max(1) as f64
    }

    /// Harmonic mean of both; 0 where it is not defined.
    pub fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (self.predicted + self.actual).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// A data set of tagged texts with what seqeval says of it (`tests/reference.py`).
    #[derive(Deserialize)]
    struct Case {
        predicted: Vec<Vec<String>>,
        actual: Vec<Vec<String>>,
        precision: f64,
        recall: f64,
        f1: f64,
    }

    #[test]
    fn figures_are_those_of_seqeval() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/reference/entities.json")).unwrap();
        assert!(cases.len() >= 8);
        for (i, case) in cases.iter().enumerate() {
            let mut counts = EntityCounts::default();
            for (predicted, actual) in case.predicted.iter().zip(&case.actual) {
                let predicted: Vec<&str> = predicted.iter().map(String::as_str).collect();
                let actual: Vec<&str> = actual.iter().map(String::as_str).collect();
                counts.add(EntityCounts::of(&predicted, &actual));
            }
            for (name, found, expected) in [
                ("precision", counts.precision(), case.precision),
                ("recall", counts.recall(), case.recall),
                ("f1", counts.f1(), case.f1),
            ] {
                assert!((found - expected).abs() < 1e-12, "case {i}, {name}: {found}, expected {expected}");
            }
        }
    }
}
