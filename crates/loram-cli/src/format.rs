//! Numbers as people read them.

use loram_io::error::human_bytes;
use loram_train::MemoryEstimate;

/// An integer with its thousands separated: `1 234 567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// Numbers separated by commas.
pub fn numbers<T: ToString>(list: &[T]) -> String {
    list.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

/// The shape of a matrix of n rows and m columns.
pub fn shape(n: usize, m: usize) -> String {
    format!("{n} × {m}")
}

/// A number of things: `1 example`, `1 234 examples`.
pub fn several(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A duration in seconds as `3.2 s`, `4 min 05 s` or `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0);
    match s {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {:02} min", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}

/// The parts of a memory estimate, each with its size.
pub fn memory_parts(m: &MemoryEstimate) -> String {
    let parts = [
        ("weights", m.weights),
        ("trained", m.trained),
        ("optimiser", m.optimizer),
        ("activations", m.activations),
        ("logits", m.logits),
        ("program", m.program),
    ];
    parts.iter().map(|(n, b)| format!("{n} {}", human_bytes(*b))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([count(7), count(1234), count(1_185_152)], ["7", "1 234", "1 185 152"]);
        assert_eq!([duration(3.21), duration(245.0), duration(7620.0)], ["3.2 s", "4 min 05 s", "2 h 07 min"]);
    }
}
