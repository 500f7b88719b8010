//! loram's fused operations in a plain candle program: an adapter on a frozen layer learns a rotation of its outputs.
//!
//! cargo run --release -p loram-candle --example fused_ops

use candle_core::{DType, Device, Result, Tensor, Var};
use loram_candle::{lora_linear, rms_norm};

fn main() -> Result<()> {
    let (d, r, dev) = (64, 8, Device::Cpu);
    let weight = (Tensor::randn(0f32, 1.0, (d, d), &dev)? / 8.0)?;
    let gain = Tensor::ones(d, DType::F32, &dev)?;
    let a = Var::randn(0f32, 0.1, (r, d), &dev)?;
    let b = Var::zeros((d, r), DType::F32, &dev)?;
    // what is to be learnt: the same layer plus a hidden update of rank 4
    let hidden = (Tensor::randn(0f32, 1.0, (d, 4), &dev)?.matmul(&Tensor::randn(0f32, 1.0, (4, d), &dev)?)? / 16.0)?;
    let target = (&weight + hidden)?;
    for step in 0..=300 {
        let x = rms_norm(&Tensor::randn(0f32, 1.0, (128, d), &dev)?, &gain, 1e-6)?;
        let loss = (lora_linear(&x, &weight, &a, &b, 2.0)? - x.matmul(&target.t()?)?)?.sqr()?.mean_all()?;
        let grads = loss.backward()?;
        for v in [&a, &b] {
            v.set(&(v.as_tensor() - (grads.get(v).expect("both are in the graph") * 2.0)?)?)?;
        }
        if step % 100 == 0 {
            println!("step {step:3}: loss {:.5}", loss.to_scalar::<f32>()?);
        }
    }
    Ok(())
}
