//! Number types and devices of tensors.

/// Number type of tensors, and where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// Single precision on the CPU: training and inference.
    #[default]
    F32,
    /// Double precision on the CPU: checks of gradients and of equivalences.
    F64,
    /// Single precision on an NVIDIA GPU: what a model in bfloat16 trains, and checks.
    CudaF32,
    /// bfloat16 on an NVIDIA GPU; what is trained, gradients of it and statistics are [`Compute::CudaF32`].
    CudaBf16,
}

impl Compute {
    /// Whether tensors of it are on a GPU.
    pub fn on_gpu(self) -> bool {
        matches!(self, Compute::CudaF32 | Compute::CudaBf16)
    }

    /// The number type of parameters, gradients and statistics beside activations of this one.
    pub fn exact(self) -> Compute {
        if self == Compute::CudaBf16 { Compute::CudaF32 } else { self }
    }
}
