//! The line search of a learning rate as text: a bar for each rate, as long as its step lowers the loss.

use crate::table::facts;
use loram_train::{FoundRate, RatePlan, TrainConfig};

/// Width of the longest bar in columns.
const WIDTH: f64 = 40.0;

/// The rates that were tried, the losses after one step, and the rate that follows for this run.
pub fn text(plan: &RatePlan, config: &TrainConfig) -> String {
    let found = &plan.rate;
    let Some(search) = &found.search else { return String::new() };
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    let own = match found.step_size {
        Some(size) => format!("{:.3e}, a first step of {} of the weights' norm", found.learning_rate, percent(size)),
        None => format!("{:.3e}", found.learning_rate),
    };
    let best = search.optimum.map_or("none: no step lowered the loss".into(), |x| format!("{x:.3e}"));
    let cost = if found.from_cache { ", by an earlier run" } else { "" };
    let groups: Vec<String> = plan.groups.iter().map(|g| format!("{} {:.3e}", g.name, g.learning_rate)).collect();
    let mut out = facts(&[
        ("learning rate", own),
        ("by group", groups.join(", ")),
        ("best single step", format!("{best} ({})", search.scheme)),
        (
            "search",
            format!(
                "{:.1} s{cost}; gradient of {} records, losses of {} others",
                search.seconds, search.gradient_records, search.loss_records
            ),
        ),
    ]);
    if let Some(text) = note(found, config) {
        out += &text;
    }
    out += &format!(
        "\n{:>10}  {:>8}  {:>8}  lower than {:.4}, the loss before\n",
        "rate", "step", "loss", search.ladder.before
    );
    let before = search.ladder.before;
    let losses = search.ladder.rungs.iter().filter_map(|r| r.loss);
    let fall = before - losses.fold(before, f64::min);
    for (rung, size) in search.ladder.rungs.iter().zip(&search.step_sizes) {
        let loss = rung.loss.map_or("–".to_string(), |x| format!("{x:.4}"));
        let size = if found.step_size.is_some() { percent(*size) } else { "–".into() };
        let bar = match rung.loss.map(|x| (before - x) / fall) {
            Some(share) if share > 0.0 => "█".repeat((WIDTH * share).round().max(1.0) as usize),
            _ => "higher".into(),
        };
        out += &format!("{:>10}  {size:>8}  {loss:>8}  {bar}\n", format!("{:.2e}", rung.learning_rate));
    }
    out
}

/// A note on a rate that was given and is far from the one that was found.
fn note(found: &FoundRate, config: &TrainConfig) -> Option<String> {
    let given = config.learning_rate.value()?;
    Some(format!("the configuration gives {given:e}, which is {} that\n", found.far_from(given)?))
}
