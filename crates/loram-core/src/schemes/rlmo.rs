//! RLMO (2606.31813): A holds the last r right singular vectors, without their values; B is zero.

use super::{Context, Factors, SchemeInfo, rlpo};
use crate::Result;
use crate::lanczos::End;

pub(super) const INFO: SchemeInfo =
    SchemeInfo { name: "rlmo", summary: "A: the last r right singular vectors, B = 0", start, ..rlpo::INFO };

fn start(c: &Context<'_>) -> Result<Factors> {
    rlpo::right(c, End::Last)
}
