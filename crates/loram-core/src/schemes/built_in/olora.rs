//! OLoRA (2406.01775): the first columns of Q and rows of R of the weight's QR decomposition.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::schemes::input::WeightUse;
use crate::Result;
use crate::linalg::{mat, qr, rows, view, wide_product};
use faer::Mat;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "W = QR: A = R[:r], B = Q[:, :r]",
    source: "2406.01775, PEFT `olora`",
    weight: WeightUse::Values,
    changes_base: true,
    ..SchemeInfo::new("olora", init)
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    let w = c.values()?;
    // the first r columns of Q come from the first r columns of W alone, and R[:r] = Q[:, :r]ᵀ·W
    let first: Vec<f32> = w.chunks_exact(m).flat_map(|row| &row[..r]).copied().collect();
    let (q, upper) = qr(mat(&first, n, r));
    let projected = wide_product(view(&w, n, m).transpose(), q.as_ref());
    let a = Mat::from_fn(r, m, |k, j| if j < r { upper[(k, j)] } else { projected[(j, k)] });
    Ok(SchemeFactors::new(rows(a.as_ref()), rows(q.as_ref())))
}
