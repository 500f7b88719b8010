use super::{GPU, close, numbers, on, random};
use crate::compute::Compute;
use crate::cuda::call::Grid;
use crate::cuda::launch::launch;
use crate::cuda::product::{Side, cast, product};
use crate::cuda::{Timing, catch, info, profile, timings};
use crate::tensor::Tensor;
use crate::{Error, Result};

#[test]
fn tensors_grow_shrink_and_are_copied() {
    let (x, more) = (random(5, 7, 1), random(300, 7, 2));
    let grown = |mut t: Tensor, more: &Tensor| {
        let copy = t.copy();
        t.push_rows(more);
        t.truncate_rows(200);
        t.push_rows(more);
        (copy, t.reshape(7, 500))
    };
    let want = grown(x.copy(), &more);
    for compute in GPU {
        let got = grown(on(compute, &x), &on(compute, &more));
        close("copy", compute, &got.0, &want.0);
        close("grown", compute, &got.1, &want.1);
        assert_eq!(Tensor::zeros(compute, 3, 5).to_f64_vec(), [0.0; 15]);
        assert!(Tensor::scratch(compute, 0, 5).to_f32_vec().is_empty());
    }
}

#[test]
fn number_types_change_by_rounding_to_even() {
    let values = [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -0.0, f32::INFINITY, 3.4e38, 1e-40, 0.1];
    let wide = Tensor::from_f32(Compute::CudaF32, 1, values.len(), &values);
    let want: Vec<f32> = values.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
    let narrow = cast(&wide, Compute::CudaBf16).into_owned();
    assert_eq!(narrow.to_f32_vec(), want);
    assert_eq!(cast(&narrow, Compute::CudaF32).to_f32_vec(), want);
    assert_eq!(Tensor::from_f32(Compute::CudaBf16, 1, values.len(), &values).to_f32_vec(), want);
    let x = numbers(10, 1);
    assert_eq!(Tensor::from_f32(Compute::CudaBf16, 2, 5, &x).to_f32_vec(), x);
}

#[test]
fn failures_become_errors() {
    let x = random(2, 2, 1);
    let x = on(Compute::CudaF32, &x);
    let wrong: Result<()> = catch(|| {
        launch!("no_such_kernel", Grid::elements(4); x.address());
        Ok(())
    });
    assert!(matches!(&wrong, Err(Error::Cuda(what)) if what.contains("no_such_kernel")), "{wrong:?}");
    assert!(catch(|| Ok(x.to_f32_vec())).is_ok());
    let gpu = info().unwrap();
    assert!(gpu.peak() > 0 && gpu.free() <= gpu.total() && !gpu.name().is_empty());
}

#[test]
fn a_profile_counts_launches_and_products() {
    profile();
    let (x, mut y) = (on(Compute::CudaF32, &random(3, 4, 1)), Tensor::zeros(Compute::CudaF32, 3, 3));
    product(&mut y, false, 1.0, Side::of(&x), Side::t(&x));
    launch!("scale_f32", Grid::elements(9); y.address(), 2.0f32, 9i64);
    launch!("scale_f32", Grid::elements(9); y.address(), 2.0f32, 9i64);
    let found = timings().unwrap();
    let of = |name: &str| found.iter().find(|t| t.name() == name).map(Timing::calls);
    // other tests may run beside this one
    assert!(of("scale_f32") >= Some(2) && of("product 3×3×4 CudaF32 to CudaF32") >= Some(1), "{found:?}");
    assert!(found.iter().all(|t| t.seconds() >= 0.0) && found.windows(2).all(|t| t[0].seconds() >= t[1].seconds()));
}

/// Checks that launches fit their kernels, which the driver does not.
#[cfg(feature = "cuda-emulation")]
#[test]
fn arguments_of_another_type_are_refused() {
    let x = on(Compute::CudaF32, &random(2, 2, 1));
    let wrong: Result<()> = catch(|| {
        launch!("scale_f32", Grid::elements(4); x.address(), 2i32, 4i64);
        Ok(())
    });
    assert!(matches!(&wrong, Err(Error::Cuda(what)) if what.contains("(pil)")), "{wrong:?}");
}
