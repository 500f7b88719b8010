//! Parameters: the tensors that training changes, and tensors that are either frozen or a parameter.

use crate::compute::Compute;
use crate::observe::Watch;
use crate::optim;
use crate::tensor::Tensor;
use crate::{Result, cuda};

/// The part that a parameter plays, for learning rates and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// `A` of an adapter, `(r, in_features)`.
    LoraA,
    /// `B` of an adapter, `(out_features, r)`.
    LoraB,
    /// A weight or bias of a module that is fully trained beside the adapters (`modules_to_save`).
    Saved,
    /// Single rows of an embedding or head (`trainable_token_indices`).
    Tokens,
    /// A weight of the base model in full fine-tuning.
    Base,
}

/// Place of a parameter in [`Params`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParamId(pub(crate) usize);

/// A trainable tensor with its gradient.
#[derive(Debug)]
pub struct Param {
    /// `<module path>.lora_A.weight`, `<module path>.lora_B.weight`, `<module path>.lora_B.bias`, `<module path>.weight`,
    /// `<module path>.bias` or `<module path>.token_adapter.trainable_tokens_delta`.
    pub name: String,
    /// Its part.
    pub kind: ParamKind,
    /// Dimensions; the tensors see a vector as one row.
    pub shape: Vec<usize>,
    /// Its value.
    pub value: Tensor,
    /// The gradient that was collected since [`Params::zero_grads`].
    pub grad: Tensor,
    /// False for biases and norm weights, which weight decay leaves alone.
    pub decay: bool,
}

impl Param {
    /// A parameter of this value, with a gradient of 0.
    pub(crate) fn new(name: String, kind: ParamKind, shape: &[usize], value: Tensor) -> Param {
        let grad = Tensor::zeros(value.compute(), value.rows(), value.cols());
        let decay = shape.len() > 1;
        Param { name, kind, shape: shape.to_vec(), value, grad, decay }
    }
}

/// All parameters of a model, in a fixed order.
#[derive(Debug, Default)]
pub struct Params {
    list: Vec<Param>,
    /// On a GPU, during a pass: factors of adapters in the number type of activations, by place.
    narrow: Vec<Option<Tensor>>,
    /// Layers that are watched while the model runs.
    pub(crate) watch: Option<Watch>,
}

impl Params {
    pub(crate) fn add(&mut self, param: Param) -> ParamId {
        self.list.push(param);
        ParamId(self.list.len() - 1)
    }

    pub(crate) fn value(&self, id: ParamId) -> &Tensor {
        &self.list[id.0].value
    }

    /// The value for products with activations.
    pub(crate) fn operand(&self, id: ParamId) -> &Tensor {
        self.narrow.get(id.0).and_then(Option::as_ref).unwrap_or_else(|| self.value(id))
    }

    /// Values stay as they are until [`Params::end_pass`], so that those of adapters can be rounded once for activations
    /// in `compute`.
    pub(crate) fn begin_pass(&mut self, compute: Compute) {
        if compute != Compute::CudaBf16 {
            return;
        }
        cuda::on_gpu!({
            let is_factor = |p: &Param| matches!(p.kind, ParamKind::LoraA | ParamKind::LoraB) && p.shape.len() == 2;
            let factors: Vec<&Tensor> = self.list.iter().filter(|p| is_factor(p)).map(|p| &p.value).collect();
            let mut narrow = cuda::many::narrow(&factors).into_iter();
            self.narrow = self.list.iter().map(|p| if is_factor(p) { narrow.next() } else { None }).collect();
        });
    }

    /// Ends what [`Params::begin_pass`] began.
    pub(crate) fn end_pass(&mut self) {
        self.narrow.clear();
    }

    #[cfg(gpu)]
    pub(crate) fn grad(&self, id: ParamId) -> &Tensor {
        &self.list[id.0].grad
    }

    pub(crate) fn grad_mut(&mut self, id: ParamId) -> &mut Tensor {
        &mut self.list[id.0].grad
    }

    /// Returns whether gradients of frozen weights are watched, so that the backward pass has to reach every layer.
    pub(crate) fn watches_gradients(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::backward)
    }

    /// Number of parameter tensors.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when nothing is trainable.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of trainable elements.
    pub fn count(&self) -> usize {
        self.list.iter().map(|p| p.value.len()).sum()
    }

    /// All, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Param> {
        self.list.iter()
    }

    /// All, in order, to change.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Param> {
        self.list.iter_mut()
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Param> {
        self.list.iter().find(|p| p.name == name)
    }

    /// The parameter of that name, to change.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Param> {
        self.list.iter_mut().find(|p| p.name == name)
    }

    /// Sets all gradients to 0.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn zero_grads(&mut self) -> Result<()> {
        cuda::catch(|| {
            optim::zero(&mut self.list.iter_mut().map(|p| &mut p.grad).collect::<Vec<_>>());
            Ok(())
        })
    }
}

/// A tensor that is either frozen or trained.
#[derive(Debug)]
pub(crate) enum Trainable<F> {
    Frozen(F),
    Param(ParamId),
}

/// Vectors (biases, norm weights) are small: frozen ones are held in the number type of parameters.
pub(crate) type Vector = Trainable<Tensor>;

impl<F> Trainable<F> {
    /// Its place among the parameters, if it is trained.
    pub fn param(&self) -> Option<ParamId> {
        match self {
            Trainable::Frozen(_) => None,
            Trainable::Param(id) => Some(*id),
        }
    }
}

impl<F: Clone> Trainable<F> {
    /// The same tensor, for a second place in the model: a parameter collects the gradients of both.
    pub fn shared(&self) -> Trainable<F> {
        match self {
            Trainable::Frozen(value) => Trainable::Frozen(value.clone()),
            Trainable::Param(id) => Trainable::Param(*id),
        }
    }
}

impl Vector {
    /// The same as `shared` for a vector or factor, whose frozen values are copied.
    pub fn copied(&self) -> Vector {
        match self {
            Trainable::Frozen(value) => Trainable::Frozen(value.copy()),
            Trainable::Param(id) => Trainable::Param(*id),
        }
    }

    pub fn get<'a>(&'a self, params: &'a Params) -> &'a Tensor {
        match self {
            Trainable::Frozen(t) => t,
            Trainable::Param(id) => params.value(*id),
        }
    }

    /// The matrix as an operand of products with activations.
    pub fn operand<'a>(&'a self, params: &'a Params) -> &'a Tensor {
        match self {
            Trainable::Frozen(t) => t,
            Trainable::Param(id) => params.operand(*id),
        }
    }
}
