//! Training of the weights of the model itself: of modules beside the adapters, or of all.

use super::head::Head;
use super::parts::Part;
use super::transformer::{Model, parts_mut};
use crate::param::{Param, ParamKind, Trainable};
use crate::{Error, Result, cuda};
use loram_core::module_ends_with;

impl Model {
    /// Fully trains the modules of one entry of PEFT's `modules_to_save` beside the adapters: every linear layer, norm and
    /// embedding whose module path is `name` or ends with `.name`, and everything inside a module whose path is or does.
    /// Their weights and biases become parameters of kind [`ParamKind::Saved`]. Returns the module paths of the parts, in
    /// the order of the model. Errors when no module matches, and for a failure of the GPU, after which the model is of no use.
    pub fn add_module_to_save(&mut self, name: &str) -> Result<Vec<String>> {
        let matches = |path: &str| {
            let ends = path.match_indices('.').map(|(i, _)| &path[..i]).chain([path]);
            ends.into_iter().any(|p| module_ends_with(p, name))
        };
        if let Some(path) = self.never_trained().find(|path| matches(path)) {
            let what =
                format!("is never trained here: leave `{name}` out of modules_to_save, or name layers inside it");
            return Err(Error::Layer { path: path.into(), what });
        }
        let parts = parts_mut(&mut self.backbone, &mut self.head);
        let paths: Vec<String> = parts.map(|p| p.path().to_string()).filter(|p| matches(p)).collect();
        if paths.is_empty() {
            return Err(Error::NoModule { path: name.to_string(), hint: " to train fully (modules_to_save)".into() });
        }
        self.make_trainable(ParamKind::Saved, |path| paths.iter().any(|p| p == path))?;
        Ok(paths)
    }

    /// Makes every weight, bias and norm a parameter of kind [`ParamKind::Base`] (full fine-tuning). A tied `lm_head` stays
    /// tied. After an error, a failure of the GPU, the model is of no use.
    ///
    /// # Errors
    /// A model with parts that are never trained (experts, sinks, convolutions), by name.
    pub fn full_finetune(&mut self) -> Result<()> {
        if let Some(path) = self.never_trained().next() {
            let what = "is never trained here, so that full fine-tuning is not supported: train adapters (finetuning_type: lora)";
            return Err(Error::Layer { path: path.into(), what: what.into() });
        }
        self.make_trainable(ParamKind::Base, |_| true)?;
        if self.tied_head.is_some()
            && let (Trainable::Param(id), Head::Lm(head)) = (&self.backbone.tokens().weight, &mut self.head)
        {
            head.linear.weight = Trainable::Param(*id);
        }
        Ok(())
    }

    /// Paths of what no kind of training changes.
    fn never_trained(&self) -> impl Iterator<Item = &str> {
        self.backbone.blocks().iter().filter_map(|block| block.frozen())
    }

    fn make_trainable(&mut self, kind: ParamKind, chosen: impl Fn(&str) -> bool) -> Result<()> {
        cuda::catch(|| {
            self.convert(kind, chosen);
            Ok(())
        })
    }

    /// Turns frozen tensors of the chosen parts into parameters.
    fn convert(&mut self, kind: ParamKind, chosen: impl Fn(&str) -> bool) {
        let compute = self.options.compute.exact();
        let tied = self.tied_head.filter(|_| kind == ParamKind::Base);
        let parts = parts_mut(&mut self.backbone, &mut self.head);
        for part in parts.filter(|p| chosen(p.path()) && Some(p.path()) != tied) {
            let path = part.path().to_string();
            let (weight, bias, norm) = match part {
                Part::Linear(l) => (Some(&mut l.weight), l.bias.as_mut(), None),
                Part::Embedding(t) => (Some(&mut t.weight), None, None),
                Part::Norm(n) => {
                    let trains_bias = !n.bias_is_fixed;
                    (None, n.bias.as_mut().filter(|_| trains_bias), Some(&mut n.weight))
                }
            };
            if let Some(source) = weight
                && let Trainable::Frozen(w) = source
            {
                let shape = [w.rows(), w.cols()];
                let value = w.to_tensor(compute);
                if kind == ParamKind::Saved {
                    self.originals.keep_weight(format!("{path}.weight"), w);
                }
                *source = Trainable::Param(self.params.add(Param::new(format!("{path}.weight"), kind, &shape, value)));
            }
            for (vector, suffix) in [(norm, "weight"), (bias, "bias")] {
                if let Some(source) = vector
                    && let Trainable::Frozen(v) = source
                {
                    let value = v.copy();
                    if kind == ParamKind::Saved {
                        self.originals.keep_vector(format!("{path}.{suffix}"), v);
                    }
                    let shape = [value.cols()];
                    *source =
                        Trainable::Param(self.params.add(Param::new(format!("{path}.{suffix}"), kind, &shape, value)));
                }
            }
        }
    }
}
