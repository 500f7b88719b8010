//! The keys of a grid file beside those of a training configuration.

use loram_train::config::key_hint;

/// Keys of the grid itself.
pub const GRID_KEYS: [&str; 11] =
    ["schemes", "models", "tasks", "grid", "split", "halving", "keep", "jobs", "experiments", "output_dir", "output"];

/// Keys of a comparison that a model, a task or an arm may set, too.
pub const RUN_KEYS: [&str; 3] = ["score", "forgetting_data", "forgetting_samples"];

/// The key that gives learning rates by the size of the first step.
pub const STEP_SIZE: &str = "step_size";

/// The error for keys where those of a training configuration and `own` ones are expected; all at once.
pub fn unknown_keys(keys: &[String], place: &str, own: &[&'static str]) -> String {
    let list = own.join(", ");
    let none = || {
        if own.is_empty() { "`loram train --help-keys` lists all keys".to_string() } else { format!("expected {list}") }
    };
    match keys {
        [key] => format!("unknown key `{key}` in {place}; {}", key_hint(key, own).unwrap_or_else(none)),
        _ => {
            let one = |key: &String| key_hint(key, own).map_or(format!("`{key}`"), |hint| format!("`{key}` ({hint})"));
            let all: Vec<String> = keys.iter().map(one).collect();
            format!("unknown keys in {place}: {}; `loram train --help-keys` lists all keys", all.join(", "))
        }
    }
}

/// "unknown key …; did you mean …?", where only `own` keys are expected.
pub fn unknown_option(key: &str, place: &str, own: &[&'static str]) -> String {
    let hint = match loram_core::similar_name(key, own.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("expected {}", own.join(", ")),
    };
    format!("unknown key `{key}` in {place}; {hint}")
}
