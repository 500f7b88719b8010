//! Long texts, tokenised piece by piece.
//!
//! The library keeps some 350 bytes for each token while it works, beside the normalised text with 16 bytes for each of its own. So a long
//! text is encoded in windows that overlap, on all threads, and the tokens of neighbours are joined where both agree on several in a row: what stands
//! further away than that has no influence on a token. Where they do not agree, the caller encodes the text as a whole.

use crate::Result;
use rayon::prelude::*;

/// Bytes of a window without its overlaps.
const WINDOW: usize = 1 << 18;
/// Bytes that a window shares with each of its neighbours.
const OVERLAP: usize = 1 << 11;
/// Tokens in a row that both windows must have in common.
const AGREED: usize = 16;

/// Ids with the byte ranges of their tokens.
type Tokens = (Vec<u32>, Vec<(usize, usize)>);

/// The ids of a text without special tokens: those of `encode` on all of it. `None` for a short text, and where windows do not agree.
pub(crate) fn ids(text: &str, encode: impl Fn(&str) -> Result<Tokens> + Sync) -> Result<Option<Vec<u32>>> {
    joined(text, (WINDOW, OVERLAP), &encode)
}

/// The tokens of a window, with offsets in the whole text.
struct Window {
    ids: Vec<u32>,
    offsets: Vec<(usize, usize)>,
    /// The middle of what it shares with the next window.
    end: usize,
}

/// The ids of overlapping windows, joined; `None` for a text of one window, or where two do not agree.
fn joined(
    text: &str,
    (window, overlap): (usize, usize),
    encode: &(impl Fn(&str) -> Result<Tokens> + Sync),
) -> Result<Option<Vec<u32>>> {
    let count = text.len().div_ceil(window);
    if count < 2 {
        return Ok(None);
    }
    let boundary = |at: usize| (at..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let made = |k: usize| -> Result<Window> {
        let (from, end) = (boundary((k * window).saturating_sub(overlap)), boundary((k + 1) * window));
        let (ids, offsets) = encode(&text[from..boundary((k + 1) * window + overlap)])?;
        Ok(Window { ids, offsets: offsets.into_iter().map(|(a, b)| (a + from, b + from)).collect(), end })
    };
    let mut out = Vec::new();
    // the window whose end is still open, and its first token that is not taken yet
    let mut open: Option<(Window, usize)> = None;
    let group = 4 * rayon::current_num_threads();
    for first in (0..count).step_by(group) {
        let made: Vec<Window> = (first..(first + group).min(count)).into_par_iter().map(made).collect::<Result<_>>()?;
        for window in made {
            let from = match &open {
                None => 0,
                Some((before, from)) => {
                    let Some((end, begin)) = meeting(before, &window, *from) else { return Ok(None) };
                    out.extend_from_slice(&before.ids[*from..end]);
                    begin
                }
            };
            open = Some((window, from));
        }
    }
    out.extend(open.iter().flat_map(|(window, from)| &window.ids[*from..]));
    Ok(Some(out))
}

/// Where the tokens of `left` end and those of `right` begin, in the middle of a run of tokens that both have; `left` counts from
/// its token `from`.
fn meeting(left: &Window, right: &Window, from: usize) -> Option<(usize, usize)> {
    let token = |w: &Window, i: usize| (w.ids[i], w.offsets[i]);
    let middle = left.end;
    // the nearest run to the middle of what they share
    let start = left.offsets.partition_point(|o| o.0 < middle).max(from);
    let candidates = (start..left.ids.len()).chain((from..start).rev()).take(1 << 10);
    for i in candidates {
        let j = right.offsets.partition_point(|o| o.0 < left.offsets[i].0);
        let agreed =
            |d: usize| i + d < left.ids.len() && j + d < right.ids.len() && token(left, i + d) == token(right, j + d);
        if (0..AGREED).all(agreed) {
            return Some((i + AGREED / 2, j + AGREED / 2));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TextTokenizer;
    use crate::testing::tiny_llama;

    /// Words of random letters and lengths, with spaces, lines and characters of several bytes.
    fn text(words: usize) -> String {
        let mut state = 7u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let mut out = String::new();
        for _ in 0..words {
            for _ in 0..=next(9) {
                out.push(['a', 'e', 's', 't', 'n', 'é', '漢', '7', '-', '\''][next(10) as usize]);
            }
            out.push_str([" ", " ", "  ", "\n", "\n\n", ". "][next(6) as usize]);
        }
        out
    }

    #[test]
    fn windows_give_the_tokens_of_the_whole() {
        let tokenizer = TextTokenizer::load(tiny_llama()).unwrap();
        let encode = |text: &str| tokenizer.encode(text, false).map(|e| (e.ids, e.offsets));
        let text = text(4000);
        let whole = encode(&text).unwrap().0;
        for window in [500, 1000, 3001, 10_000] {
            let found = joined(&text, (window, 300), &encode).unwrap().unwrap_or_else(|| panic!("{window}"));
            assert!(found == whole, "{window}");
        }
        assert_eq!(joined("short", (500, 50), &encode).unwrap(), None);
        // no run of tokens in what two windows share
        assert_eq!(joined(&text, (500, 4), &encode).unwrap(), None);
    }
}
