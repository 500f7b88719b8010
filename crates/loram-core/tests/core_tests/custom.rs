//! A scheme of another crate.

use loram_core::option::{number, whole};
use loram_core::*;

/// A is the mean of the weight's values over `divisor`, B is 0.
static MEAN: SchemeInfo = SchemeInfo {
    summary: "A: the mean of W",
    source: "a test",
    weight: WeightUse::Sums,
    options: &[DIVISOR],
    ..SchemeInfo::new("mean", |layer| {
        let (n, m, r) = layer.shape();
        let mean = layer.sums()?.0 / (n * m) as f64 / layer.option::<f64>(&DIVISOR)?;
        Ok(SchemeFactors::new(vec![mean as f32; r * m], vec![0.0; n * r]))
    })
};

const DIVISOR: OptionInfo = OptionInfo {
    key: "divisor",
    help: "Divisor of the mean",
    expected: "a number above 0",
    default: "1",
    read: |value| number(value, |x| x > 0.0),
};

/// Reads more than it declares.
static GREEDY: SchemeInfo =
    SchemeInfo { weight: WeightUse::Sums, ..SchemeInfo::new("greedy", |layer| Err(layer.values().unwrap_err())) };

fn plan() -> LayerPlan {
    LayerPlan { path: "q_proj".into(), n: 3, m: 2, r: 1, lora_alpha: 1.0, scaling: 1.0 }
}

#[test]
fn a_scheme_need_not_be_registered() {
    let values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let options = SchemeOptions { init_scale_a: 2.0, ..SchemeOptions::default().with("divisor", "7") };
    let spec = SchemeSpec::new(&MEAN, &options).unwrap();
    assert_eq!((spec.to_string(), spec.sums_suffice(), spec.statistic()), ("mean".into(), true, Statistic::None));
    let made = initialize(&spec, StoredWeight::of(&values, 3, 2), &plan(), 0).unwrap();
    assert_eq!((made.factors.a, made.factors.b), (vec![1.0; 2], vec![0.0; 3]));
    assert!(!made.changes_base && made.recipe.scheme == "mean");
    let sums = initialize(&spec, LayerInput::sums((21.0, 91.0)), &plan(), 0).unwrap();
    assert_eq!(sums.factors.a, [1.0; 2]);
    assert_eq!(from_recipe(&made.recipe), None, "the registry does not know it");
    // its options are written like those of others
    let text = serde_json::to_string(spec.options()).unwrap();
    assert!(text.contains(r#""divisor":7.0"#) && text.contains(r#""basis":"dst""#), "{text}");
    for (key, value, what) in [("divisor", "0", "a number above 0"), ("basis", "dct", "not an option of `mean`")] {
        let e = SchemeSpec::new(&MEAN, &SchemeOptions::default().with(key, value)).unwrap_err().to_string();
        assert!(e.starts_with(key) && e.contains(what), "{e}");
    }
}

#[test]
fn mistakes_of_a_scheme_are_named() {
    let spec = SchemeSpec::new(&GREEDY, &SchemeOptions::default()).unwrap();
    let e = initialize(&spec, LayerInput::sums((1.0, 1.0)), &plan(), 0).unwrap_err().to_string();
    assert!(e.contains("q_proj") && e.contains("`greedy` reads the values of the weight"), "{e}");
    let e = initialize(&spec, LayerInput::shape(), &plan(), 0).unwrap_err().to_string();
    assert!(e.contains("needs the weight in memory"), "{e}");
}

#[test]
fn the_registry_does_not_change_while_it_is_used() {
    assert!(registry().iter().all(|s| s.name != "mean"));
    assert!(register(&[&MEAN]).unwrap_err().to_string().contains("at start-up"));
    static TAKEN: SchemeInfo = SchemeInfo { aliases: &["pissa"], ..GREEDY };
    static SHARED: SchemeInfo = SchemeInfo { options: &[RHO], ..GREEDY };
    const RHO: OptionInfo = OptionInfo { key: "rho", read: |value| whole(value, |_| true), ..DIVISOR };
    assert!(register(&[&TAKEN]).unwrap_err().to_string().contains("a scheme `pissa` already"));
    assert!(register(&[&SHARED]).unwrap_err().to_string().contains("`rho` of `greedy` is an option of `eva` already"));
}
