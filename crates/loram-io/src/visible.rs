//! Text from files and models as a terminal may show it.

use std::borrow::Cow;

/// The text with control characters written out, such as `\u{1b}` for the one that begins escape sequences of terminals:
/// they could retitle, clear or recolour it, or type for the user. Line breaks and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_debug()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Control characters of C0, C1 and DEL, and the marks that reverse the direction of the text around them.
fn is_hidden(c: char) -> bool {
    let direction = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\n' && c != '\t') || direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out() {
        for (text, shown) in [
            ("plain ünïcödé 🙂\n\ttext", "plain ünïcödé 🙂\n\ttext"),
            ("\u{1b}]0;PWNED\u{7}\u{1b}[2Jx", "\\u{1b}]0;PWNED\\u{7}\\u{1b}[2Jx"),
            ("a\rb\0c\u{7f}", "a\\rb\\0c\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}gpj.exe", "abc\\u{202e}gpj.exe"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }
}
