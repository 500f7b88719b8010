//! Each op against the same written with candle's own, values and gradients.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use loram_candle::*;

fn var(shape: impl Into<candle_core::Shape>) -> Result<Var> {
    Var::randn(0f64, 1.0, shape, &Device::Cpu)
}

/// Compares two scalars' values and gradients.
fn same(ours: &Tensor, theirs: &Tensor, vars: &[&Var]) -> Result<()> {
    let close = |a: &Tensor, b: &Tensor| -> Result<()> {
        let d = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
        assert!(d < 1e-10, "differs by {d}");
        Ok(())
    };
    close(ours, theirs)?;
    let (g, h) = (ours.backward()?, theirs.backward()?);
    for v in vars {
        close(g.get(v).unwrap(), h.get(v).unwrap())?;
    }
    Ok(())
}

fn weigh(x: &Tensor) -> Result<Tensor> {
    let w = Tensor::arange(0f64, x.elem_count() as f64, &Device::Cpu)?.sin()?.reshape(x.shape())?;
    (x * w)?.sum_all()
}

#[test]
fn rms_norm_is_the_composition() -> Result<()> {
    let (x, w) = (var((3, 5, 7))?, var(7)?);
    let plain = x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?)?.broadcast_mul(&w)?;
    same(&weigh(&rms_norm(&x, &w, 1e-5)?)?, &weigh(&plain)?, &[&x, &w])
}

#[test]
fn swiglu_is_the_composition() -> Result<()> {
    let (g, u) = (var((4, 9))?, var((4, 9))?);
    same(&weigh(&swiglu(&g, &u)?)?, &weigh(&(candle_nn::ops::silu(&g)? * u.as_tensor())?)?, &[&g, &u])
}

#[test]
fn lora_linear_is_the_composition() -> Result<()> {
    let (x, w, a, b) = (var((2, 3, 6))?, var((5, 6))?, var((2, 6))?, var((5, 2))?);
    let flat = x.reshape((6, 6))?;
    let low = (flat.matmul(&a.t()?)?.matmul(&b.t()?)? * 1.5)?;
    let plain = (flat.matmul(&w.t()?)? + low)?.reshape((2, 3, 5))?;
    let ours = weigh(&lora_linear(&x, &w, &a, &b, 1.5)?)?;
    assert!(ours.backward()?.get(&w).is_none(), "the frozen weight gets no gradient");
    same(&ours, &weigh(&plain)?, &[&x, &a, &b])
}

#[test]
fn attention_is_the_composition() -> Result<()> {
    let (h, d, t) = (2, 4, 5);
    let (q, k, v) = (var((t, h * d))?, var((t, h * d))?, var((t, h * d))?);
    let heads = |x: &Tensor| x.reshape((t, h, d))?.transpose(0, 1)?.contiguous();
    let mask: Vec<f64> = (0..t * t).map(|i| if i % t > i / t { -1e30 } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (1, t, t), &Device::Cpu)?;
    let scores = (heads(&q)?.matmul(&heads(&k)?.t()?)? * 0.5)?.broadcast_add(&mask)?;
    let plain = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&heads(&v)?)?;
    let plain = plain.transpose(0, 1)?.contiguous()?.reshape((t, h * d))?;
    let shape = AttnShape {
        heads: h,
        kv_heads: h,
        head_dim: d,
        scale: 0.5,
        cap: None,
        causal: true,
        window: None,
        dropout: None,
    };
    same(&weigh(&attention(&q, &k, &v, &[t], shape)?)?, &weigh(&plain)?, &[&q, &k, &v])
}

#[test]
fn cross_entropy_is_the_composition() -> Result<()> {
    let x = var((3, 6))?;
    let plain = candle_nn::loss::cross_entropy(&x.i_rows(&[0, 2])?, &Tensor::new(&[4u32, 1], &Device::Cpu)?)?;
    same(&cross_entropy(&x, &[4, -100, 1])?, &plain, &[&x])?;
    assert!(cross_entropy(&x, &[4, 6, 1]).is_err());
    Ok(())
}

trait Rows {
    fn i_rows(&self, rows: &[u32]) -> Result<Tensor>;
}

impl Rows for Var {
    fn i_rows(&self, rows: &[u32]) -> Result<Tensor> {
        self.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)
    }
}

#[test]
fn misuse_is_an_error() -> Result<()> {
    let x = Tensor::zeros((2, 4), DType::F32, &Device::Cpu)?;
    assert!(rms_norm(&x, &Tensor::zeros(3, DType::F32, &Device::Cpu)?, 1e-5).is_err());
    assert!(rms_norm(&x, &Tensor::zeros(4, DType::F64, &Device::Cpu)?, 1e-5).is_err());
    let half = x.to_dtype(DType::BF16)?;
    assert!(swiglu(&half, &half).unwrap_err().to_string().contains("f32 and f64"));
    Ok(())
}
