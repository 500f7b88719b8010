//! Names that are safe in file systems.

/// A text in which everything that file systems or shells treat specially is `_`. So are dots, which separate the parts of
/// a run's name.
pub(crate) fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_alphanumeric() || "-_+".contains(c) { c } else { '_' }).collect()
}
