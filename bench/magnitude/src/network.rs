//! A network of five layers, 400 wide, with adapters of rank 25 (the paper's Figure 2): it learns to follow a copy of itself
//! whose weights were moved. Learning rate, scaling and initialisation act through one magnitude: runs that move equally far learn
//! equally fast.

use crate::plot::{Line, Panel, figure};
use crate::result::Result;
use loram_core::equivalence::Optimizer;
use loram_core::growth::{InitMagnitude, Knob};
use loram_core::magnitude::{Update, nu};
use loram_core::{
    Factors, Initialization, LayerPlan, SchemeOptions, SchemeSpec, StoredWeight, add_product, initialize,
};
use loram_nn::kernels::gemm::{View, ViewMut, gemm};
use loram_nn::kernels::optim::{AdamW, adamw_step};
use plotters::prelude::SeriesLabelPosition;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::path::Path;

const LAYERS: usize = 5;
const WIDE: usize = 400;
const R: usize = 25;
const BATCH: usize = 64;
/// Learning rate of all runs that do not say another.
const LR: f64 = 2e-4;
/// ‖moved − W‖/‖W‖ of the copy.
const MOVED: f32 = 0.4;

type Matrix = Vec<f32>;

fn normals(rng: &mut ChaCha8Rng, len: usize, std: f32) -> Matrix {
    (0..len).map(|_| -> f32 { StandardNormal.sample(rng) }).map(|x: f32| x * std).collect()
}

fn square(x: &[f32]) -> View<'_, f32> {
    View::new(x, WIDE, WIDE)
}

/// The inputs of every layer and the output; x (batch, 400), rectified between layers.
fn forward(weights: &[Matrix], x: &Matrix) -> Vec<Matrix> {
    let mut all = vec![x.clone()];
    for (i, w) in weights.iter().enumerate() {
        let mut y = vec![0.0; x.len()];
        gemm(ViewMut::new(&mut y, BATCH, WIDE), false, 1.0, View::new(&all[i], BATCH, WIDE), square(w).t());
        if i + 1 < weights.len() {
            y.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        all.push(y);
    }
    all
}

/// Half the mean square of y − target, and its gradient by every weight.
fn gradients(weights: &[Matrix], x: &Matrix, target: &Matrix) -> (f64, Vec<Matrix>) {
    let all = forward(weights, x);
    let mut d: Matrix = all[LAYERS].iter().zip(target).map(|(y, t)| y - t).collect();
    let loss = 0.5 * nu(&d);
    d.iter_mut().for_each(|d| *d /= BATCH as f32);
    let mut out = vec![Matrix::new(); LAYERS];
    for i in (0..LAYERS).rev() {
        let mut g = vec![0.0; WIDE * WIDE];
        let dy = View::new(&d, BATCH, WIDE);
        gemm(ViewMut::new(&mut g, WIDE, WIDE), false, 1.0, dy.t(), View::new(&all[i], BATCH, WIDE));
        let mut dx = vec![0.0; BATCH * WIDE];
        gemm(ViewMut::new(&mut dx, BATCH, WIDE), false, 1.0, dy, square(&weights[i]));
        // the rectifier of the layer below
        dx.iter_mut().zip(&all[i]).for_each(|(d, x)| *d *= f32::from(u8::from(*x > 0.0)));
        (out[i], d) = (g, dx);
    }
    (loss, out)
}

/// A parameter under Adam.
struct Adam {
    value: Matrix,
    m: Matrix,
    v: Matrix,
}

impl Adam {
    fn new(value: Matrix) -> Adam {
        let zeros = vec![0.0; value.len()];
        Adam { m: zeros.clone(), v: zeros, value }
    }

    fn step(&mut self, g: &[f32], lr: f64, t: u64) {
        let how = AdamW { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
        adamw_step(&mut self.value, g, &mut self.m, &mut self.v, &how, t);
    }
}

/// The training setup.
#[derive(Debug, Clone)]
pub enum Setting {
    Full { lr: f64 },
    Adapter { scheme: &'static str, lr: f64, scaling: f64 },
}

/// Loss and ν\[ΔW\] (mean over layers) by step.
pub struct Course {
    pub losses: Vec<(f64, f64)>,
    pub moved: Vec<(f64, f64)>,
}

impl Course {
    pub fn last_loss(&self) -> f64 {
        let tail = &self.losses[self.losses.len() * 9 / 10..];
        tail.iter().map(|p| p.1).sum::<f64>() / tail.len() as f64
    }

    pub fn last_moved(&self) -> f64 {
        self.moved.last().map_or(0.0, |p| p.1)
    }
}

pub struct Task {
    weights: Vec<Matrix>,
    moved: Vec<Matrix>,
}

impl Task {
    pub fn new() -> Task {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let std = (2.0 / WIDE as f32).sqrt();
        let weights: Vec<Matrix> = (0..LAYERS).map(|_| normals(&mut rng, WIDE * WIDE, std)).collect();
        let mut moved = weights.clone();
        for w in &mut moved {
            // of rank 25, so that adapters can reach it
            let (a, b) = (normals(&mut rng, R * WIDE, 1.0), normals(&mut rng, WIDE * R, 1.0));
            add_product(w, &a, &b, WIDE, R, f64::from(MOVED * std / (R as f32).sqrt()));
        }
        Task { weights, moved }
    }

    fn plan(scaling: f64) -> LayerPlan {
        LayerPlan { path: "layer".into(), n: WIDE, m: WIDE, r: R, lora_alpha: scaling * R as f64, scaling }
    }

    fn start(&self, layer: usize, scheme: &str, scaling: f64) -> Result<Initialization> {
        let spec = SchemeSpec::parse(scheme, &SchemeOptions::default())?;
        let w = StoredWeight::of(&self.weights[layer], WIDE, WIDE);
        Ok(initialize(&spec, w, &Self::plan(scaling), layer as u64)?)
    }

    /// ν of Adam's first step, as it is predicted.
    pub fn predicted(&self, scheme: &str, lr: f64, scaling: f64) -> Result<f64> {
        Ok(InitMagnitude::of(&self.start(0, scheme, scaling)?).first_step(Optimizer::Adam, lr, lr))
    }

    /// Multiple of the rate, or of the scaling, at which `lora` moves as far as `scheme` in its first step.
    pub fn multiple(&self, knob: Knob, scheme: &str) -> Result<f64> {
        let (own, wanted) = (self.predicted("lora", LR, 1.0)?, self.predicted(scheme, LR, 1.0)?);
        Ok(knob.multiple(Optimizer::Adam, false, own, wanted))
    }

    pub fn train(&self, setting: &Setting, steps: usize) -> Result<Course> {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut course = Course { losses: Vec::new(), moved: Vec::new() };
        let mut full: Vec<Adam> = self.weights.iter().map(|w| Adam::new(w.clone())).collect();
        let mut factors = Vec::new();
        let mut bases = self.weights.clone();
        if let Setting::Adapter { scheme, scaling, .. } = *setting {
            for (i, base) in bases.iter_mut().enumerate() {
                let init = self.start(i, scheme, scaling)?.factors;
                init.add_to(base, -scaling);
                factors.push((Adam::new(init.a.clone()), Adam::new(init.b.clone()), init));
            }
        }
        for t in 1..=steps as u64 {
            let x = normals(&mut rng, BATCH * WIDE, 1.0);
            let target = forward(&self.moved, &x).pop().unwrap_or_default();
            let mut weights = bases.clone();
            match *setting {
                Setting::Full { .. } => weights.iter_mut().zip(&full).for_each(|(w, p)| w.clone_from(&p.value)),
                Setting::Adapter { scaling, .. } => {
                    for (w, (a, b, _)) in weights.iter_mut().zip(&factors) {
                        add_product(w, &a.value, &b.value, WIDE, R, scaling);
                    }
                }
            }
            let (loss, gradients) = gradients(&weights, &x, &target);
            course.losses.push((t as f64, loss));
            let mut nus = 0.0;
            for (i, g) in gradients.iter().enumerate() {
                match *setting {
                    Setting::Full { lr } => {
                        full[i].step(g, lr, t);
                        let delta: Matrix = full[i].value.iter().zip(&self.weights[i]).map(|(x, w)| x - w).collect();
                        nus += nu(&delta);
                    }
                    Setting::Adapter { lr, scaling, .. } => {
                        let (a, b, init) = &mut factors[i];
                        let (mut ga, mut gb) = (vec![0.0; R * WIDE], vec![0.0; WIDE * R]);
                        let s = scaling as f32;
                        gemm(ViewMut::new(&mut ga, R, WIDE), false, s, View::new(&b.value, WIDE, R).t(), square(g));
                        gemm(ViewMut::new(&mut gb, WIDE, R), false, s, square(g), View::new(&a.value, R, WIDE).t());
                        a.step(&ga, lr, t);
                        b.step(&gb, lr, t);
                        let now = Factors { a: a.value.clone(), b: b.value.clone(), ..*init };
                        nus += Update::new(&now, Some(init), scaling).nu();
                    }
                }
            }
            course.moved.push((t as f64, nus / LAYERS as f64));
        }
        Ok(course)
    }
}

/// The settings of the figure, with their names.
pub fn settings(task: &Task) -> Result<Vec<(String, Setting)>> {
    let adapter = |scheme, lr, scaling| Setting::Adapter { scheme, lr, scaling };
    let (rate, scaling) = (task.multiple(Knob::Rate, "loram")?, task.multiple(Knob::Scaling, "loram")?);
    Ok(vec![
        ("lora".into(), adapter("lora", LR, 1.0)),
        (format!("lora, lr × {rate:.1}"), adapter("lora", LR * rate, 1.0)),
        (format!("lora, s × {scaling:.1}"), adapter("lora", LR, scaling)),
        ("loram".into(), adapter("loram", LR, 1.0)),
        ("pissa".into(), adapter("pissa", LR, 1.0)),
        ("full".into(), Setting::Full { lr: LR }),
    ])
}

pub fn run(plots: &Path) -> Result<()> {
    let task = Task::new();
    let (mut losses, mut moved) = (Vec::new(), Vec::new());
    println!("{:18} {:>10} {:>10}", "", "loss", "ν[ΔW]");
    for (colour, (name, setting)) in settings(&task)?.into_iter().enumerate() {
        let c = task.train(&setting, 300)?;
        println!("{name:18} {:10.4} {:10.2e}", c.last_loss(), c.last_moved());
        let every = |points: &[(f64, f64)]| points.iter().step_by(5).copied().collect();
        losses.push(Line::new(name.clone(), colour, every(&c.losses)));
        moved.push(Line::new(name, colour, every(&c.moved)));
    }
    let panel = |title: &str, legend, lines| Panel {
        title: title.into(),
        x: "step",
        y: "",
        log_x: false,
        log_y: true,
        legend,
        lines,
    };
    let panels = [
        panel("loss", SeriesLabelPosition::UpperRight, losses),
        panel("mean ν[ΔW] over layers", SeriesLabelPosition::LowerRight, moved),
    ];
    figure(&plots.join("network.svg"), &panels, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Central differences of the loss, against the gradients that are written down above.
    #[test]
    fn gradients_are_those_of_the_loss() {
        let task = Task::new();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let x = normals(&mut rng, BATCH * WIDE, 1.0);
        let target = forward(&task.moved, &x).pop().unwrap();
        let (_, g) = gradients(&task.weights, &x, &target);
        for layer in 0..LAYERS {
            let at = g[layer].iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap().0;
            let loss = |step: f32| {
                let mut w = task.weights.clone();
                w[layer][at] += step;
                gradients(&w, &x, &target).0
            };
            // the loss is a mean over outputs too, the gradient is not
            let slope = (loss(0.01) - loss(-0.01)) / 0.02 * WIDE as f64;
            assert!((slope / f64::from(g[layer][at]) - 1.0).abs() < 0.03, "{layer}: {slope} {}", g[layer][at]);
        }
    }

    #[test]
    fn equal_magnitudes_learn_alike() {
        let task = Task::new();
        let runs: Vec<Course> = settings(&task).unwrap()[..4].iter().map(|(_, s)| task.train(s, 80).unwrap()).collect();
        let [lora, by_rate, by_scaling, loram] = &runs[..] else { panic!() };
        assert!(loram.last_moved() > 2.5 * lora.last_moved() && loram.last_loss() < lora.last_loss());
        let ratio = by_scaling.last_moved() / loram.last_moved();
        assert!((0.5..2.0).contains(&ratio), "{ratio}");
        let apart = |c: &Course| (c.last_loss() / loram.last_loss()).ln().abs();
        assert!(apart(by_scaling) < 0.5 * apart(lora), "{} {}", apart(by_scaling), apart(lora));
        // a rate that matches the first step goes further later: A moves as much as B
        assert!(by_rate.last_moved() > loram.last_moved() && by_rate.last_loss() < lora.last_loss());
    }
}
