//! A model: its parts, its loading, and its linear layers by name.

use super::backbone::Backbone;
use super::head::Head;
use super::load::Loader;
use super::options::LoadOptions;
use super::originals::Originals;
use super::parts::{Part, PartMut};
use crate::cuda;
use crate::linear::Linear;
use crate::param::Params;
use crate::{Error, Result};
use loram_core::LinearInfo;
use loram_io::config::Pooling;
use loram_io::{Checkpoint, ModelConfig};

/// A transformer with adapters.
pub struct Model {
    pub(super) backbone: Box<dyn Backbone>,
    pub(super) head: Head,
    pub(super) params: Params,
    pub(super) options: LoadOptions,
    /// Base tensors before they were changed or trained.
    pub(super) originals: Originals,
    /// Path of the head, where it shares the embedding's weight.
    pub(super) tied_head: Option<&'static str>,
    /// Layers of the head that `all-linear` omits.
    pub(super) omitted: Vec<&'static str>,
}

impl Model {
    /// Builds the model of `cfg` over the weights of a checkpoint, which stay mapped. A head that the checkpoint does
    /// not have is initialised at random; errors name tensors that are missing or have another shape.
    pub fn load(ckpt: &Checkpoint, cfg: &ModelConfig, options: &LoadOptions) -> Result<Model> {
        if options.compute.on_gpu() {
            cuda::info()?;
        }
        cuda::catch(|| Model::build(ckpt, cfg, options))
    }

    fn build(ckpt: &Checkpoint, cfg: &ModelConfig, options: &LoadOptions) -> Result<Model> {
        let loader = Loader::new(ckpt, cfg, options)?;
        let Some(layout) = cfg.head_layout(options.head.outputs()) else {
            return Err(Error::Task(format!(
                "`{}` is an encoder: it classifies or scores texts (data with a label), it does not write them",
                cfg.family()
            )));
        };
        let (backbone, blocks): (Box<dyn Backbone>, _) = match cfg {
            ModelConfig::Decoder(c) => (Box::new(loader.decoder(c)?), c.num_layers),
            ModelConfig::Encoder(c) => (Box::new(loader.encoder(c)?), c.num_layers),
        };
        let tied = layout.pooling == Pooling::All && cfg.tied_weights().is_some();
        let head = Head::load(&layout, &loader, tied.then(|| backbone.tokens()), blocks, options.seed)?;
        let omitted = layout.layers().filter(|l| loader.omits(l)).map(|l| l.path).collect();
        let tied_head = tied.then_some(layout.out.path);
        let (params, originals) = (Params::default(), Originals::default());
        Ok(Model { backbone, head, params, options: *options, originals, tied_head, omitted })
    }

    /// The options that the model was loaded with.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    pub(super) fn all_linears(&self) -> impl Iterator<Item = &Linear> {
        self.backbone.linears().chain(self.head.linears())
    }

    pub(super) fn linear(&self, path: &str) -> Result<&Linear> {
        self.all_linears().find(|l| l.path == path).ok_or_else(|| {
            let example = self.all_linears().next();
            let hint = example.map_or(String::new(), |l| format!(" (there is `{}`, …)", l.path));
            Error::NoModule { path: path.to_string(), hint }
        })
    }

    pub(super) fn linear_mut(&mut self, path: &str) -> Result<(&mut Linear, &mut Params)> {
        self.linear(path)?;
        let linear = parts_mut(&mut self.backbone, &mut self.head).find_map(|part| match part {
            Part::Linear(l) if l.path == path => Some(l),
            _ => None,
        });
        Ok((linear.expect("a linear layer found above"), &mut self.params))
    }

    /// Every linear layer with its shape, in the order of the model; [`LinearInfo::output_layer`] as in
    /// [`loram_io::linear_modules`].
    pub fn linears(&self) -> Vec<LinearInfo> {
        let omitted = |path: &str| self.omitted.contains(&path);
        self.all_linears()
            .map(|l| LinearInfo { path: l.path.clone(), n: l.n, m: l.m, output_layer: omitted(&l.path) })
            .collect()
    }

    /// The trained tensors.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The trained tensors, to change.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }
}

/// All parts of a model that hold parameters, in its order. The fields are given apart from the rest of the model, so that
/// parameters can be added meanwhile.
pub(super) fn parts_mut<'a>(
    backbone: &'a mut Box<dyn Backbone>,
    head: &'a mut Head,
) -> impl Iterator<Item = PartMut<'a>> {
    backbone.parts_mut().into_iter().chain(head.parts_mut())
}
