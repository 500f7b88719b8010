//! The loram side of `bench/step`: training steps on given batches, timed one by one. Prints a JSON object.
//!
//!     step_bench JOB.json          (a job that bench/step/step.py wrote)
//!     step_bench --gemm            (the peak of this machine: f32 products of 1536³ on all threads, in GFLOP/s)

use loram_io::{Checkpoint, ModelConfig};
use loram_nn::kernels::gemm::{View, ViewMut, gemm};
use loram_nn::{Batch, CrossEntropy, HeadKind, IGNORE, LoadOptions, Loss, Model, cuda};
use loram_train::adapt::{LoadAdapter, load};
use loram_train::config::{BaseMode, ComputeDtype, DeviceKind};
use loram_train::device::Arithmetic;
use loram_train::magnitude::MagnitudeMeter;
use loram_train::optim::{Optimizer, grad_norm};
use loram_train::{TrainConfig, system};
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
struct Job {
    model: PathBuf,
    adapter: PathBuf,
    /// Batches of documents.
    batches: Vec<Vec<Vec<u32>>>,
    /// Classes of the documents of each batch; empty for a language model.
    #[serde(default)]
    targets: Vec<Vec<usize>>,
    /// Tokens at the beginning of the documents of each batch that are not in the loss; empty: none.
    #[serde(default)]
    prompts: Vec<Vec<usize>>,
    num_labels: usize,
    learning_rate: f64,
    threads: usize,
    /// Passes over the batches.
    repeat: usize,
    #[serde(default)]
    gradient_checkpointing: bool,
    /// Every other block of so many steps ends with a measurement of magnitudes; 0: none does.
    #[serde(default)]
    magnitude_steps: usize,
    /// Where the GPU's time goes in the second half of the steps.
    #[serde(default)]
    profile: bool,
    /// "cpu" or "cuda"; auto where absent.
    #[serde(default)]
    device: String,
    /// "float32" or "bfloat16"; auto where absent.
    #[serde(default)]
    compute_dtype: String,
    /// Quantise the weights to NF4 while they are read.
    #[serde(default)]
    load_in_4bit: bool,
}

fn gemm_peak() -> f64 {
    const N: usize = 1536;
    let (a, b) = (vec![0.5f32; N * N], vec![0.25f32; N * N]);
    let mut c = vec![0.0f32; N * N];
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let begun = Instant::now();
        gemm(ViewMut::new(&mut c, N, N), false, 1.0, View::new(&a, N, N), View::new(&b, N, N));
        best = best.min(begun.elapsed().as_secs_f64());
    }
    2.0 * (N as f64).powi(3) / best / 1e9
}

fn batch(documents: &[Vec<u32>], targets: Option<&Vec<usize>>, prompts: &[usize]) -> (Batch, CrossEntropy) {
    let mut b = Batch { lengths: documents.iter().map(Vec::len).collect(), ..Batch::default() };
    for d in documents {
        b.tokens.extend(d);
    }
    let next = |(d, prompt): (&Vec<u32>, usize)| {
        let label = |i| if i < prompt { IGNORE } else { i64::from(d[i]) };
        (1..d.len()).map(label).chain([IGNORE]).collect::<Vec<_>>()
    };
    let prompts = prompts.iter().copied().chain(std::iter::repeat(0));
    let labels = match targets {
        Some(classes) => classes.iter().map(|&c| c as i64).collect(),
        None => documents.iter().zip(prompts).flat_map(next).collect(),
    };
    (b, CrossEntropy::new(labels))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1).ok_or("expected JOB.json or --gemm")?;
    if argument == "--gemm" {
        let threads = std::env::args().nth(2).map_or(Ok(0), |t| t.parse())?;
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        println!("{}", json!({ "gemm_gflops": gemm_peak() }));
        return Ok(());
    }
    let job: Job = serde_json::from_str(&std::fs::read_to_string(&argument)?)?;
    rayon::ThreadPoolBuilder::new().num_threads(job.threads).build_global()?;
    let (mut ckpt, config) = (Checkpoint::open(&job.model)?, ModelConfig::load(&job.model)?);
    let begun = Instant::now();
    if let Some(four_bit) = (TrainConfig { load_in_4bit: job.load_in_4bit, ..TrainConfig::default() }).four_bit() {
        ckpt = four_bit.apply(ckpt, &config)?;
    }
    let quantising = begun.elapsed().as_secs_f64();
    let head = match job.num_labels {
        0 => HeadKind::LanguageModel,
        outputs => HeadKind::Pooled { outputs },
    };
    let device = match job.device.as_str() {
        "cpu" => DeviceKind::Cpu,
        "cuda" => DeviceKind::Cuda,
        _ => DeviceKind::Auto,
    };
    let dtype = match job.compute_dtype.as_str() {
        "float32" => ComputeDtype::Float32,
        "bfloat16" => ComputeDtype::Bfloat16,
        _ => ComputeDtype::Auto,
    };
    let arithmetic = Arithmetic::resolve(device, dtype)?;
    let compute = arithmetic.compute;
    let options = LoadOptions { gradient_checkpointing: job.gradient_checkpointing, ..arithmetic.options(head) };
    let mut model = Model::load(&ckpt, &config, &options)?;
    let how = LoadAdapter { train: true, dropout: 0.0, base: BaseMode::Auto };
    let (adaptation, _) = load(&mut model, &ckpt, &config, &job.adapter, how)?;
    let begun = Instant::now();
    let mut gauge = match job.magnitude_steps {
        0 => None,
        _ => Some(MagnitudeMeter::new(&adaptation, &ckpt, &config)?),
    };
    let gauge_seconds = begun.elapsed().as_secs_f64();
    let train = TrainConfig { learning_rate: job.learning_rate.into(), ..TrainConfig::default() };
    let mut optimizer = Optimizer::new(&train, model.params().iter()).unwrap();
    let (mut seconds, mut losses, mut norms) = (Vec::new(), Vec::new(), Vec::new());
    // A B A B: blocks without and with the measurement
    let (mut steps, mut blocks, mut measuring) = (0, [Vec::new(), Vec::new()], Vec::new());
    let mut block = Instant::now();
    for _ in 0..job.repeat {
        for (i, documents) in job.batches.iter().enumerate() {
            if job.profile && 2 * steps == job.repeat * job.batches.len() {
                cuda::profile();
            }
            let begun = Instant::now();
            let (b, mut targets) = batch(documents, job.targets.get(i), job.prompts.get(i).map_or(&[], Vec::as_slice));
            let counted = targets.counted();
            model.params_mut().zero_grads().unwrap();
            let loss = model.forward_backward(&b, &mut targets, 1.0 / counted as f64, 0)?;
            norms.push(grad_norm(model.params().iter()).unwrap());
            steps += 1usize;
            let ends = job.magnitude_steps > 0 && steps % job.magnitude_steps == 0;
            let side = (steps - 1).checked_div(job.magnitude_steps).map_or(0, |block| block % 2);
            let mut measured = gauge.as_mut().filter(|_| ends && side == 1);
            let mut taken = 0.0;
            if let Some(gauge) = &mut measured {
                let begun = Instant::now();
                gauge.before_step(&model).unwrap();
                taken += begun.elapsed().as_secs_f64();
            }
            optimizer.step(model.params_mut().iter_mut(), 1.0).unwrap();
            if compute.on_gpu() {
                cuda::synchronize()?;
            }
            if let Some(gauge) = measured {
                let begun = Instant::now();
                gauge.after_step(&model).unwrap();
                measuring.push(taken + begun.elapsed().as_secs_f64());
            }
            if ends {
                blocks[side].push(block.elapsed().as_secs_f64() / job.magnitude_steps as f64);
                block = Instant::now();
            }
            losses.push(loss.loss_sum / counted as f64);
            seconds.push(begun.elapsed().as_secs_f64());
        }
    }
    let gpu = if compute.on_gpu() { Some(cuda::info()?.peak()) } else { None };
    let peak_rss = system::peak_rss();
    let profile: Vec<_> = cuda::timings()?.iter().map(|t| json!([t.name(), t.calls(), t.seconds()])).collect();
    let mut out =
        json!({ "seconds": seconds, "losses": losses, "grad_norms": norms, "peak_rss": peak_rss, "peak_gpu": gpu });
    if job.load_in_4bit {
        out["quantising"] = json!(quantising);
    }
    if job.profile {
        out["profile"] = json!({ "kernels": profile, "steps": steps - steps / 2 });
    }
    if job.magnitude_steps > 0 {
        let [without, with] = blocks;
        out["magnitude"] = json!({ "without": without, "with": with, "measuring": measuring, "norms": gauge_seconds });
    }
    println!("{out}");
    Ok(())
}
