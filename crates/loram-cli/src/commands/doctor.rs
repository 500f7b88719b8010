//! `loram doctor`: the machine as the program sees it, for choosing settings and for reports of errors.

use crate::console::Console;
use crate::error::Result;
use crate::format::several;
use crate::table::facts;
use loram_io::atomic::free_space;
use loram_io::error::human_bytes;
use loram_io::hub::HubOptions;
use loram_nn::cuda;
use loram_nn::kernels::bf16::{Kernel, Matrix, Number, Right, Rounded, product};
use loram_nn::kernels::gemm::{View, ViewMut, gemm};
use loram_train::config::{ComputeDtype, DeviceKind};
use loram_train::device::Arithmetic;
use loram_train::{rate, system};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Side of the square products that are timed, and for how long.
const SIDE: usize = 1024;
const BUDGET: Duration = Duration::from_millis(150);

pub fn run(console: &Console) -> Result<()> {
    let threads = rayon::current_num_threads();
    let (kernel, memory, gpu) = (Kernel::best(), system::available_memory(), cuda::info());
    let f32_rate = timed(|| {
        let (a, b, mut c) = operands();
        move || gemm(ViewMut::new(&mut c, SIDE, SIDE), false, 1.0, View::new(&a, SIDE, SIDE), View::new(&b, SIDE, SIDE))
    });
    let bf16_rate = kernel.map(|kernel| {
        timed(|| {
            let (a, b, mut c) = operands();
            let bytes: Vec<u8> = b.iter().flat_map(|x| x.to_bits().to_le_bytes()[2..].to_vec()).collect();
            move || {
                let x = Rounded::new(View::new(&a, SIDE, SIDE));
                let w = Right::Transposed(Matrix::new(&bytes, Number::Bf16, SIDE, SIDE));
                product(kernel, ViewMut::new(&mut c, SIDE, SIDE), false, &x, w, &[]);
            }
        })
    });
    let arithmetic = Arithmetic::resolve(DeviceKind::Cpu, ComputeDtype::Auto);
    let hub = HubOptions::from_env();
    let here = std::env::current_dir().unwrap_or_default();
    let rate_cache = rate::cache_folder();
    let text = || {
        let speed = |rate: f64, what: &str| format!("{rate:.0} GFLOP/s in {what}");
        let bf16 = match (kernel, bf16_rate, &arithmetic) {
            (_, _, Err(e)) => e.to_string(),
            (Some(kernel), Some(rate), _) if kernel.beats_f32() => {
                format!("{}, {}", speed(rate, "bfloat16"), kernel.name())
            }
            (Some(kernel), Some(rate), _) => {
                format!("{}, {}; auto takes float32 on this processor", speed(rate, "bfloat16"), kernel.name())
            }
            _ => "this processor has neither AMX nor AVX512-BF16, so that auto takes float32".into(),
        };
        let gpu = match &gpu {
            Ok(gpu) => format!("{}, {} free of {}", gpu.name(), human_bytes(gpu.free()), human_bytes(gpu.total())),
            Err(e) => e.to_string(),
        };
        facts(&[
            ("loram", format!("{}, {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH)),
            ("processor", format!("{}, {}", system::cpu_name(), several(threads as u64, "thread"))),
            ("products", format!("{}; {bf16}", speed(f32_rate, "float32"))),
            ("memory", memory.map_or("unknown".into(), |m| format!("{} free", human_bytes(m)))),
            ("GPU", gpu),
            ("this folder", room(&here)),
            ("hub cache", room(&hub.cache_dir)),
            ("hub", format!("{}{}; {}", hub.endpoint, if hub.offline { ", offline" } else { "" }, token(&hub))),
            ("rate cache", rate_cache.as_deref().map_or("none".into(), |dir| dir.display().to_string())),
        ])
    };
    let value = json!({
        "loram": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpu": system::cpu_name(),
        "threads": threads,
        "float32_gflops": f32_rate,
        "bfloat16_gflops": bf16_rate,
        "kernel": kernel.map(Kernel::name),
        "available_memory": memory,
        "gpu": gpu.as_ref().ok().map(|gpu| json!({"name": gpu.name(), "total": gpu.total(), "free": gpu.free()})),
        "free_disk": free_space(&here),
        "hub": {"cache": hub.cache_dir, "endpoint": hub.endpoint, "offline": hub.offline, "token": hub.token.is_some()},
        "rate_cache": rate_cache,
    });
    console.result(text, &value)
}

fn operands() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let value = |i: usize| (i * 37 % 101) as f32 / 101.0 - 0.5;
    let all = || (0..SIDE * SIDE).map(value).collect::<Vec<f32>>();
    (all(), all(), vec![0.0; SIDE * SIDE])
}

/// GFLOP/s of the fastest of some products.
fn timed<F: FnMut()>(make: impl FnOnce() -> F) -> f64 {
    let mut multiply = make();
    let (begun, mut best) = (Instant::now(), f64::INFINITY);
    while begun.elapsed() < BUDGET || best.is_infinite() {
        let call = Instant::now();
        multiply();
        best = best.min(call.elapsed().as_secs_f64());
    }
    2.0 * (SIDE as f64).powi(3) / best / 1e9
}

/// A folder with the free space of its disk.
fn room(dir: &Path) -> String {
    let there = if dir.exists() { "" } else { ", not there yet" };
    let free = free_space(dir).map_or(String::new(), |free| format!(", {} free", human_bytes(free)));
    format!("{}{there}{free}", dir.display())
}

fn token(hub: &HubOptions) -> &'static str {
    if hub.token.is_some() { "with an access token" } else { "no access token (gated models need HF_TOKEN)" }
}
