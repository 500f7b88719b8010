//! Single rows of a frozen weight that are trained: tokens of an embedding, and of the head that shares it (PEFT's
//! `trainable_token_indices`).

use crate::kernels::OutOfRange;
use crate::ops;
use crate::param::{Params, Trainable, Vector};
use crate::tensor::Tensor;
use crate::weight::Weight;
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Rows of a weight (n, m): row `ids[j]` counts as row j of `value`, whatever the weight has there.
#[derive(Debug)]
pub(crate) struct TrainedRows {
    pub ids: Vec<u32>,
    /// Where an id is in `ids`.
    places: BTreeMap<u32, u32>,
    /// (k, m).
    pub value: Vector,
    /// The weight's own rows times −1, (k, m) in the number type of parameters.
    minus: Tensor,
}

impl TrainedRows {
    /// The rows `ids` of a weight, with the value that `value` makes of the weight's own. Errors: an id beyond the weight, or
    /// one that comes twice.
    pub fn new(
        path: &str,
        weight: &Weight,
        ids: &[u32],
        exact: crate::Compute,
        value: impl FnOnce(&Tensor) -> Vector,
    ) -> Result<TrainedRows> {
        let wrong = |what: String| Error::Layer { path: path.into(), what };
        let mut places = BTreeMap::new();
        for (place, &id) in ids.iter().enumerate() {
            if id as usize >= weight.rows() {
                let (index, value, limit) = (place, i64::from(id), weight.rows());
                return Err(wrong(format!(
                    "trainable_token_indices: {}",
                    OutOfRange { what: "token id", index, value, limit }
                )));
            }
            if places.insert(id, place as u32).is_some() {
                return Err(wrong(format!("trainable_token_indices names token {id} twice")));
            }
        }
        let mut own = Tensor::scratch(exact, ids.len(), weight.cols());
        own.copy_from_f32(&weight.rows_f32(ids));
        let value = value(&own);
        let mut minus = own;
        minus.scale(-1.0);
        Ok(TrainedRows { ids: ids.to_vec(), places, value, minus })
    }

    /// The same rows of a weight that is shared.
    pub fn shared(&self) -> TrainedRows {
        let TrainedRows { ids, places, value, minus } = self;
        TrainedRows { ids: ids.clone(), places: places.clone(), value: value.copied(), minus: minus.copy() }
    }

    /// The difference to the weight's own rows, (k, m).
    fn difference(&self, params: &Params) -> Tensor {
        let mut difference = self.value.get(params).copy();
        ops::add_assign(&mut difference, &self.minus);
        difference
    }

    /// Positions of `ids` whose row is trained, and the places of their rows; `without` is left out.
    fn hits(&self, ids: &[u32], without: Option<u32>) -> (Vec<usize>, Vec<u32>) {
        let own = ids.iter().enumerate().filter(|(_, id)| Some(**id) != without);
        own.filter_map(|(at, id)| Some((at, *self.places.get(id)?))).unzip()
    }

    /// Adds to out (ids, m), which has rows of the weight, what the trained rows differ by.
    pub fn look_up(&self, params: &Params, ids: &[u32], out: &mut Tensor) -> Result<()> {
        let (at, places) = self.hits(ids, None);
        if at.is_empty() {
            return Ok(());
        }
        let mut rows = Tensor::scratch(out.compute(), at.len(), out.cols());
        ops::gather(&self.difference(params), &places, &mut rows, false)?;
        out.add_rows(&at, &rows);
        Ok(())
    }

    /// Adds the rows of dx (ids, m) to the gradient of the rows, where they are trained; `padding` has none.
    pub fn look_up_backward(&self, params: &mut Params, ids: &[u32], padding: Option<u32>, dx: &Tensor) -> Result<()> {
        let Trainable::Param(id) = self.value else { return Ok(()) };
        let (at, places) = self.hits(ids, padding);
        match at.is_empty() {
            true => Ok(()),
            false => ops::scatter_add(&dx.gather_rows(&at), &places, params.grad_mut(id)),
        }
    }

    /// Adds to y (t, n), the product of x (t, m) with the weight, what the trained rows differ by.
    pub fn multiply(&self, params: &Params, x: &Tensor, y: &mut Tensor) {
        y.add_columns(&self.ids, &ops::times_t(x, &self.difference(params)));
    }

    /// The backward pass of [`Self::multiply`]: adds to the gradient of the rows.
    pub fn add_gradient(&self, params: &mut Params, x: &Tensor, dy: &Tensor) {
        if let Trainable::Param(id) = self.value {
            ops::add_t_times(params.grad_mut(id), 1.0, &dy.gather_columns(&self.ids), x);
        }
    }

    /// The backward pass of [`Self::multiply`]: adds to dx (t, m).
    pub fn add_input_gradient(&self, params: &Params, dy: &Tensor, dx: &mut Tensor) {
        ops::add_assign(dx, &ops::times(1.0, &dy.gather_columns(&self.ids), &self.difference(params)));
    }
}
