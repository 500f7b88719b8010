//! The device that a model runs on, its free memory, and the number type of its products.

use crate::config::{ComputeDtype, DeviceKind, FinetuningType, TrainConfig};
use crate::{Error, Result, system};
use loram_io::Checkpoint;
use loram_nn::kernels::bf16::Kernel;
use loram_nn::{Compute, HeadKind, LoadOptions, Products, cuda, rounds};

/// The environment variable that chooses the kernel of the CPU: `amx`, `avx512-bf16` or `f32`.
const KERNEL: &str = "LORAM_CPU_KERNEL";

/// Resolves a device setting on this machine. The error says why no GPU can be used.
pub fn compute(device: DeviceKind) -> Result<Compute> {
    match device {
        DeviceKind::Cpu => Ok(Compute::F32),
        DeviceKind::Cuda => {
            cuda::info()?;
            Ok(Compute::CudaBf16)
        }
        // an emulation is for tests that ask for it
        DeviceKind::Auto => match !cuda::EMULATED && cuda::info().is_ok() {
            true => Ok(Compute::CudaBf16),
            false => Ok(Compute::F32),
        },
    }
}

/// How a model computes on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// Number type of activations, and where the model runs.
    pub compute: Compute,
    /// How activations are multiplied by frozen weights on the CPU.
    pub products: Products,
}

impl Arithmetic {
    /// How a run computes: full fine-tuning has no frozen weights. See [`Arithmetic::resolve`] for errors.
    pub fn of(config: &TrainConfig) -> Result<Arithmetic> {
        let found = Arithmetic::resolve(config.device, config.compute_dtype)?;
        Ok(match config.finetuning_type {
            FinetuningType::Full => Arithmetic { products: Products::Exact, ..found },
            FinetuningType::Lora => found,
        })
    }

    /// Resolves the keys `device` and `compute_dtype`. Errors: a device or number type that this machine does not have, and
    /// a kernel in `LORAM_CPU_KERNEL` that it does not have.
    pub fn resolve(device: DeviceKind, dtype: ComputeDtype) -> Result<Arithmetic> {
        let compute = compute(device)?;
        if !compute.on_gpu() {
            let forced = std::env::var(KERNEL).ok().filter(|name| !name.is_empty());
            return Ok(Arithmetic { compute, products: products(dtype, forced.as_deref())? });
        }
        match dtype {
            ComputeDtype::Float32 => Err(Error::Config(
                "compute_dtype: float32 is for the CPU, and the device is a GPU, which computes in bfloat16: set \
                 device: cpu, or compute_dtype: auto"
                    .into(),
            )),
            _ => Ok(Arithmetic { compute, products: Products::Exact }),
        }
    }

    /// Options of [`loram_nn::Model::load`] for this arithmetic.
    pub fn options(self, head: HeadKind) -> LoadOptions {
        LoadOptions { compute: self.compute, products: self.products, ..LoadOptions::new(head) }
    }

    /// The kernel of products with frozen weights of this checkpoint; `None`: in float32, or on a GPU.
    pub fn kernel(self, checkpoint: &Checkpoint) -> Option<Kernel> {
        let rounded = |name| {
            let tensor = checkpoint.tensor(name).ok().filter(|t| t.shape().len() == 2);
            tensor.is_some_and(|t| t.stored().is_ok_and(rounds))
        };
        self.products.kernel(checkpoint.names().any(rounded))
    }

    /// The number type of products with frozen weights of this checkpoint: `bfloat16` or `float32`.
    pub fn dtype(self, checkpoint: &Checkpoint) -> &'static str {
        if self.compute.on_gpu() || self.kernel(checkpoint).is_some() { "bfloat16" } else { "float32" }
    }

    /// Kernel or device that computes them: `amx`, `avx512-bf16`, `f32` or `cuda`.
    pub fn kernel_name(self, checkpoint: &Checkpoint) -> &'static str {
        match self.compute.on_gpu() {
            true => "cuda",
            false => self.kernel(checkpoint).map_or("f32", Kernel::name),
        }
    }
}

/// The products of the CPU for a number type, with the kernel that is `forced` by its name or the best.
fn products(dtype: ComputeDtype, forced: Option<&str>) -> Result<Products> {
    let kernel = match forced {
        None => Kernel::best(),
        Some("f32") => None,
        Some(name) => match Kernel::ALL.into_iter().find(|k| k.name() == name) {
            Some(kernel) if kernel.available() => Some(kernel),
            Some(_) => {
                let what = format!("{KERNEL}={name}: {} does not have it: unset it", system::cpu_name());
                return Err(Error::Config(what));
            }
            None => {
                let what = format!("{KERNEL}={name}: expected one of amx, avx512-bf16, f32");
                return Err(Error::Config(what));
            }
        },
    };
    match (dtype, kernel) {
        (ComputeDtype::Float32, _) => Ok(Products::Exact),
        (ComputeDtype::Auto, Some(kernel)) if forced.is_some() || kernel.beats_f32() => Ok(Products::Stored(kernel)),
        (ComputeDtype::Auto, _) => Ok(Products::Exact),
        (ComputeDtype::Bfloat16, Some(kernel)) => Ok(Products::Rounded(kernel)),
        (ComputeDtype::Bfloat16, None) => {
            let why = match forced {
                Some(_) => format!("{KERNEL}=f32 excludes it"),
                None => format!("it needs AMX or AVX512-BF16, which {} does not have", system::cpu_name()),
            };
            Err(Error::Config(format!("compute_dtype: bfloat16: {why}: set auto or float32")))
        }
    }
}

/// The device name that is written to files.
pub(crate) fn name(compute: Compute) -> &'static str {
    if compute.on_gpu() { "cuda" } else { "cpu" }
}

/// Peak GPU memory of this process in bytes; `None` on the CPU.
pub(crate) fn peak_memory(compute: Compute) -> Option<u64> {
    compute.on_gpu().then(|| cuda::info().ok()).flatten().map(|gpu| gpu.peak())
}

/// Free memory of the device in bytes.
pub(crate) fn free_memory(compute: Compute) -> Option<u64> {
    match compute.on_gpu() {
        true => cuda::info().ok().map(|gpu| gpu.free()),
        false => system::available_memory(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_fine_tuning_is_in_float32_on_the_cpu() {
        let config = TrainConfig { device: DeviceKind::Cpu, ..TrainConfig::default() };
        let full = TrainConfig { finetuning_type: FinetuningType::Full, ..config.clone() };
        let expected = products(ComputeDtype::Auto, std::env::var(KERNEL).ok().as_deref()).unwrap();
        assert_eq!(Arithmetic::of(&config).unwrap().products, expected);
        assert_eq!(Arithmetic::of(&full).unwrap().products, Products::Exact);
    }

    #[test]
    fn a_kernel_is_chosen_by_number_type_and_name() {
        use ComputeDtype::{Auto, Bfloat16, Float32};
        assert_eq!(products(Float32, None).unwrap(), Products::Exact);
        assert_eq!(products(Auto, Some("f32")).unwrap(), Products::Exact);
        let e = products(Bfloat16, Some("f32")).unwrap_err().to_string();
        assert!(e.contains("LORAM_CPU_KERNEL=f32 excludes it: set auto or float32"), "{e}");
        let e = products(Auto, Some("sse")).unwrap_err().to_string();
        assert!(e.contains("LORAM_CPU_KERNEL=sse: expected one of amx, avx512-bf16, f32"), "{e}");
        for kernel in Kernel::ALL {
            match (kernel.available(), products(Auto, Some(kernel.name()))) {
                (true, found) => assert_eq!(found.unwrap(), Products::Stored(kernel), "forced, even if slower"),
                (false, found) => assert!(found.unwrap_err().to_string().contains("does not have it")),
            }
        }
        match Kernel::best() {
            Some(kernel) => assert_eq!(products(Bfloat16, None).unwrap(), Products::Rounded(kernel)),
            None => assert!(products(Bfloat16, None).unwrap_err().to_string().contains("needs AMX or AVX512-BF16")),
        }
    }
}
