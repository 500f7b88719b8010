//! Short convolutions: from the tensors of a checkpoint to a layer.

use super::Loader;
use crate::Result;
use crate::convolution::Kernel;
use crate::model::parts::ShortConvolution;
use crate::tensor::Tensor;
use loram_io::config::{ConvolutionConfig, ConvolutionModules};

impl Loader<'_> {
    /// The short convolution of a block, in which `at` gives the paths of modules.
    pub fn short_convolution(
        &self,
        at: impl Fn(&str) -> String,
        names: &ConvolutionModules,
        how: &ConvolutionConfig,
        hidden: usize,
    ) -> Result<ShortConvolution> {
        let (path, length) = (at(names.kernel), how.length);
        let stored = self.tensor(&format!("{path}.weight"), &[hidden, 1, length])?.to_f32()?;
        // the last factor is that of the current token
        let factors: Vec<f32> = (0..length * hidden)
            .map(|i| (i / hidden, i % hidden))
            .map(|(before, channel)| stored[channel * length + length - 1 - before])
            .collect();
        let bias = if how.bias { Some(self.constant(&format!("{path}.bias"), hidden)?) } else { None };
        Ok(ShortConvolution {
            input: self.linear(at(names.input), 3 * hidden, hidden, how.bias)?,
            kernel: Kernel { factors: Tensor::from_f32(self.compute.exact(), length, hidden, &factors), bias },
            output: self.linear(at(names.output), hidden, hidden, how.bias)?,
            path,
        })
    }
}
