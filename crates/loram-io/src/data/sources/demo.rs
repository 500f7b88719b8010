//! Generated data that need no file: restaurant facts with sentences that state them, in the style of the E2E challenge.

use crate::limits::MAX_GENERATED;
use crate::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Prefix of a generated source: `demo:restaurants?seed=0&n=2000`, with `split=dev` for other facts.
pub const PREFIX: &str = "demo:";

const NAMES: [&str; 16] = [
    "The Golden Curry",
    "Blue Spice",
    "The Eagle",
    "Green Man",
    "The Mill",
    "Aromi",
    "Cocum",
    "The Olive Grove",
    "Zizzi",
    "Loch Fyne",
    "The Punter",
    "Strada",
    "Giraffe",
    "The Wrestlers",
    "Fitzbillies",
    "The Vaults",
];
const FOODS: [&str; 8] = ["Italian", "French", "Indian", "Chinese", "English", "Japanese", "fast food", "seafood"];
const PRICES: [&str; 4] = ["cheap", "moderate", "high", "less than £20"];
const AREAS: [&str; 3] = ["riverside", "city centre", "old town"];
const RATINGS: [&str; 5] = ["low", "average", "high", "3 out of 5", "5 out of 5"];
const NEAR: [&str; 6] = ["Burger King", "The Bakers", "Café Rouge", "the market", "Raja House", "the station"];

struct Dice(ChaCha8Rng);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        (self.0.next_u64() % n as u64) as usize
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.roll(list.len())]
    }

    fn maybe<'a>(&mut self, list: &[&'a str], of_ten: usize) -> Option<&'a str> {
        (self.roll(10) < of_ten).then(|| self.pick(list))
    }
}

/// Prompt and completion pairs of a source like `demo:restaurants?seed=0&n=2000&split=train`. The facts of the two splits
/// never coincide: a combination belongs to one of them by its hash.
pub fn generate(source: &str) -> Result<Vec<(String, String)>> {
    let (name, query) = source
        .strip_prefix(PREFIX)
        .unwrap_or(source)
        .split_once('?')
        .unwrap_or((source.strip_prefix(PREFIX).unwrap_or(source), ""));
    let bad = |what: String| {
        Err(Error::Usage(format!("`{source}`: {what}; expected demo:restaurants?seed=0&n=2000&split=train")))
    };
    if name != "restaurants" {
        return bad(format!("no generator is called `{name}`"));
    }
    let (mut seed, mut n, mut dev) = (0u64, 2000usize, false);
    for part in query.split('&').filter(|p| !p.is_empty()) {
        match part.split_once('=') {
            Some(("seed", v)) if v.parse::<u64>().is_ok() => seed = v.parse().unwrap_or_default(),
            Some(("n", v)) => match v.parse::<usize>() {
                Ok(count @ 1..=MAX_GENERATED) => n = count,
                _ => return bad(format!("n is `{v}`, which is no number from 1 to {MAX_GENERATED}")),
            },
            Some(("split", "train")) => dev = false,
            Some(("split", "dev")) => dev = true,
            _ => return bad(format!("`{part}` is not understood")),
        }
    }
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
    let mut out = Vec::with_capacity(n);
    while out.len() < n {
        let (prompt, completion) = pair(&mut dice);
        let hash =
            prompt.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        if ((hash >> 32) % 8 == 0) == dev {
            out.push((prompt, completion));
        }
    }
    Ok(out)
}

fn pair(d: &mut Dice) -> (String, String) {
    let name = d.pick(&NAMES);
    let kind = ["restaurant", "pub", "coffee shop"][d.roll(3)];
    let (food, price) = (d.maybe(&FOODS, 8), d.maybe(&PRICES, 6));
    let (area, rating) = (d.maybe(&AREAS, 6), d.maybe(&RATINGS, 5));
    let (near, family) = (d.maybe(&NEAR, 4), d.maybe(&["yes", "no"], 5));
    let mut facts = vec![format!("name : {name}"), format!("type : {kind}")];
    let given = [
        ("food", food),
        ("price", price),
        ("area", area),
        ("rating", rating),
        ("near", near),
        ("family friendly", family),
    ];
    facts.extend(given.iter().filter_map(|(k, v)| v.map(|v| format!("{k} : {v}"))));
    let prompt = format!("{} =>", facts.join(" | "));

    let article = |w: &str| if w.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) { "an" } else { "a" };
    let family_first = family == Some("yes") && d.roll(2) == 0;
    let mut noun = kind.to_string();
    if family_first {
        noun = format!("family friendly {noun}");
    }
    let cheap =
        matches!(price, Some("cheap" | "moderate")).then(|| price.unwrap_or_default()).filter(|_| d.roll(2) == 0);
    if let Some(p) = cheap {
        noun = format!("{} {noun}", if p == "moderate" { "moderately priced" } else { p });
    }
    let place = match (area, near) {
        (Some("riverside"), Some(n)) => format!(" on the riverside near {n}"),
        (Some("riverside"), None) => " on the riverside".into(),
        (Some(a), Some(n)) => format!(" in the {a} near {n}"),
        (Some(a), None) => format!(" in the {a}"),
        (None, Some(n)) => format!(" near {n}"),
        (None, None) => String::new(),
    };
    let serves = food.map(|f| {
        [format!(" that serves {f} food"), format!(" serving {f} food"), format!(" with {f} food")][d.roll(3)].clone()
    });
    let serves = serves.unwrap_or_default().replace("fast food food", "fast food");
    let a = article(&noun);
    let mut text = match d.roll(3) {
        0 => format!("{name} is {a} {noun}{serves}{place}."),
        1 if !place.is_empty() => {
            let mut there = place.trim_start().to_string();
            there[..1].make_ascii_uppercase();
            format!("{there} there is {a} {noun} called {name}{serves}.")
        }
        _ => format!("There is {a} {noun}{place} called {name}{serves}."),
    };
    let it = if d.roll(2) == 0 { "It" } else { name };
    match price {
        Some(p) if cheap.is_none() => {
            text += &match p {
                "less than £20" => format!(" {it} costs less than £20."),
                "high" => format!(" {it} is expensive."),
                "moderate" => " Prices are moderate.".to_string(),
                _ => format!(" {it} is cheap."),
            }
        }
        _ => {}
    }
    if let Some(r) = rating {
        text += &match r.contains("out") {
            true => format!(" Customers rate it {r}."),
            false => format!(" It has {} {r} customer rating.", article(r)),
        };
    }
    match family {
        Some("yes") if !family_first => text += " Families are welcome.",
        Some("no") => text += [" It is not for families.", " It is not family friendly."][d.roll(2)],
        _ => {}
    }
    (prompt, format!(" {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_disjoint_and_seeds_repeat() {
        let train = generate("demo:restaurants?n=500").unwrap();
        let dev = generate("demo:restaurants?n=100&split=dev&seed=1").unwrap();
        assert!(dev.iter().all(|d| train.iter().all(|t| t.0 != d.0)));
        assert_eq!(train, generate("demo:restaurants?n=500&seed=0").unwrap());
        assert!(train[0].0.starts_with("name : ") && train[0].0.ends_with("=>"));
        for bad in ["demo:cars", "demo:restaurants?n=0", "demo:restaurants?x=1", "demo:restaurants?n=99999999999999"] {
            assert!(generate(bad).is_err());
        }
    }
}
