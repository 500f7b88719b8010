//! Tensors for other crates: what can fail on a GPU returns an error.
//!
//! Inside this crate such failures unwind to the public function that was called (see [`crate::cuda`]), so that
//! operations need no results to return them in.

use crate::compute::Compute;
use crate::tensor::Tensor;
use crate::{Result, cuda};

impl Tensor {
    /// A matrix of the given row-major values, converted to the number type. Panics when they are not rows × cols.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn new(compute: Compute, rows: usize, cols: usize, values: &[f32]) -> Result<Tensor> {
        cuda::catch(|| Ok(Tensor::from_f32(compute, rows, cols, values)))
    }

    /// Zeros in the number type, place and shape of this tensor.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn zeros_like(&self) -> Result<Tensor> {
        cuda::catch(|| Ok(Tensor::zeros(self.compute(), self.rows(), self.cols())))
    }

    /// A copy of the elements in single precision, row-major.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn values(&self) -> Result<Vec<f32>> {
        cuda::catch(|| Ok(self.to_f32_vec()))
    }

    /// A copy of the elements in double precision, row-major.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn values_f64(&self) -> Result<Vec<f64>> {
        cuda::catch(|| Ok(self.to_f64_vec()))
    }

    /// Overwrites the elements with converted ones.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn set_values(&mut self, values: &[f32]) -> Result<()> {
        assert_eq!(values.len(), self.len(), "values of a {}×{} matrix", self.rows(), self.cols());
        cuda::catch(|| {
            self.copy_from_f32(values);
            Ok(())
        })
    }
}
