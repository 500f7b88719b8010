//! Names of files and data.

/// A text in which everything that file systems or shells treat specially is `_`. So are dots, which separate the parts of
/// a run's name.
pub(crate) fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_alphanumeric() || "-_+".contains(c) { c } else { '_' }).collect()
}

/// The name of a data file for people: the last part of its path without its endings, or what a generated source
/// makes, without its options. A file that is called `train` or the like has the name of its folder.
pub(crate) fn data_name(path: &str) -> String {
    const PARTS: [&str; 8] = ["train", "training", "dev", "valid", "validation", "eval", "test", "data"];
    let path = path.split('?').next().unwrap_or(path);
    let mut parts = path.trim_end_matches('/').rsplit(['/', ':']);
    let stem = |part: &str| match part.split_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem.to_string(),
        _ => part.to_string(),
    };
    let name = stem(parts.next().unwrap_or(path));
    let folder = parts.next().filter(|f| !f.is_empty() && *f != "." && *f != "..");
    match (PARTS.contains(&name.as_str()), folder) {
        (true, Some(folder)) => folder.to_string(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::data_name;

    #[test]
    fn data_and_models_have_data_names() {
        for (path, name) in [
            ("demo:restaurants?seed=0&n=5", "restaurants"),
            ("data/sst2/train.jsonl", "sst2"),
            ("train.jsonl.gz", "train"),
            ("./train.jsonl", "train"),
            ("a/e2e-small.jsonl", "e2e-small"),
            (".hidden", ".hidden"),
        ] {
            assert_eq!(data_name(path), name, "{path}");
        }
    }
}
