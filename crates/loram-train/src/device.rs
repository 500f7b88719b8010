//! Where a model runs, and how much memory is free there.

use crate::config::DeviceKind;
use crate::{Result, system};
use loram_nn::{Compute, cuda};

/// The number type and place that a setting means on this machine. The error says why there is no GPU.
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

/// The name of a place, as files have it.
pub(crate) fn name(compute: Compute) -> &'static str {
    if compute.on_gpu() { "cuda" } else { "cpu" }
}

/// The most bytes that this process has held on the GPU, for what runs there.
pub(crate) fn peak_memory(compute: Compute) -> Option<u64> {
    compute.on_gpu().then(|| cuda::info().ok()).flatten().map(|gpu| gpu.peak())
}

/// Bytes that are free where a model runs.
pub(crate) fn free_memory(compute: Compute) -> Option<u64> {
    match compute.on_gpu() {
        true => cuda::info().ok().map(|gpu| gpu.free()),
        false => system::available_memory(),
    }
}
