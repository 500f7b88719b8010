//! Rewrites a configuration into an equivalent one (Proposition 1 of 2507.06558): other scaling, initial factors and learning
//! rates, the same ΔW at every step.
//!
//! The factors of the two runs differ by the multiples c_A and c_B. Each requested key fixes one linear equation in ln c_A and
//! ln c_B; of several solutions the smallest one is taken. `loram_core::equivalence` says what follows.

use super::key::Mark;
use super::layer::Origin;
use super::lookup::{known_key, marked};
use super::table::TrainConfig;
use super::types::{FinetuningType, OptimKind};
use crate::{Error, Result};
use loram_core::equivalence::{Optimizer, Setting};
use loram_core::growth::Knob;
use loram_io::plan::Match;
use serde_json::{Map, Value};

/// An equivalent configuration.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The configuration.
    pub config: TrainConfig,
    /// Conditions under which it is equivalent.
    pub notes: Vec<String>,
}

/// p·ln c_A + q·ln c_B = value.
struct Equation {
    key: &'static str,
    p: f64,
    q: f64,
    value: f64,
}

impl TrainConfig {
    /// The kind of step that the optimiser takes.
    pub fn step_kind(&self) -> Optimizer {
        match self.optim {
            OptimKind::AdamW => Optimizer::Adam,
            OptimKind::Sgd => Optimizer::Sgd,
        }
    }

    /// The equivalent configuration with these values of [`Mark::Rewritable`] keys. `use_rslora` alone is a change of
    /// notation: `lora_alpha` takes the value that keeps the scaling. `loraplus_lr_ratio` alone changes the scaling.
    ///
    /// Errors: keys that are not rewritable, values of another type, keys that contradict each other; full fine-tuning;
    /// `lora-alpha`, which sets its own scaling, and existing adapters, if their scaling or factors would have to change.
    pub fn rewritten(&self, wanted: &Map<String, Value>) -> Result<Rewritten> {
        if self.finetuning_type == FinetuningType::Full {
            return Err(Error::Config("finetuning_type full has no factors to rewrite".into()));
        }
        self.number()?;
        let mut asked = self.clone();
        let mut keys = Vec::new();
        for (key, value) in wanted {
            let key = known_key(key, &Origin::Rewrite)?;
            if !key.is(Mark::Rewritable) {
                let all: Vec<&str> = marked(Mark::Rewritable).map(|k| k.name).collect();
                let what =
                    format!("{}: no equivalent setting follows from it; expected one of {}", key.name, all.join(", "));
                return Err(Error::Config(what));
            }
            asked.set_from(key, value, Origin::Rewrite, &Origin::Rewrite.to_string())?;
            keys.push(key.name);
        }
        asked.number()?;
        let kind = self.step_kind();
        let equations = self.equations(&asked, &keys)?;
        let (c_a, c_b) = solve(&equations)?;
        let mut new = self.clone();
        new.take_notation(&asked, &keys, c_a * c_b)?;
        new.take_setting(&self.setting().rescaled(kind, c_a, c_b), &asked, &keys, c_a * c_b)?;
        let notes = self.notes(&new);
        new.check_factors()?;
        Ok(Rewritten { config: new, notes })
    }

    /// The learning rate, where it is a number.
    fn number(&self) -> Result<f64> {
        self.learning_rate.value().ok_or_else(|| {
            let what = "equivalent settings follow from a number: give one (`loram plan --data` finds it)";
            Error::Config(format!("learning_rate is {}; {what}", self.learning_rate))
        })
    }

    /// The keys that give this run's first update the size of the plan's target, by changing one setting.
    pub fn solved(&self, found: &Match, knob: Knob) -> Result<Map<String, Value>> {
        let mut out = Map::new();
        // predictions are not more precise
        let mut set = |key: &str, value: f64| out.insert(key.into(), rounded(value, 4).into());
        match knob {
            Knob::Rate => {
                set("learning_rate", self.number()? * found.rate);
                for (key, value) in [("lr_a", self.lr_a), ("lr_b", self.lr_b)] {
                    value.map(|lr| set(key, lr * found.rate));
                }
            }
            Knob::Scaling => {
                let scheme = self.scheme()?;
                if !self.alpha_pattern.is_empty() || scheme.sets_scaling() {
                    let what =
                        if scheme.sets_scaling() { format!("`{scheme}` has") } else { "alpha_pattern has".into() };
                    let what = format!("{what} its own scalings: solve for lr or init");
                    return Err(Error::Config(what));
                }
                set("lora_alpha", self.alpha() * found.scaling);
            }
            Knob::Initialization => {
                set("init_scale_a", self.init_scale_a * found.init);
                set("init_scale_b", self.init_scale_b * found.init);
            }
        }
        Ok(out)
    }

    /// The settings that the equivalence relates. The scaling is relative to the present one, since layers may differ in it.
    fn setting(&self) -> Setting {
        let [a, b] = self.factors();
        Setting {
            scaling: 1.0,
            init_a: self.init_scale_a,
            init_b: self.init_scale_b,
            lr_a: a.learning_rate,
            lr_b: b.learning_rate,
            decay_a: a.weight_decay,
            decay_b: b.weight_decay,
            epsilon_a: a.epsilon,
            epsilon_b: b.epsilon,
        }
    }

    /// The divisor of `lora_alpha` for a rank.
    fn alpha_divisor(&self, r: usize) -> f64 {
        if self.use_rslora { (r as f64).sqrt() } else { r as f64 }
    }

    /// The power of the scaling's change by which the scheme itself changes each initial factor.
    fn follows(&self) -> Result<f64> {
        Ok(if self.scheme()?.over_scaling() { 0.5 } else { 0.0 })
    }

    fn equations(&self, asked: &TrainConfig, keys: &[&'static str]) -> Result<Vec<Equation>> {
        let power = match self.step_kind() {
            Optimizer::Sgd => 2.0,
            Optimizer::Adam => 1.0,
        };
        let follows = self.follows()?;
        let [a, b] = self.factors();
        let mut out = Vec::new();
        for &key in keys {
            let log = |new: f64, old: f64| {
                let value = (new / old).ln();
                match value.is_finite() {
                    true => Ok(value),
                    false => {
                        Err(Error::Config(format!("{key}: cannot change from {old} to {new}: both must be above 0")))
                    }
                }
            };
            let some = |x: Option<f64>| x.ok_or_else(|| Error::Config(format!("{key}: expected a number, found null")));
            let mut add = |p, q, value| out.push(Equation { key, p, q, value });
            match key {
                "lora_alpha" => {
                    let scaling = |c: &TrainConfig| c.alpha() / c.alpha_divisor(self.r);
                    add(1.0, 1.0, log(scaling(self), scaling(asked))?);
                }
                "learning_rate" => {
                    let value = log(asked.number()?, self.number()?)?;
                    add(power, 0.0, value);
                    add(0.0, power, value);
                }
                "lr_a" => add(power, 0.0, log(some(asked.lr_a)?, a.learning_rate)?),
                "lr_b" => add(0.0, power, log(some(asked.lr_b)?, b.learning_rate)?),
                "loraplus_lr_ratio" => {
                    let value = log(asked.loraplus_lr_ratio.unwrap_or(1.0), b.learning_rate / a.learning_rate)?;
                    add(-power, power, value);
                    if keys.iter().all(|k| matches!(*k, "loraplus_lr_ratio" | "use_rslora")) {
                        // into the scaling, as in LoRA+: A is unchanged
                        add(1.0, 0.0, 0.0);
                    }
                }
                "init_scale_a" => add(1.0 - follows, -follows, log(asked.init_scale_a, self.init_scale_a)?),
                "init_scale_b" => add(-follows, 1.0 - follows, log(asked.init_scale_b, self.init_scale_b)?),
                // a change of notation only
                _ => {}
            }
        }
        Ok(out)
    }

    /// `lora_alpha`, its patterns and `use_rslora`, so that every scaling becomes 1/`divide` of what it was.
    fn take_notation(&mut self, asked: &TrainConfig, keys: &[&str], divide: f64) -> Result<()> {
        let (old, r) = (self.clone(), self.r);
        let changes = asked.use_rslora != old.use_rslora;
        if !changes && near(divide, 1.0) {
            return Ok(());
        }
        let scheme = old.scheme()?;
        if scheme.sets_scaling() {
            let what = "sets lora_alpha itself: use init_lora_weights lora with the lora_alpha that it sets";
            return Err(Error::Config(format!("`{scheme}` {what}")));
        }
        if old.adapter_name_or_path.is_some() {
            let what = "adapter_name_or_path: the scaling is that of the adapter and cannot be rewritten";
            return Err(Error::Config(what.into()));
        }
        self.use_rslora = asked.use_rslora;
        if changes {
            self.origins.insert("use_rslora", Origin::Rewrite);
        }
        let renamed = |alpha: f64, r: usize| {
            let alpha = alpha / old.alpha_divisor(r) * asked.alpha_divisor(r);
            if near(divide, 1.0) { alpha } else { alpha / divide }
        };
        let alpha = if keys.contains(&"lora_alpha") { asked.alpha() } else { rounded(renamed(old.alpha(), r), 15) };
        self.lora_alpha = Some(alpha);
        self.origins.insert("lora_alpha", Origin::Rewrite);
        if changes && !old.rank_pattern.is_empty() {
            // every rank has its own divisor
            if let Some(key) = old.alpha_pattern.keys().find(|k| !old.rank_pattern.contains_key(*k)) {
                let what = format!("use_rslora: alpha_pattern has `{key}`, rank_pattern does not; name it in both");
                return Err(Error::Config(what));
            }
            let own = |key: &String| old.alpha_pattern.get(key).copied().unwrap_or(old.alpha());
            self.alpha_pattern = old.rank_pattern.iter().map(|(key, &r)| (key.clone(), renamed(own(key), r))).collect();
        } else {
            self.alpha_pattern.values_mut().for_each(|alpha| *alpha = renamed(*alpha, r));
        }
        if self.alpha_pattern != old.alpha_pattern {
            self.origins.insert("alpha_pattern", Origin::Rewrite);
        }
        Ok(())
    }

    /// Sets learning rates, weight decay, ε and the scales of the initial factors, as far as they change.
    fn take_setting(&mut self, new: &Setting, asked: &TrainConfig, keys: &[&str], divide: f64) -> Result<()> {
        if keys.contains(&"learning_rate") {
            self.put_rewritten("learning_rate", asked.number()?);
        }
        let set = |this: &mut TrainConfig, key: &'static str, holds: f64, value: f64| {
            if !near(holds, value) {
                let given = asked.get(key).and_then(|v| v.as_f64()).filter(|_| keys.contains(&key));
                this.put_rewritten(key, given.unwrap_or_else(|| rounded(value, 15)));
            }
        };
        let lr = |this: &TrainConfig| this.factors().map(|f| f.learning_rate);
        let [now, _] = lr(self);
        set(self, "lr_a", now, new.lr_a);
        // both set the learning rate of B: the requested one is kept
        if keys.contains(&"loraplus_lr_ratio") {
            self.lr_b = None;
            self.origins.remove("lr_b");
        } else if keys.contains(&"lr_b") {
            self.loraplus_lr_ratio = None;
            self.origins.remove("loraplus_lr_ratio");
        }
        if self.loraplus_lr_ratio.is_some() || keys.contains(&"loraplus_lr_ratio") {
            let holds = self.loraplus_lr_ratio.unwrap_or(1.0);
            set(self, "loraplus_lr_ratio", holds, new.lr_b / new.lr_a);
        } else {
            let [_, now] = lr(self);
            set(self, "lr_b", now, new.lr_b);
        }
        let [a, b] = self.factors();
        set(self, "weight_decay_a", a.weight_decay, new.decay_a);
        set(self, "weight_decay_b", b.weight_decay, new.decay_b);
        set(self, "adam_epsilon_a", a.epsilon, new.epsilon_a);
        set(self, "adam_epsilon_b", b.epsilon, new.epsilon_b);
        // the part that the scheme does itself at the new scaling
        let own = divide.powf(self.follows()?);
        let (scale_a, scale_b) = (self.init_scale_a, self.init_scale_b);
        if self.adapter_name_or_path.is_some() && !(near(new.init_a, scale_a) && near(new.init_b, scale_b)) {
            let what = "adapter_name_or_path: the factors are those of the adapter and cannot be rewritten";
            return Err(Error::Config(what.into()));
        }
        set(self, "init_scale_a", scale_a, new.init_a / own);
        set(self, "init_scale_b", scale_b, new.init_b / own);
        Ok(())
    }

    fn put_rewritten(&mut self, key: &'static str, value: f64) {
        // valid, since it is a positive multiple of a valid value
        if self.put(key, &value.into()).is_ok() {
            self.origins.insert(key, Origin::Rewrite);
        }
    }

    fn notes(&self, new: &TrainConfig) -> Vec<String> {
        let mut notes = Vec::new();
        if self.max_grad_norm > 0.0 {
            notes.push(format!(
                "equivalent as long as no step is clipped: the total norm of gradients, which max_grad_norm {} limits, differs \
                 between the two (0 turns clipping off)",
                self.max_grad_norm
            ));
        }
        if new.learning_rate != self.learning_rate || new.loraplus_lr_ratio != self.loraplus_lr_ratio {
            let key = if new.learning_rate != self.learning_rate { "learning_rate" } else { "loraplus_lr_ratio" };
            notes.push(format!("fully trained modules (heads, modules_to_save) follow {key} and train differently"));
        }
        notes
    }
}

/// The value rounded to this many digits.
fn rounded(x: f64, digits: usize) -> f64 {
    format!("{x:.*e}", digits - 1).parse().unwrap_or(x)
}

fn near(x: f64, y: f64) -> bool {
    (x - y).abs() <= 1e-12 * y.abs()
}

/// Solves all equations for c_A and c_B; of several solutions it returns the smallest. The error names contradicting keys.
fn solve(equations: &[Equation]) -> Result<(f64, f64)> {
    let sum = |f: &dyn Fn(&Equation) -> f64| equations.iter().map(f).sum::<f64>();
    let (pp, pq, qq) = (sum(&|e| e.p * e.p), sum(&|e| e.p * e.q), sum(&|e| e.q * e.q));
    let (pv, qv) = (sum(&|e| e.p * e.value), sum(&|e| e.q * e.value));
    let det = pp * qq - pq * pq;
    let (x, y) = match (det > 1e-9, pp + qq > 0.0) {
        (true, _) => ((qq * pv - pq * qv) / det, (pp * qv - pq * pv) / det),
        // equations of rank 1: N⁺ = N/tr(N)²
        (false, true) => {
            let trace = (pp + qq).powi(2);
            ((pp * pv + pq * qv) / trace, (pq * pv + qq * qv) / trace)
        }
        (false, false) => (0.0, 0.0),
    };
    match equations.iter().find(|e| (e.p * x + e.q * y - e.value).abs() > 1e-9) {
        Some(e) => {
            let all: Vec<&str> = equations.iter().map(|e| e.key).collect();
            Err(Error::Config(format!("{}: no equivalent setting has all of these values ({})", e.key, all.join(", "))))
        }
        None => Ok((x.exp(), y.exp())),
    }
}
