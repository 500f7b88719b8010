//! Groups of parameters: a name, a peak learning rate, a weight decay and an ε each.

use crate::config::TrainConfig;
use crate::{Error, Result};
use loram_nn::{Param, ParamKind};
use serde::Serialize;

/// Peak learning rate of a new head that is 384 wide.
const HEAD_RATE: f64 = 3e-2;
/// Share of it for a head of regression, whose loss grows with the square of its outputs.
const REGRESSION: f64 = 0.1;
/// The largest peak learning rate that follows from a head's width.
const LARGEST: f64 = 1e-1;

/// Parameters that are trained alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// `lora_A`, `lora_B`, `head` (a new one), `modules_to_save`, `vectors` (biases and norms of these, where LoRA+ gives them
    /// B's rate), `tokens`, or `weights` in full fine-tuning.
    pub name: &'static str,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay (SGD adds it to the gradient, as torch does).
    pub weight_decay: f64,
    /// Epsilon of AdamW.
    pub epsilon: f64,
}

/// A head that the base model did not have: its layers begin at random.
#[derive(Debug, Clone, PartialEq)]
pub struct NewHead {
    /// Module paths.
    pub modules: Vec<String>,
    /// Input features of its layers.
    pub width: usize,
    /// Its output is a score, not one of several classes.
    pub regression: bool,
}

impl NewHead {
    /// The peak learning rate that follows from the width h: 3e-2·384/h and at most 1e-1; a tenth of that for regression.
    ///
    /// Adam moves each of the h weights of an output by about the rate, so that the output moves in proportion to h.
    pub fn default_rate(&self) -> f64 {
        let rate = (HEAD_RATE * 384.0 / self.width.max(1) as f64).min(LARGEST);
        if self.regression { REGRESSION * rate } else { rate }
    }

    /// True for a parameter of this head.
    pub fn holds(&self, param: &Param) -> bool {
        let of = |module: &String| param.name.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with('.'));
        self.modules.iter().any(of)
    }
}

/// The groups of a run, and the group of each parameter.
#[derive(Debug, Clone)]
pub struct Groups {
    list: Vec<Group>,
    /// The number of each parameter's group.
    of: Vec<usize>,
    learning_rate: f64,
}

impl Groups {
    /// The groups of these parameters. An error where the learning rate is not a number yet.
    pub fn new(config: &TrainConfig, head: Option<&NewHead>, params: &[&Param]) -> Result<Groups> {
        let Some(learning_rate) = config.learning_rate.value() else {
            let what = format!("learning_rate is {}, which has to be resolved to a number first", config.learning_rate);
            return Err(Error::Config(what));
        };
        let mut out = Groups { list: Vec::new(), of: Vec::new(), learning_rate };
        for param in params {
            let group = group(config, learning_rate, head, param);
            let known = out.list.iter().position(|g| *g == group);
            out.of.push(known.unwrap_or(out.list.len()));
            if known.is_none() {
                out.list.push(group);
            }
        }
        Ok(out)
    }

    /// The groups, in the order of their first parameter.
    pub fn list(&self) -> &[Group] {
        &self.list
    }

    /// The group of a parameter, by the parameter's number.
    pub(crate) fn of(&self, i: usize) -> &Group {
        &self.list[self.of[i]]
    }

    /// The run's peak learning rate.
    pub(crate) fn learning_rate(&self) -> f64 {
        self.learning_rate
    }
}

/// The group of a parameter. LoRA+ gives vectors the rate of B, as PEFT's `create_loraplus_optimizer` does.
fn group(config: &TrainConfig, learning_rate: f64, head: Option<&NewHead>, param: &Param) -> Group {
    let [a, b] = config.factors();
    let (plain, epsilon) = (config.weight_decay, config.adam_epsilon);
    let of_head = config.head_weight_decay.unwrap_or(plain);
    let is_vector = param.shape.len() == 1;
    let ratio = if is_vector { config.loraplus_lr_ratio.unwrap_or(1.0) } else { 1.0 };
    let (name, learning_rate, weight_decay, epsilon) = match (param.kind, head.filter(|h| h.holds(param))) {
        (ParamKind::LoraA, _) => ("lora_A", a.learning_rate, a.weight_decay, a.epsilon),
        (ParamKind::LoraB, _) => ("lora_B", b.learning_rate, b.weight_decay, b.epsilon),
        (_, Some(h)) => ("head", config.head_learning_rate.unwrap_or_else(|| h.default_rate()), of_head, epsilon),
        (ParamKind::Saved, None) => match config.head_learning_rate {
            Some(rate) => ("modules_to_save", rate, of_head, epsilon),
            None if ratio != 1.0 => ("vectors", learning_rate * ratio, of_head, epsilon),
            None => ("modules_to_save", learning_rate, of_head, epsilon),
        },
        (ParamKind::Tokens, None) => ("tokens", learning_rate, plain, epsilon),
        (ParamKind::Base, None) => ("weights", learning_rate, plain, epsilon),
    };
    Group { name, learning_rate, weight_decay, epsilon }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loram_nn::{Compute, Tensor};

    fn param(name: &str, kind: ParamKind, shape: &[usize]) -> Param {
        let value = Tensor::new(Compute::F32, 1, 4, &[0.0; 4]).unwrap();
        let grad = value.zeros_like().unwrap();
        Param { name: name.into(), kind, shape: shape.to_vec(), value, grad, decay: shape.len() > 1 }
    }

    #[test]
    fn every_parameter_has_a_group_with_its_own_rate() {
        let params = [
            param("layers.0.q_proj.lora_A.weight", ParamKind::LoraA, &[2, 2]),
            param("layers.0.q_proj.lora_B.weight", ParamKind::LoraB, &[2, 2]),
            param("score.weight", ParamKind::Saved, &[2, 2]),
            param("score.bias", ParamKind::Saved, &[4]),
            param("scorer.weight", ParamKind::Saved, &[2, 2]),
            param("norm.weight", ParamKind::Saved, &[4]),
        ];
        let params: Vec<&Param> = params.iter().collect();
        let head = NewHead { modules: vec!["score".into()], width: 768, regression: false };
        let rates = |config: &TrainConfig, head: Option<&NewHead>| {
            let groups = Groups::new(config, head, &params).unwrap();
            (0..params.len()).map(|i| (groups.of(i).name, groups.of(i).learning_rate)).collect::<Vec<_>>()
        };
        let base = TrainConfig { learning_rate: 1e-3.into(), loraplus_lr_ratio: Some(4.0), ..TrainConfig::default() };
        let modules = ("modules_to_save", 1e-3);
        assert_eq!(
            rates(&base, Some(&head)),
            [("lora_A", 1e-3), ("lora_B", 4e-3), ("head", 1.5e-2), ("head", 1.5e-2), modules, ("vectors", 4e-3)]
        );
        assert_eq!(rates(&base, None)[2..4], [modules, ("vectors", 4e-3)], "a head that the model had before");
        let given = TrainConfig { head_learning_rate: Some(0.2), head_weight_decay: Some(0.5), ..base.clone() };
        assert!(rates(&given, Some(&head))[2..].iter().all(|(_, rate)| *rate == 0.2));
        let groups = Groups::new(&given, Some(&head), &params).unwrap();
        assert_eq!((groups.of(0).weight_decay, groups.of(2).weight_decay), (0.0, 0.5));
        let e = Groups::new(&TrainConfig::default(), None, &params).unwrap_err().to_string();
        assert!(e.contains("learning_rate is auto"), "{e}");
    }

    #[test]
    fn the_rate_of_a_head_follows_its_width() {
        let rate = |width, regression| NewHead { modules: Vec::new(), width, regression }.default_rate();
        assert_eq!([rate(384, false), rate(768, false), rate(64, false)], [3e-2, 1.5e-2, 1e-1]);
        assert!((rate(384, true) - 3e-3).abs() < 1e-12);
    }
}
