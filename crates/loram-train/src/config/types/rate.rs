//! The learning rate: a number, one that a line search finds, or one that follows from the size of the first step.

use super::key_type::{KeyType, text};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use std::cmp::Ordering;

/// The peak learning rate of a run, as a configuration gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LearningRate {
    /// Found by a line search on the training data.
    Auto,
    /// The same times a factor, for sweeps around it.
    AutoTimes(f64),
    /// This number.
    Value(f64),
    /// The rate at which the first step moves the weights by this share of their norm.
    StepSize(f64),
}

impl LearningRate {
    /// The number, if it is one.
    pub fn value(self) -> Option<f64> {
        match self {
            LearningRate::Value(x) => Some(x),
            LearningRate::Auto | LearningRate::AutoTimes(_) | LearningRate::StepSize(_) => None,
        }
    }

    /// The factor on the rate that a line search finds; `None` without a search.
    pub fn times_auto(self) -> Option<f64> {
        match self {
            LearningRate::Auto => Some(1.0),
            LearningRate::AutoTimes(factor) => Some(factor),
            LearningRate::Value(_) | LearningRate::StepSize(_) => None,
        }
    }

    /// Reads a share of the weights' norm: `0.3%` or `0.003`.
    pub fn step_size(text: &str) -> Option<LearningRate> {
        let (number, unit) = text.trim().strip_suffix('%').map_or((text.trim(), 1.0), |n| (n.trim_end(), 100.0));
        let share = number.parse::<f64>().ok()? / unit;
        (share > 0.0 && share <= 1.0).then_some(LearningRate::StepSize(share))
    }
}

impl Eq for LearningRate {}

/// `auto`, then numbers, then step sizes, then factors on `auto`, each from low to high.
impl Ord for LearningRate {
    fn cmp(&self, other: &LearningRate) -> Ordering {
        let key = |rate: &LearningRate| match *rate {
            LearningRate::Auto => (0, 0.0),
            LearningRate::Value(x) => (1, x),
            LearningRate::StepSize(x) => (2, x),
            LearningRate::AutoTimes(x) => (3, x),
        };
        let (a, b) = (key(self), key(other));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    }
}

impl PartialOrd for LearningRate {
    fn partial_cmp(&self, other: &LearningRate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<f64> for LearningRate {
    fn from(x: f64) -> LearningRate {
        LearningRate::Value(x)
    }
}

impl std::fmt::Display for LearningRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LearningRate::Auto => f.write_str("auto"),
            LearningRate::AutoTimes(x) => write!(f, "auto*{x}"),
            LearningRate::Value(x) => write!(f, "{x:e}"),
            // rounded, so that 0.3 % is not 0.30000000000000004 %
            LearningRate::StepSize(x) => write!(f, "step:{}%", (x * 1e14).round() / 1e12),
        }
    }
}

impl std::str::FromStr for LearningRate {
    type Err = String;

    fn from_str(text: &str) -> Result<LearningRate, String> {
        LearningRate::read(&text.into()).ok_or_else(|| format!("expected {}", LearningRate::expected()))
    }
}

impl KeyType for LearningRate {
    const PLACEHOLDER: &'static str = "X|auto|auto*F|step:SHARE";
    fn expected() -> String {
        "a number, 0 or more, auto, auto*F such as auto*0.5, or step:SHARE such as step:0.3%".into()
    }
    fn schema() -> Value {
        json!({ "anyOf": [
            { "type": "number", "minimum": 0 },
            { "type": "string", "pattern": r"^auto(\s*\*\s*[0-9.eE+-]+)?$" },
            { "type": "string", "pattern": r"^step:\s*[0-9.eE+-]+\s*%?$" },
        ] })
    }
    fn read(value: &Value) -> Option<LearningRate> {
        let given = text(value)?;
        let given = given.trim();
        if let Some(share) = given.strip_prefix("step:") {
            return LearningRate::step_size(share);
        }
        match given.split_at_checked(4).filter(|(word, _)| word.eq_ignore_ascii_case("auto")) {
            Some((_, "")) => Some(LearningRate::Auto),
            Some((_, rest)) => {
                let factor: f64 = rest.trim_start().strip_prefix('*')?.trim_start().parse().ok()?;
                (factor > 0.0 && factor.is_finite()).then_some(LearningRate::AutoTimes(factor))
            }
            None => f64::read(value).filter(|x| *x >= 0.0).map(LearningRate::Value),
        }
    }
    fn write(&self) -> Value {
        match self {
            LearningRate::Value(x) => json!(x),
            other => json!(other.to_string()),
        }
    }
}

impl Serialize for LearningRate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.write().serialize(to)
    }
}

impl<'de> Deserialize<'de> for LearningRate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<LearningRate, D::Error> {
        let value = Value::deserialize(from)?;
        let wrong = || serde::de::Error::custom(format!("found {value}, expected {}", LearningRate::expected()));
        LearningRate::read(&value).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_people_write_them() {
        use LearningRate::{Auto, AutoTimes, StepSize, Value as Number};
        for (given, wanted) in [
            (json!(2e-4), Some(Number(2e-4))),
            (json!("2e-4"), Some(Number(2e-4))),
            (json!(0), Some(Number(0.0))),
            (json!("Auto"), Some(Auto)),
            (json!("auto*0.56"), Some(AutoTimes(0.56))),
            (json!("auto * 2"), Some(AutoTimes(2.0))),
            (json!("auto*"), None),
            (json!("auto*-1"), None),
            (json!("automatic"), None),
            (json!("step:0.3%"), Some(StepSize(0.003))),
            (json!("step:0.003"), Some(StepSize(0.003))),
            (json!("step:0"), None),
            (json!("step:200%"), None),
            (json!("0.3%"), None),
            (json!(-1), None),
            (json!("fast"), None),
        ] {
            let found = LearningRate::read(&given);
            assert_eq!(found, wanted, "{given}");
            if let Some(rate) = found {
                assert_eq!(LearningRate::read(&rate.write()), Some(rate));
            }
        }
        assert_eq!(StepSize(0.003).to_string(), "step:0.3%");
        assert_eq!(StepSize(0.01 / 3.0).to_string(), "step:0.333333333333%");
    }
}
