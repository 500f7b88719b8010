//! `loram schemes`: lists the registry of initialisation schemes.

use crate::console::Console;
use crate::error::Result;
use crate::table::{Side, table};
use serde_json::json;

pub fn run(console: &Console) -> Result<()> {
    let all = loram_core::registry();
    let facts: Vec<_> = all
        .iter()
        .map(|s| {
            json!({
                "name": s.name,
                "summary": s.summary,
                "source": s.source,
                "needs_weight": s.needs_weight(),
                "changes_base": s.changes_base,
                "needs_data": s.statistic.describe(),
                "options": s.option_keys(),
            })
        })
        .collect();
    let text = || {
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|s| {
                let base = if s.changes_base { "W − s·B₀A₀" } else { "unchanged" };
                vec![s.name.into(), base.into(), s.source.into(), s.summary.into()]
            })
            .collect();
        let heading =
            [("scheme", Side::Left), ("base", Side::Left), ("source", Side::Left), ("initialisation", Side::Left)];
        table(&heading, &rows) + "\nChoose one with --init NAME, or init_lora_weights in a configuration file.\n"
    };
    console.result(text, &json!({ "schemes": facts }))
}
