//! Optimisers over the parameters of a model, and gradient clipping.

use crate::config::{OptimKind, TrainConfig};
use crate::groups::{Group, Groups, NewHead};
use crate::{Error, Result};
use loram_nn::kernels::optim::{AdamW, Sgd};
use loram_nn::optim::{AdamWStep, adamw, scale, sgd, sum_squares};
use loram_nn::{Compute, Param, Tensor};
use std::collections::BTreeMap;

/// AdamW or SGD with the formulas of `torch.optim`; rate, decay and ε are those of each parameter's [`Group`].
#[derive(Debug)]
pub struct Optimizer {
    kind: OptimKind,
    adam: AdamW,
    momentum: f64,
    groups: Groups,
    /// Per parameter: first and second moment for AdamW, the momentum buffer for SGD, nothing for SGD without.
    state: Vec<Vec<Tensor>>,
    steps: u64,
}

/// A tensor of the state: its name, its shape and its values.
pub type StateTensor = (String, Vec<usize>, Vec<f32>);

/// Names of the state tensors, as torch has them.
const ADAM_STATE: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const SGD_STATE: [&str; 1] = ["momentum_buffer"];

impl Optimizer {
    /// An optimiser at its first step, of parameters none of which belong to a new head.
    ///
    /// # Errors
    /// A learning rate that is not a number yet; a failure of the GPU.
    pub fn new<'a>(config: &TrainConfig, params: impl IntoIterator<Item = &'a Param>) -> Result<Optimizer> {
        Optimizer::with_head(config, None, params)
    }

    /// The same with a head that the base model did not have.
    ///
    /// # Errors
    /// See [`Optimizer::new`].
    pub fn with_head<'a>(
        config: &TrainConfig,
        head: Option<&NewHead>,
        params: impl IntoIterator<Item = &'a Param>,
    ) -> Result<Optimizer> {
        let params: Vec<&Param> = params.into_iter().collect();
        let groups = Groups::new(config, head, &params)?;
        let mut new = Optimizer {
            kind: config.optim,
            adam: AdamW {
                lr: groups.learning_rate(),
                beta1: config.adam_beta1,
                beta2: config.adam_beta2,
                eps: config.adam_epsilon,
                weight_decay: config.weight_decay,
            },
            momentum: config.momentum,
            groups,
            state: Vec::new(),
            steps: 0,
        };
        let names = new.state_names().len();
        let zeros = |p: &Param| (0..names).map(|_| p.value.zeros_like()).collect();
        new.state = params.into_iter().map(zeros).collect::<loram_nn::Result<_>>()?;
        Ok(new)
    }

    fn state_names(&self) -> &'static [&'static str] {
        match self.kind {
            OptimKind::AdamW => &ADAM_STATE,
            OptimKind::Sgd if self.momentum > 0.0 => &SGD_STATE,
            OptimKind::Sgd => &[],
        }
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Size of its state in bytes.
    pub fn bytes(&self) -> usize {
        let width = |t: &Tensor| if t.compute() == Compute::F64 { 8 } else { 4 };
        self.state.iter().flatten().map(|t| t.len() * width(t)).sum()
    }

    /// The groups of parameters, in the order of their first parameter.
    pub fn groups(&self) -> &[Group] {
        self.groups.list()
    }

    /// One step from the gradients that the parameters hold, at this share of each group's peak learning rate.
    ///
    /// # Errors
    /// A failure of the GPU, after which parameters and state are of no use.
    pub fn step<'a>(&mut self, params: impl IntoIterator<Item = &'a mut Param>, share: f64) -> Result<()> {
        self.steps += 1;
        let mut state = std::mem::take(&mut self.state);
        let mut each = params.into_iter().zip(&mut state).enumerate();
        let done = match self.kind {
            OptimKind::AdamW => adamw(
                &mut each.map(|(i, (p, state))| self.adamw_step(i, p, state, share)).collect::<Vec<_>>(),
                self.steps,
            ),
            OptimKind::Sgd => each.try_for_each(|(i, (p, state))| self.sgd_step(i, p, state, share)),
        };
        self.state = state;
        Ok(done?)
    }

    fn adamw_step<'a>(&self, i: usize, param: &'a mut Param, state: &'a mut [Tensor], share: f64) -> AdamWStep<'a> {
        let group = self.groups.of(i);
        let weight_decay = if param.decay { group.weight_decay } else { 0.0 };
        let how = AdamW { lr: share * group.learning_rate, weight_decay, eps: group.epsilon, ..self.adam };
        let [m, v] = state else { unreachable!("AdamW has two moments") };
        AdamWStep { p: &mut param.value, g: &param.grad, m, v, how }
    }

    fn sgd_step(&self, i: usize, param: &mut Param, state: &mut [Tensor], share: f64) -> loram_nn::Result<()> {
        let group = self.groups.of(i);
        let weight_decay = if param.decay { group.weight_decay } else { 0.0 };
        let lr = share * group.learning_rate;
        let how = Sgd { lr, momentum: self.momentum, dampening: 0.0, nesterov: false, weight_decay };
        sgd(&mut param.value, &param.grad, state.first_mut(), &how, self.steps)
    }

    /// The state by name, `<parameter>.exp_avg` and so on, with its shape.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn state<'a>(&self, params: impl IntoIterator<Item = &'a Param>) -> Result<Vec<StateTensor>> {
        let mut out = Vec::new();
        for (p, tensors) in params.into_iter().zip(&self.state) {
            for (name, t) in self.state_names().iter().zip(tensors) {
                out.push((format!("{}.{name}", p.name), p.shape.clone(), t.values()?));
            }
        }
        Ok(out)
    }

    /// Restores a saved state after `steps` steps.
    ///
    /// # Errors
    /// A tensor that is missing or has another size, by name; a failure of the GPU.
    pub fn restore<'a>(
        &mut self,
        params: impl IntoIterator<Item = &'a Param>,
        steps: u64,
        saved: &BTreeMap<String, Vec<f32>>,
    ) -> Result<()> {
        let names = self.state_names();
        for (param, state) in params.into_iter().zip(&mut self.state) {
            for (name, tensor) in names.iter().zip(state) {
                let key = format!("{}.{name}", param.name);
                match saved.get(&key) {
                    Some(values) if values.len() == tensor.len() => tensor.set_values(values)?,
                    Some(values) => {
                        let what = format!("`{key}` has {} values, expected {}", values.len(), tensor.len());
                        return Err(Error::Data(what));
                    }
                    None => return Err(Error::Data(format!("the optimiser state lacks `{key}`"))),
                }
            }
        }
        self.steps = steps;
        Ok(())
    }
}

/// Global gradient norm, summed in the order of names: a resumed run may hold its parameters in another order.
///
/// # Errors
/// A failure of the GPU.
pub fn grad_norm<'a>(params: impl IntoIterator<Item = &'a Param>) -> Result<f64> {
    let mut params: Vec<_> = params.into_iter().collect();
    params.sort_by(|a, b| a.name.cmp(&b.name));
    let grads: Vec<&Tensor> = params.iter().map(|p| &p.grad).collect();
    Ok(sum_squares(&grads)?.into_iter().sum::<f64>().sqrt())
}

/// Scales all gradients to a global norm of at most `max_norm`, as `torch.nn.utils.clip_grad_norm_` does:
/// g ← g·min(1, max_norm/(norm + 1e-6)). 0 means no limit.
///
/// # Errors
/// A failure of the GPU.
pub fn clip<'a>(params: impl IntoIterator<Item = &'a mut Param>, norm: f64, max_norm: f64) -> Result<()> {
    let factor = max_norm / (norm + 1e-6);
    if max_norm == 0.0 || factor >= 1.0 {
        return Ok(());
    }
    Ok(scale(&mut params.into_iter().map(|p| &mut p.grad).collect::<Vec<_>>(), factor)?)
}

/// Returns an error when the loss or the gradient norm is not finite.
pub(crate) fn check_finite(params: &[&Param], loss: f64, norm: f64, step: usize, lr: f64, last: &str) -> Result<()> {
    if loss.is_finite() && norm.is_finite() {
        return Ok(());
    }
    let (what, value, hint) = match (first_bad(params, |p| &p.value)?, loss.is_finite()) {
        (Some(p), _) => {
            ("loss".to_string(), loss, format!("`{}` is no longer finite: the learning rate is too high", p.name))
        }
        (None, false) if step <= 1 => {
            ("loss".into(), loss, "in the first step: check for damaged weights or an empty example".into())
        }
        (None, false) => ("loss".into(), loss, "the run diverged: lower learning_rate or raise warmup_ratio".into()),
        (None, true) => {
            let name = first_bad(params, |p| &p.grad)?.map_or("the parameters", |p| p.name.as_str());
            let hint = "the run diverged: lower learning_rate or max_grad_norm".into();
            (format!("gradient of {name}"), norm, hint)
        }
    };
    Err(Error::NotFinite { step, what, value, lr, hint, last: last.to_string() })
}

/// The first parameter with a tensor that is not finite.
fn first_bad<'a>(params: &[&'a Param], of: impl Fn(&Param) -> &Tensor) -> Result<Option<&'a Param>> {
    for p in params {
        if !sum_squares(&[of(p)])?[0].is_finite() {
            return Ok(Some(p));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use loram_io::Checkpoint;
    use loram_nn::ParamKind;
    use std::path::Path;

    const NAMES: [(&str, ParamKind); 4] = [
        ("lora_A", ParamKind::LoraA),
        ("lora_B", ParamKind::LoraB),
        ("weight", ParamKind::Saved),
        ("bias", ParamKind::Saved),
    ];

    fn reference() -> Checkpoint {
        Checkpoint::open_file(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/optim.safetensors")).unwrap()
    }

    fn values(file: &Checkpoint, name: &str) -> Vec<f32> {
        file.tensor(name).unwrap().to_f32().unwrap()
    }

    fn params(file: &Checkpoint) -> Vec<Param> {
        let make = |&(name, kind): &(&str, ParamKind)| {
            let t = file.tensor(&format!("start.{name}")).unwrap();
            let shape = t.shape().to_vec();
            let cols = *shape.last().unwrap();
            let value = Tensor::new(Compute::F32, t.len() / cols, cols, &t.to_f32().unwrap()).unwrap();
            let grad = value.zeros_like().unwrap();
            let decay = shape.len() > 1;
            Param { name: name.into(), kind, shape, value, grad, decay }
        };
        NAMES.iter().map(make).collect()
    }

    /// Six steps on Σ c·(p − t)², as tests/reference.py does them in torch.
    fn run(config: &TrainConfig, file: &Checkpoint, max_norm: f64) -> (Vec<Param>, Vec<f64>) {
        let mut params = params(file);
        let mut optimizer = Optimizer::new(config, &params).unwrap();
        let mut norms = Vec::new();
        for _ in 0..6 {
            for p in &mut params {
                let (c, t) = (values(file, &format!("curve.{}", p.name)), values(file, &format!("target.{}", p.name)));
                let g: Vec<f32> =
                    p.value.f32s().iter().zip(c.iter().zip(&t)).map(|(p, (c, t))| 2.0 * c * (p - t)).collect();
                p.grad.set_values(&g).unwrap();
            }
            let norm = grad_norm(&params).unwrap();
            norms.push(norm);
            clip(&mut params, norm, max_norm).unwrap();
            optimizer.step(&mut params, 1.0).unwrap();
        }
        (params, norms)
    }

    fn compare(name: &str, config: &TrainConfig, max_norm: f64) -> Vec<f64> {
        let file = reference();
        let (params, norms) = run(config, &file, max_norm);
        for p in &params {
            let expected = values(&file, &format!("{name}.{}", p.name));
            for (f, e) in p.value.f32s().iter().zip(&expected) {
                assert!((f - e).abs() <= 2e-6 * e.abs().max(1.0), "{name} {}: {f}, torch has {e}", p.name);
            }
        }
        norms
    }

    #[test]
    fn steps_are_those_of_torch_and_peft() {
        let base = TrainConfig { learning_rate: 0.05.into(), ..TrainConfig::default() };
        let adamw =
            TrainConfig { weight_decay: 0.1, adam_beta1: 0.8, adam_beta2: 0.95, adam_epsilon: 1e-6, ..base.clone() };
        compare("adamw", &adamw, 0.0);
        let plus = TrainConfig { weight_decay: 0.1, loraplus_lr_ratio: Some(4.0), ..base.clone() };
        compare("loraplus", &plus, 0.0);
        let sgd = TrainConfig { optim: OptimKind::Sgd, ..base };
        compare("sgd", &TrainConfig { weight_decay: 0.1, ..sgd.clone() }, 0.0);
        compare("momentum", &TrainConfig { momentum: 0.9, ..sgd.clone() }, 0.0);
        let norms = compare("clipped", &sgd, 1.5);
        let runs: serde_json::Value = serde_json::from_str(include_str!("../tests/reference/optim.json")).unwrap();
        let expected = runs.as_array().unwrap().iter().find(|r| r["name"] == "clipped").unwrap()["norms"].clone();
        for (n, e) in norms.iter().zip(expected.as_array().unwrap()) {
            assert!((n - e.as_f64().unwrap()).abs() < 1e-5, "{n} {e}");
        }
    }

    #[test]
    fn each_factor_has_its_own_settings() {
        let file = reference();
        let base = TrainConfig { learning_rate: 0.05.into(), weight_decay: 0.1, ..TrainConfig::default() };
        let own = TrainConfig {
            lr_a: Some(0.1),
            lr_b: Some(0.0125),
            weight_decay_b: Some(0.4),
            adam_epsilon_a: Some(1e-2),
            ..base.clone()
        };
        let of_a = TrainConfig { learning_rate: 0.1.into(), adam_epsilon: 1e-2, ..base.clone() };
        let of_b = TrainConfig { learning_rate: 0.0125.into(), weight_decay: 0.4, ..base.clone() };
        let found = run(&own, &file, 0.0).0;
        // fully trained modules keep learning_rate
        for (i, alone) in [of_a, of_b, base.clone(), base].iter().enumerate() {
            assert_eq!(found[i].value.f32s(), run(alone, &file, 0.0).0[i].value.f32s(), "{}", found[i].name);
        }
    }

    #[test]
    fn state_goes_through_a_file_and_back() {
        let file = reference();
        let config = TrainConfig { learning_rate: 1e-3.into(), ..TrainConfig::default() };
        let mut params = params(&file);
        params.iter_mut().for_each(|p| p.grad.f32s_mut().fill(0.5));
        let mut first = Optimizer::new(&config, &params).unwrap();
        first.step(&mut params, 1.0).unwrap();
        let saved: BTreeMap<_, _> = first.state(&params).unwrap().into_iter().map(|(n, _, v)| (n, v)).collect();
        assert_eq!(saved.len(), 8);
        let mut second = Optimizer::new(&config, &params).unwrap();
        second.restore(&params, 1, &saved).unwrap();
        let bits =
            |ps: &[Param]| ps.iter().flat_map(|p| p.value.values().unwrap()).map(f32::to_bits).collect::<Vec<_>>();
        let copy = |t: &Tensor| Tensor::new(Compute::F32, t.rows(), t.cols(), t.f32s()).unwrap();
        let mut copied: Vec<Param> = params
            .iter()
            .map(|p| Param {
                name: p.name.clone(),
                kind: p.kind,
                shape: p.shape.clone(),
                value: copy(&p.value),
                grad: copy(&p.grad),
                decay: p.decay,
            })
            .collect();
        first.step(&mut params, 1.0).unwrap();
        second.step(&mut copied, 1.0).unwrap();
        assert_eq!(bits(&params), bits(&copied));
        let e = second.restore(&params, 1, &BTreeMap::new()).unwrap_err().to_string();
        assert!(e.contains("lora_A.exp_avg"), "{e}");
    }

    #[test]
    fn numbers_that_are_none_stop_with_a_reason() {
        let file = reference();
        let mut params = params(&file);
        params[1].grad.f32s_mut()[0] = f32::NAN;
        let list: Vec<&Param> = params.iter().collect();
        let e = check_finite(&list, 1.0, f64::NAN, 7, 1e-2, "no checkpoint yet").unwrap_err().to_string();
        assert!(e.contains("step 7") && e.contains("lora_B") && e.contains("1e-2"), "{e}");
        let e = check_finite(&list, f64::INFINITY, 1.0, 1, 1e-2, "none").unwrap_err().to_string();
        assert!(e.contains("first step"), "{e}");
        assert!(check_finite(&list, 1.0, 2.0, 1, 1e-2, "none").is_ok());
    }
}
