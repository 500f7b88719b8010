//! Residual connections, and where their norms are.

use super::{Cache, Mixer, Norm, NormSaved, Part, PartMut, PartRef, Sublayer};
use crate::dropout::Dropout;
use crate::held::Held;
use crate::model::pass::Pass;
use crate::ops;
use crate::param::Params;
use crate::tensor::Tensor;

/// post(x + dropout(scale·out(inner(pre(x))))): pre-norm (2002.04745) has `pre` alone, post-norm (1706.03762) `post` alone, a
/// sandwich (2105.13290) `pre` and `out`.
#[derive(Debug)]
pub(crate) struct Residual<S> {
    /// Norm of the input of `inner`, beside the stream.
    pub pre: Option<Norm>,
    pub inner: S,
    /// Norm of the output of `inner`, beside the stream.
    pub out: Option<Norm>,
    /// Factor on what is added to the stream.
    pub scale: f64,
    /// On what is added to the stream.
    pub dropout: Dropout,
    /// Norm of the sum, in the stream.
    pub post: Option<Norm>,
}

/// Activations of a residual connection; the normalised input is recomputed.
pub(crate) struct ResidualSaved<S> {
    x: Tensor,
    pre: Option<NormSaved>,
    inner: S,
    /// The output of `inner` before its norm.
    out: Option<(Tensor, NormSaved)>,
    /// The sum before its norm.
    post: Option<(Tensor, NormSaved)>,
}

impl<S> ResidualSaved<S> {
    /// The input of the connection.
    pub fn into_input(self) -> Tensor {
        self.x
    }
}

impl<S: Sublayer> Residual<S> {
    /// Runs `inner`, which returns the second operand + its output, or its output alone.
    fn around<A>(
        &self,
        params: &Params,
        x: Tensor,
        step: Option<u64>,
        inner: impl FnOnce(Held<'_>, Option<&Tensor>) -> (Tensor, A),
    ) -> (Tensor, ResidualSaved<A>) {
        let (input, pre) = match &self.pre {
            Some(norm) => {
                let room = self.inner.room(params, x.compute(), step);
                let (normalised, saved) = norm.forward_with_room(params, &x, room);
                (Held::Owned(normalised), Some(saved))
            }
            None => (Held::Borrowed(&x), None),
        };
        let plain = self.out.is_none() && self.scale == 1.0 && !self.dropout.is_on(step);
        let (sum, inner, out) = match plain {
            true => {
                let (sum, saved) = inner(input, Some(&x));
                (sum, saved, None)
            }
            false => {
                let (y, saved) = inner(input, None);
                let (sum, out) = self.add(params, y, &x, step);
                (sum, saved, out)
            }
        };
        match &self.post {
            None => (sum, ResidualSaved { x, pre, inner, out, post: None }),
            Some(norm) => {
                let (y, saved) = norm.forward(params, &sum);
                (y, ResidualSaved { x, pre, inner, out, post: Some((sum, saved)) })
            }
        }
    }

    /// Returns x + dropout(scale·out(y)), and y with the statistics of its norm where it has one.
    fn add(&self, params: &Params, y: Tensor, x: &Tensor, step: Option<u64>) -> (Tensor, Option<(Tensor, NormSaved)>) {
        let (mut branch, out) = match &self.out {
            None => (y, None),
            Some(norm) => {
                let (normalised, saved) = norm.forward(params, &y);
                (normalised, Some((y, saved)))
            }
        };
        if self.scale != 1.0 {
            branch.scale(self.scale);
        }
        if self.dropout.is_on(step) {
            let mut sum = x.copy();
            self.dropout.add(&branch, &mut sum, step);
            return (sum, out);
        }
        ops::add_assign(&mut branch, x);
        (branch, out)
    }

    /// The gradient of the output of `inner` out of that of the sum.
    fn through<'a>(
        &self,
        params: &mut Params,
        d: &'a Tensor,
        out: Option<(Tensor, NormSaved)>,
        step: Option<u64>,
    ) -> Held<'a> {
        let mut branch = self.dropout.of(d, step).map_or(Held::Borrowed(d), Held::Owned);
        if self.scale != 1.0 {
            let mut scaled = branch.into_owned();
            scaled.scale(self.scale);
            branch = Held::Owned(scaled);
        }
        if let (Some(norm), Some((y, saved))) = (&self.out, out) {
            let mut dy = Tensor::scratch(d.compute(), d.rows(), d.cols());
            norm.backward(params, &y, &saved, &branch, &mut dy, false);
            branch = Held::Owned(dy);
        }
        branch
    }

    /// x (t, hidden) → (t, hidden).
    pub fn forward(&self, params: &Params, x: Tensor, pass: &Pass<'_>) -> (Tensor, ResidualSaved<S::Saved>) {
        self.around(params, x, pass.step, |x, base| self.inner.forward(params, x, base, pass))
    }

    /// Adds to the gradients of the parameters; returns dx where it is needed.
    pub fn backward(
        &self,
        params: &mut Params,
        saved: ResidualSaved<S::Saved>,
        dy: Tensor,
        need_dx: bool,
        pass: &Pass<'_>,
    ) -> Option<Tensor> {
        let step = pass.step;
        let ResidualSaved { x, pre, inner, out, post } = saved;
        // the gradient of the sum, to which that of the inner input is added
        let mut d = match (&self.post, post) {
            (Some(norm), Some((sum, saved))) => {
                let mut d = Tensor::scratch(dy.compute(), dy.rows(), dy.cols());
                norm.backward(params, &sum, &saved, &dy, &mut d, false);
                drop(dy);
                d
            }
            _ => dy,
        };
        let d_inner = self.through(params, &d, out, step);
        let projected = self.inner.backward(params, inner, d_inner, pass);
        match (&self.pre, pre) {
            (Some(norm), Some(saved)) => {
                let normalised = norm.forward(params, &x).0;
                let needed = need_dx || norm.trains();
                let mut dn = needed.then(|| Tensor::scratch(d.compute(), d.rows(), d.cols()));
                let target = dn.as_mut().map(|dn| (dn, false));
                self.inner.backward_input(params, projected, &normalised, target, step);
                drop(normalised);
                if let Some(dn) = dn {
                    norm.backward(params, &x, &saved, &dn, &mut d, true);
                }
            }
            _ => self.inner.backward_input(params, projected, &x, need_dx.then_some((&mut d, true)), step),
        }
        need_dx.then_some(d)
    }

    /// The parts of `inner` with the norms after it, and the norm before it, which models list after all layers of a block.
    pub fn parts(&self) -> (Vec<PartRef<'_>>, Option<PartRef<'_>>) {
        let after = self.out.iter().chain(&self.post).map(Part::Norm);
        let parts = self.inner.parts().into_iter().chain(after).collect();
        (parts, self.pre.as_ref().map(Part::Norm))
    }

    /// [`Self::parts`] to change.
    pub fn parts_mut(&mut self) -> (Vec<PartMut<'_>>, Option<PartMut<'_>>) {
        let after = self.out.iter_mut().chain(&mut self.post).map(Part::Norm);
        let parts = self.inner.parts_mut().into_iter().chain(after).collect();
        (parts, self.pre.as_mut().map(Part::Norm))
    }
}

impl<S: Mixer> Residual<S> {
    /// [`Self::forward`] for tokens that continue what the cache holds, which they join.
    pub fn continue_with(&self, params: &Params, x: Tensor, caches: &mut [&mut Cache], pass: &Pass<'_>) -> Tensor {
        let inner = |x: Held<'_>, base: Option<&Tensor>| (self.inner.continue_with(params, x, base, caches, pass), ());
        self.around(params, x, None, inner).0
    }
}
