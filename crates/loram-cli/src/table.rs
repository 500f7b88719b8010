//! Tables in plain text: columns as wide as their widest cell.

use loram_io::visible;
use unicode_width::UnicodeWidthStr;

/// The alignment of a column.
#[derive(Clone, Copy)]
pub enum Side {
    Left,
    Right,
}

/// Rows under a heading, columns two spaces apart.
pub fn table(heading: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|c| one_line(c)).collect()).collect();
    let mut widths: Vec<usize> = heading.iter().map(|h| h.0.width()).collect();
    for row in &rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(cell.width());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for ((cell, w), (_, side)) in cells.zip(&widths).zip(heading) {
            let pad = " ".repeat(w.saturating_sub(cell.width()));
            out += &match side {
                Side::Left => format!("{cell}{pad}  "),
                Side::Right => format!("{pad}{cell}  "),
            };
        }
        out.trim_end().to_string() + "\n"
    };
    let mut out = line(&mut heading.iter().map(|h| h.0));
    for row in &rows {
        out += &line(&mut row.iter().map(String::as_str));
    }
    out
}

/// `name  value` lines with the names in one column.
pub fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|r| r.0.width()).max().unwrap_or(0);
    let line =
        |(name, value): &(&str, String)| format!("{name}{}  {}\n", " ".repeat(width - name.width()), one_line(value));
    rows.iter().map(line).collect()
}

/// A cell as wide as it looks: control characters, and line breaks among them, are written out.
fn one_line(text: &str) -> String {
    visible(text).replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["q_proj".into(), "16".into()], vec!["β".into(), "8".into()]];
        let text = table(&[("layer", Side::Left), ("r", Side::Right)], &rows);
        assert_eq!(text, "layer    r\nq_proj  16\nβ        8\n");
        let wide = [vec!["模型".into(), "1".into()], vec!["e\u{301}".into(), "2".into()]];
        assert_eq!(table(&[("name", Side::Left), ("r", Side::Right)], &wide), "name  r\n模型  1\ne\u{301}     2\n");
        assert_eq!(table(&[("name", Side::Left)], &[vec!["a\u{1b}[2J\nb".into()]]), "name\na\\u{1b}[2J\\nb\n");
        assert_eq!(facts(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }
}
