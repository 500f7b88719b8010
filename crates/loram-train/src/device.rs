//! The device that a model runs on, and its free memory.

use crate::config::DeviceKind;
use crate::{Result, system};
use loram_nn::{Compute, cuda};

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
