//! Metrics and figures of single examples in files. The list of objectives gives the order and the types of the figures.

use super::definition::ExampleScores;
use super::{metric, objectives};
use crate::metrics::Metrics;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An object of all figures: the loss, metrics over tokens, the counts, other metrics.
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let per_token = |name: &str| metric(name).is_some_and(|m| m.per_token);
        let mut map = serializer.serialize_map(Some(3 + self.others.len()))?;
        map.serialize_entry("loss", &self.loss)?;
        for (name, value) in self.others.iter().filter(|o| per_token(&o.0)) {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("tokens", &self.tokens)?;
        map.serialize_entry("examples", &self.examples)?;
        for (name, value) in self.others.iter().filter(|o| !per_token(&o.0)) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Metrics, D::Error> {
        struct Figures;
        impl<'de> Visitor<'de> for Figures {
            type Value = Metrics;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of metrics")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics, A::Error> {
                let (mut loss, mut tokens, mut examples, mut others) = (None, None, None, Vec::new());
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        // a loss that is NaN or infinite is written as null
                        "loss" => loss = Some(map.next_value::<Option<f64>>()?.unwrap_or(f64::NAN)),
                        "tokens" => tokens = Some(map.next_value()?),
                        "examples" => examples = Some(map.next_value()?),
                        _ => others.extend(map.next_value::<Option<f64>>()?.map(|v| (name, v))),
                    }
                }
                let missing = A::Error::missing_field;
                Ok(Metrics {
                    loss: loss.ok_or_else(|| missing("loss"))?,
                    tokens: tokens.ok_or_else(|| missing("tokens"))?,
                    examples: examples.ok_or_else(|| missing("examples"))?,
                    others,
                })
            }
        }
        deserializer.deserialize_map(Figures)
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
    use super::*;
    use crate::objective::{Classification, NextToken, Regression};

    /// The text is that of the files written so far.
    #[test]
    fn scores_keep_their_form() {
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

    #[test]
    fn names_with_and_without_prefix() {
        let mut m = Metrics::new(1.5, 9, 3);
        m.set(metric("accuracy").unwrap(), 0.5);
        m.set(metric("pearson").unwrap(), None);
        assert_eq!((m.get("eval_accuracy"), m.get("loss"), m.get("pearson")), (Some(0.5), Some(1.5), None));
        assert_eq!(
            m.values().into_iter().collect::<Vec<_>>(),
            [("accuracy".to_string(), 0.5), ("loss".to_string(), 1.5)]
        );
    }

    /// The texts are those of the files written so far.
    #[test]
    fn metrics_keep_their_form() {
        for text in [
            r#"{"loss":1.5,"perplexity":4.5,"token_accuracy":0.25,"tokens":9,"examples":3}"#,
            r#"{"loss":1.5,"tokens":9,"examples":3,"accuracy":0.5,"f1":0.0,"matthews_correlation":-0.5}"#,
        ] {
            let m: Metrics = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&m).unwrap(), text);
        }
        assert!(
            serde_json::from_str::<Metrics>(r#"{"loss":1.5,"tokens":9}"#).unwrap_err().to_string().contains("examples")
        );
    }
}
