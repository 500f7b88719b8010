//! RLMO (2606.31813): A holds the last r right singular vectors, without their values; B is zero.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use super::rlpo;
use crate::Result;
use crate::lanczos::End;

pub(super) const INFO: SchemeInfo =
    SchemeInfo { name: "rlmo", summary: "A: the last r right singular vectors, B = 0", init, ..rlpo::INFO };

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    rlpo::right(c, End::Last)
}
