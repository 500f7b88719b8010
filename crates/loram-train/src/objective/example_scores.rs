//! Figures of single examples, in the order of the data, and the metrics that follow from any choice of them.

use super::{Objective, objectives};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One kind of figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// A whole number for each example.
    Whole(Vec<u64>),
    /// A number for each example.
    Real(Vec<f64>),
    /// One number for all.
    Single(u64),
}

/// The type of a [`Column`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// [`Column::Whole`].
    Whole,
    /// [`Column::Real`].
    Real,
    /// [`Column::Single`].
    Single,
}

impl Column {
    /// The column as this type: a list of numbers may happen to be written without fractions.
    fn into_type(self, wanted: ColumnType) -> Option<Column> {
        match (wanted, self) {
            (ColumnType::Real, Column::Whole(v)) => Some(Column::Real(v.into_iter().map(|x| x as f64).collect())),
            (ColumnType::Real, c @ Column::Real(_))
            | (ColumnType::Whole, c @ Column::Whole(_))
            | (ColumnType::Single, c @ Column::Single(_)) => Some(c),
            _ => None,
        }
    }

    /// Indices, such as labels.
    pub fn of_indices(indices: &[usize]) -> Column {
        Column::Whole(indices.iter().map(|&i| i as u64).collect())
    }

    fn len(&self) -> Option<usize> {
        match self {
            Column::Whole(v) => Some(v.len()),
            Column::Real(v) => Some(v.len()),
            Column::Single(_) => None,
        }
    }
}

/// Figures of single examples. In a file: an object with the `kind` and the columns.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleScores {
    objective: &'static dyn Objective,
    columns: Vec<(&'static str, Column)>,
}

impl ExampleScores {
    /// Figures of an objective, in the order of its [`Objective::score_columns`].
    ///
    /// # Errors
    /// A column that is missing, of another type, or of another length than the others.
    pub fn new(objective: &'static dyn Objective, mut found: Vec<(String, Column)>) -> Result<ExampleScores, String> {
        let mut columns = Vec::new();
        for &(name, wanted) in objective.score_columns() {
            let at = found.iter().position(|c| c.0 == name).ok_or_else(|| format!("no `{name}`"))?;
            let column = found.swap_remove(at).1.into_type(wanted);
            columns.push((name, column.ok_or_else(|| format!("`{name}`: expected {wanted:?}").to_lowercase())?));
        }
        let mut lengths = columns.iter().filter_map(|(name, c)| Some((name, c.len()?)));
        if let Some((first, n)) = lengths.next()
            && let Some((other, m)) = lengths.find(|l| l.1 != n)
        {
            return Err(format!("{n} figures in `{first}`, {m} in `{other}`"));
        }
        Ok(ExampleScores { objective, columns })
    }

    /// Figures that an objective computed itself.
    pub(super) fn of<const N: usize>(objective: &'static dyn Objective, columns: [(&str, Column); N]) -> ExampleScores {
        let columns = columns.into_iter().map(|(name, column)| (name.to_string(), column)).collect();
        ExampleScores::new(objective, columns).expect("the columns of the objective, of equal length")
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.0 == name).map(|c| &c.1)
    }

    /// A column of numbers; empty when there is none.
    pub(super) fn reals(&self, name: &str) -> &[f64] {
        match self.column(name) {
            Some(Column::Real(v)) => v,
            _ => &[],
        }
    }

    /// A column of whole numbers; empty when there is none.
    pub(super) fn wholes(&self, name: &str) -> &[u64] {
        match self.column(name) {
            Some(Column::Whole(v)) => v,
            _ => &[],
        }
    }

    /// A number for all examples.
    pub(super) fn single(&self, name: &str) -> u64 {
        match self.column(name) {
            Some(Column::Single(n)) => *n,
            _ => 0,
        }
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.columns.iter().find_map(|c| c.1.len()).unwrap_or(0)
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A metric over these examples, which may repeat; `None` where it is not finite, not defined, or not one of the
    /// objective.
    pub fn metric(&self, name: &str, chosen: &[usize]) -> Option<f64> {
        self.objective.score(self, name, chosen).filter(|x| x.is_finite())
    }

    /// A metric over all examples.
    pub fn overall(&self, name: &str) -> Option<f64> {
        self.metric(name, &(0..self.len()).collect::<Vec<_>>())
    }
}

impl Serialize for ExampleScores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.columns.len()))?;
        map.serialize_entry("kind", self.objective.scores_kind())?;
        for (name, column) in &self.columns {
            map.serialize_entry(name, column)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ExampleScores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExampleScores, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = ExampleScores;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with `kind` and a list for each figure")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExampleScores, A::Error> {
                let (mut objective, mut columns) = (None, Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "kind" {
                        let kind: String = map.next_value()?;
                        let found = objectives().iter().copied().find(|o| o.scores_kind() == kind);
                        objective = Some(found.ok_or_else(|| A::Error::custom(format!("unknown kind `{kind}`")))?);
                    } else {
                        columns.push((name, map.next_value()?));
                    }
                }
                let objective = objective.ok_or_else(|| A::Error::missing_field("kind"))?;
                ExampleScores::new(objective, columns).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Classification, NextToken, Regression};
    use super::*;

    /// The text is that of the files written so far.
    #[test]
    fn files_keep_their_form() {
        let all = [
            (
                NextToken::scores(vec![2.0, 9.5], vec![2, 3], vec![1, 3]),
                r#"{"kind":"language","nats":[2.0,9.5],"tokens":[2,3],"correct":[1,3]}"#,
            ),
            (
                Classification::scores(vec![0.5, 1.0], vec![1, 0], vec![1, 1], 2),
                r#"{"kind":"classes","loss":[0.5,1.0],"predicted":[1,0],"actual":[1,1],"labels":2}"#,
            ),
            (
                Regression::scores(vec![1.0, 2.0], vec![1.0, 5.0]),
                r#"{"kind":"values","predicted":[1.0,2.0],"actual":[1.0,5.0]}"#,
            ),
        ];
        for (scores, text) in all {
            assert_eq!(serde_json::to_string(&scores).unwrap(), text);
            assert_eq!(serde_json::from_str::<ExampleScores>(text).unwrap(), scores);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, what) in [
            (r#"{"kind":"other"}"#, "other"),
            (r#"{"nats":[1.0]}"#, "kind"),
            (r#"{"kind":"values","predicted":[1.0]}"#, "no `actual`"),
            (r#"{"kind":"values","predicted":[1.0],"actual":[1.0,2.0]}"#, "1 figures in `predicted`, 2 in `actual`"),
            (r#"{"kind":"classes","loss":[1.0],"predicted":[0.5],"actual":[1],"labels":2}"#, "`predicted`"),
        ] {
            let error = serde_json::from_str::<ExampleScores>(text).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let whole: ExampleScores = serde_json::from_str(r#"{"kind":"values","predicted":[1],"actual":[3]}"#).unwrap();
        assert_eq!(whole.overall("mse"), Some(4.0));
    }
}
