//! All ranks of a run train the same: data, base and the values that training starts from.

use crate::Result;
use crate::base::Base;
use crate::checkpoint::Inputs;
use crate::dist::{ProcessGroup, replicas};
use crate::observer::Level;
use crate::report::Reporter;
use loram_nn::Model;

/// Every rank reads the same data: an error names the rank that does not.
pub(super) fn check_same_inputs(inputs: &Inputs, group: &ProcessGroup) -> Result<()> {
    for (name, sum) in [("training", &inputs.train_data), ("evaluation", &inputs.eval_data)] {
        let differs = format!("has other {name} data than rank 0");
        group.same(sum.as_deref().unwrap_or_default().as_bytes(), &differs, "the same files and the same tokenizer")?;
    }
    Ok(())
}

/// Checks that all ranks train the same base, and gives all of them the values of rank 0 where their processors round otherwise.
pub(super) fn start_alike(
    model: &mut Model,
    base: &Base,
    group: &ProcessGroup,
    reporter: &mut Reporter<'_>,
) -> Result<()> {
    if group.is_solo() {
        return Ok(());
    }
    let mut flat = Vec::new();
    replicas::values(model, &mut flat)?;
    let sums = group.gather(&replicas::checksum(&flat).to_le_bytes())?;
    let Some(rank) = sums.iter().position(|sum| *sum != sums[0]) else { return Ok(()) };
    // the base is read as a whole only where there is a reason to
    check_same_base(&base.checksum()(true)?, group)?;
    group.take_from_first(&mut flat)?;
    replicas::set_values(model, &flat)?;
    let text = format!("{} rounds otherwise than rank 0: all ranks start from the values of rank 0", group.name(rank));
    reporter.message(Level::Info, text);
    Ok(())
}

/// Every rank trains the same base: an error names the rank that does not.
pub(super) fn check_same_base(sum: &str, group: &ProcessGroup) -> Result<()> {
    group.same(sum.as_bytes(), "has another base model than rank 0 (weights or config.json)", "the same files")
}
