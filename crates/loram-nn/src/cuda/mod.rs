//! Tensors on an NVIDIA GPU: memory, kernels and products, behind the same operations as on the CPU.
//!
//! One GPU and one stream serve a process; `CUDA_VISIBLE_DEVICES` chooses among several. Kernels are launched in order and
//! nothing waits for them but reading values back, so that memory that is freed can be reused at once.
//!
//! Launches and allocations fail late, in the midst of operations that have no results to return an error in. A failure
//! unwinds, without a panic message, to `catch`, which returns it as an [`crate::Error`]. Every public function of this crate
//! that uses the GPU calls `catch` and returns a [`crate::Result`]: no unwinding leaves the crate. Unwinding, rather than
//! an error that is recorded and looked up later, makes sure that nothing reads what a failed operation did not write.

#[cfg(gpu)]
pub(crate) mod attention;
#[cfg(gpu)]
pub(crate) mod call;
#[cfg(gpu)]
pub(crate) mod convolution;
#[cfg(gpu)]
pub(crate) mod device;
#[cfg(all(gpu, not(feature = "cuda-emulation")))]
mod driver;
#[cfg(all(gpu, feature = "cuda-emulation"))]
#[path = "emulated.rs"]
mod driver;
#[cfg(gpu)]
mod free;
#[cfg(gpu)]
mod info;
#[cfg(gpu)]
pub(crate) mod launch;
#[cfg(gpu)]
pub(crate) mod low_rank;
#[cfg(gpu)]
pub(crate) mod many;
#[cfg(gpu)]
pub(crate) mod memory;
#[cfg(gpu)]
pub(crate) mod mixture;
#[cfg(gpu)]
pub(crate) mod ops;
#[cfg(gpu)]
pub(crate) mod packed;
#[cfg(gpu)]
pub(crate) mod product;
#[cfg(gpu)]
pub(crate) mod profile;
#[cfg(gpu)]
pub(crate) mod rows;
#[cfg(all(test, gpu))]
mod tests;

#[cfg(gpu)]
pub(crate) use device::catch;
#[cfg(gpu)]
pub use device::synchronize;
#[cfg(gpu)]
pub use info::{Info, info};
#[cfg(gpu)]
pub(crate) use memory::{Buffer, Layout, end_of_step, upload_f32};
#[cfg(gpu)]
pub(crate) use product::Resident;
#[cfg(gpu)]
pub use profile::{Timing, profile, timings};

#[cfg(not(gpu))]
mod absent;
#[cfg(not(gpu))]
pub(crate) use absent::{Buffer, Resident, catch, end_of_step};
#[cfg(not(gpu))]
pub use absent::{Info, Timing, info, profile, synchronize, timings};

/// True when the CPU stands in for a GPU (feature `cuda-emulation`).
pub const EMULATED: bool = cfg!(feature = "cuda-emulation");

/// An expression of this module, where it is part of the build; elsewhere nothing can ask for it.
macro_rules! on_gpu {
    ($body:expr) => {{
        #[cfg(gpu)]
        {
            $body
        }
        #[cfg(not(gpu))]
        {
            unreachable!("a build without the feature `cuda` has no tensor on a GPU")
        }
    }};
}
pub(crate) use on_gpu;
