//! A model: its parts, its loading, and its linear layers by name.

use super::backbone::Backbone;
use super::head::Head;
use super::load::Loader;
use super::options::LoadOptions;
use super::originals::Originals;
use super::parts::{Embedding, Part, PartMut, PartRef};
use crate::cuda;
use crate::linear::Linear;
use crate::param::Params;
use crate::{Error, Result};
use loram_core::LinearInfo;
use loram_io::config::{HeadKind, Pooling};
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
    /// Last parts of the paths of others that it omits.
    pub(super) omitted_names: &'static [&'static str],
}

impl Model {
    /// Builds the model of `cfg` over the weights of a checkpoint, which stay mapped. A head that the checkpoint does
    /// not have is initialised at random; errors name tensors that are missing or have another shape.
    pub fn load(ckpt: &Checkpoint, cfg: &ModelConfig, options: &LoadOptions) -> Result<Model> {
        if options.compute.on_gpu() {
            cuda::info()?;
            if matches!(cfg, ModelConfig::Encoder(c) if c.relative.is_some()) {
                return Err(Error::Task(format!(
                    "`{}` runs on the CPU alone: its attention with relative positions has no kernel for GPUs; set device: cpu",
                    cfg.family()
                )));
            }
        }
        cuda::catch(|| Model::build(ckpt, cfg, options))
    }

    fn build(ckpt: &Checkpoint, cfg: &ModelConfig, options: &LoadOptions) -> Result<Model> {
        let loader = Loader::new(ckpt, cfg, options)?;
        let Some(layout) = cfg.head_layout(options.head) else { return Err(Error::Task(no_head(cfg, options.head))) };
        let (backbone, blocks): (Box<dyn Backbone>, _) = match cfg {
            ModelConfig::Decoder(c) => (Box::new(loader.decoder(c)?), c.num_layers),
            ModelConfig::Encoder(c) => (Box::new(loader.encoder(c)?), c.num_layers),
        };
        loader.report_unused(cfg);
        let tied = layout.pooling == Pooling::All && loader.shares_head(cfg)?;
        let head = Head::load(&layout, &loader, tied.then(|| backbone.tokens()), blocks, options.seed)?;
        let omitted = layout.layers().filter(|l| loader.omits(l)).map(|l| l.path).collect();
        let tied_head = tied.then_some(layout.out.path);
        let (params, originals) = (Params::default(), Originals::default());
        let omitted_names = cfg.expert_layers();
        Ok(Model { backbone, head, params, options: *options, originals, tied_head, omitted, omitted_names })
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

    /// Every module that takes an adapter with the shape of its weight, in the order of the model: embeddings, then linear
    /// layers; [`LinearInfo::output_layer`] as in [`loram_io::target_modules`].
    pub fn targets(&self) -> Vec<LinearInfo> {
        let embedding = |e: &Embedding| {
            let (n, m) = e.shape(&self.params);
            LinearInfo { path: e.path.clone(), n, m, output_layer: true }
        };
        self.embeddings().map(embedding).chain(self.linears()).collect()
    }

    /// The linear layers among [`Model::targets`].
    pub fn linears(&self) -> Vec<LinearInfo> {
        let named = |path: &str| path.rsplit('.').next().is_some_and(|last| self.omitted_names.contains(&last));
        let omitted = |path: &str| self.omitted.contains(&path) || named(path);
        self.all_linears()
            .map(|l| LinearInfo { path: l.path.clone(), n: l.n, m: l.m, output_layer: omitted(&l.path) })
            .collect()
    }

    /// The path of the token embedding.
    pub fn embedding_path(&self) -> &str {
        &self.backbone.tokens().path
    }

    /// Returns whether this module is an embedding.
    pub fn is_embedding(&self, path: &str) -> bool {
        self.embeddings().any(|e| e.path == path)
    }

    fn embeddings(&self) -> impl Iterator<Item = &Embedding> {
        self.backbone.embedding_parts().into_iter().filter_map(|part| match part {
            Part::Embedding(e) => Some(e),
            _ => None,
        })
    }

    /// A module that takes an adapter.
    pub(super) fn target(&self, path: &str) -> Result<PartRef<'_>> {
        match self.embeddings().find(|e| e.path == path) {
            Some(e) => Ok(Part::Embedding(e)),
            None => self.linear(path).map(Part::Linear),
        }
    }

    /// [`Self::target`] to change, and the parameters.
    pub(super) fn target_mut(&mut self, path: &str) -> Result<(PartMut<'_>, &mut Params)> {
        self.target(path)?;
        let part = parts_mut(&mut self.backbone, &mut self.head)
            .find(|part| !matches!(part, Part::Norm(_)) && part.path() == path);
        Ok((part.expect("a module found above"), &mut self.params))
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

/// The reason why a family has no head of this kind.
fn no_head(cfg: &ModelConfig, kind: HeadKind) -> String {
    let family = cfg.family();
    match kind {
        HeadKind::LanguageModel => {
            format!(
                "`{family}` is an encoder: it classifies or scores texts (data with a label), it does not write them"
            )
        }
        HeadKind::Tokens { .. } => {
            format!("transformers has no class for token classification with `{family}`: use an encoder")
        }
        HeadKind::Pooled { .. } => format!(
            "pooling: transformers has no class for token classification with `{family}`, whose outputs would be pooled: leave \
             pooling out"
        ),
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
