//! "Did you mean …?": the known name that is closest to a misspelt one.

/// Least Jaro-Winkler similarity of two names that may be meant for each other.
const SIMILAR: f64 = 0.75;

/// The most similar of `names`; `None` when none is similar.
pub fn similar_name<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = names.into_iter().map(|name| (strsim::jaro_winkler(name, wrong), name));
    let (score, name) = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (score > SIMILAR).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::similar_name;

    #[test]
    fn only_similar_names_are_suggested() {
        assert_eq!(similar_name("lerning_rate", ["r", "learning_rate", "seed"]), Some("learning_rate"));
        assert_eq!(similar_name("q_prj", ["down_proj", "k_proj", "q_proj"]), Some("q_proj"));
        assert_eq!(similar_name("optimizer", ["r", "seed"]), None);
        assert_eq!(similar_name("x", []), None);
    }
}
