//! Words of suggested commands.

/// Quotes a word for a shell, if it needs that.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,".contains(c);
    match text.chars().all(plain) && !text.is_empty() {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_reach_a_shell_whole() {
        assert_eq!(quoted("runs/a-1.b"), "runs/a-1.b");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("my runs/it's $1"), r"'my runs/it'\''s $1'");
        assert_eq!(quoted("demo:restaurants?n=64"), "'demo:restaurants?n=64'");
    }
}
