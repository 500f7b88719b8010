//! The integration tests of loram-nn. One binary: each test target links the whole workspace again.

mod adapters;
mod bf16;
mod checkpoints;
mod common;
mod generation;
mod kernels_activation;
mod kernels_attention;
mod kernels_elementwise;
mod kernels_gemm;
mod kernels_loss_optim;
mod kernels_norm;
mod kernels_par_simd;
mod kernels_rope;
mod observed;
mod reference;
