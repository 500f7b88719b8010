//! The plots of a comparison.

use super::figure::{Figure, Place};
use super::plot::{HeatMap, LinePlot, Plot, Series, XAxis, YRange};
use super::pooled;
use crate::analyse::{Analysis, ArmReport, Group};
use crate::names::file_name;
use loram_io::gain_curves::{Band, GainCurves};
use std::collections::BTreeSet;

/// All plots, in the order of the groups.
pub(super) fn figures(analysis: &Analysis) -> Vec<Figure> {
    // an arm has the same style in all plots, and the legends have the order of the tables
    let names: BTreeSet<&String> = analysis.groups.iter().flat_map(|g| &g.arms).map(|a| &a.arm).collect();
    let style = |name: &String| names.iter().position(|a| *a == name).unwrap_or(0);
    let scale = magnitude_scale(analysis);
    let mut out = pooled::figures(analysis);
    for (i, group) in analysis.groups.iter().enumerate() {
        out.extend(rates(i, group, &style));
        out.extend(short_rates(i, group, &style));
        out.extend(search(i, group, &style));
        out.extend(curves(i, group, &style));
        out.extend(group.arms.iter().filter_map(|a| magnitudes(i, group, a, scale)));
    }
    out.extend(analysis.gains.iter().map(|(model, curves)| gains(model, curves)));
    out
}

/// The ends of the colour scale of all heat maps: at most four decades, else the first steps take all colours.
fn magnitude_scale(analysis: &Analysis) -> (f64, f64) {
    let all = analysis.groups.iter().flat_map(|g| &g.arms).filter_map(|a| a.magnitudes.as_ref());
    let values = all.flat_map(|m| m.relative.iter().flatten().flatten()).filter(|v| **v > 0.0 && v.is_finite());
    let ends = values.fold((f64::INFINITY, f64::NEG_INFINITY), |r, v| (r.0.min(v.log10()), r.1.max(v.log10())));
    match ends.0.is_finite() {
        true => (ends.0.max(ends.1 - 4.0), ends.1),
        false => (0.0, 1.0),
    }
}

fn gains(model: &str, c: &GainCurves) -> Figure {
    let exact = c.exact.as_ref();
    let line = |name: &str, style: usize, of: &[Band], band: bool| Series {
        name: name.into(),
        style,
        points: c.ranks.iter().zip(of).map(|(&r, b)| ((r as f64).log10(), b.mean)).collect(),
        band: of.iter().filter(|_| band).map(|b| (b.low, b.high)).collect(),
        marked: None,
        dots: false,
    };
    let mut series: Vec<Series> = exact.map(|e| line("exact", 0, e, true)).into_iter().collect();
    series.push(line("sketch", 1, &c.sketch, exact.is_none()));
    series.push(line("ln r / ln min(n, m)", 2, &c.log, false));
    Figure {
        place: Place::Gains,
        name: format!("{}-gains", file_name(model)),
        caption: format!(
            "Gain Q[r] of the {} linear layers in the blocks of {model}: the mean over layers, with the range of the middle \
             80 % as a band.",
            c.layers
        ),
        plot: Plot::Lines(LinePlot {
            title: format!("Q[r] of {model}"),
            x_label: "rank".into(),
            y_label: "gain".into(),
            x: XAxis::LogTicks(c.ranks.iter().map(|&r| (r as f64).log10()).collect()),
            y: YRange::ClipLow,
            bars: false,
            series,
        }),
    }
}

fn rates(i: usize, group: &Group, style: &dyn Fn(&String) -> usize) -> Option<Figure> {
    let series = |a: &ArmReport| {
        let points: Vec<_> = a.rates.iter().filter_map(|p| Some((p.number?.log10(), p.test?))).collect();
        Series {
            name: a.arm.clone(),
            style: style(&a.arm),
            points: points.iter().map(|(x, s)| (*x, s.mean)).collect(),
            band: points.iter().map(|(_, s)| (s.mean - s.std.unwrap_or(0.0), s.mean + s.std.unwrap_or(0.0))).collect(),
            marked: a.best_number().map(f64::log10),
            dots: true,
        }
    };
    let metric = words(&group.score.name);
    let caption = format!(
        "{} on the test part by learning rate; bars are one standard deviation over seeds, rings mark the learning rates \
         chosen on the selection part.",
        capital(&metric)
    );
    let title = format!("{} by learning rate", capital(&metric));
    by_rate(i, group, "rates", title, caption, group.arms.iter().map(series).collect())
}

/// Every arm at every learning rate in the short runs, if only some learning rates have full runs.
fn short_rates(i: usize, group: &Group, style: &dyn Fn(&String) -> usize) -> Option<Figure> {
    let series = |a: &ArmReport| Series {
        name: a.arm.clone(),
        style: style(&a.arm),
        points: a.rates.iter().filter_map(|p| Some((p.number?.log10(), p.short?))).collect(),
        band: Vec::new(),
        marked: a.best_number().map(f64::log10),
        dots: true,
    };
    let metric = capital(&words(&group.score.name));
    let caption = format!(
        "{metric} on the test part in the short runs of successive halving, first seed; rings mark the learning rates chosen by full runs."
    );
    by_rate(
        i,
        group,
        "short-rates",
        format!("{metric} by learning rate, short runs"),
        caption,
        group.arms.iter().map(series).collect(),
    )
}

/// The line searches behind learning rates that are `auto`: the loss after one step at each rate.
fn search(i: usize, group: &Group, style: &dyn Fn(&String) -> usize) -> Option<Figure> {
    let mut series: Vec<Series> = Vec::new();
    for a in &group.arms {
        let Some(search) = &a.search else { continue };
        let rungs = search.ladder.rungs.iter();
        let points: Vec<(f64, f64)> = rungs.filter_map(|r| Some((r.learning_rate.log10(), r.loss?))).collect();
        // arms share the search of LoRAM's initial factors
        if series.iter().all(|s| s.points != points) {
            let marked = search.optimum.map(f64::log10);
            let (name, style) = (format!("steps of {}", search.scheme), style(&a.arm));
            series.push(Series { name, style, points, band: Vec::new(), marked, dots: true });
        }
    }
    let mut ticks: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    (ticks.len() > 1).then(|| Figure {
        place: Place::Group(i),
        name: format!("{}-search", group.slug()),
        caption: "Loss on some training records after one step at each learning rate: the line search of `learning_rate: auto`, first \
                  seed; rings mark the best step. Each arm has the rate that moves the weights as far as the best step does, \
                  times 1.4."
            .into(),
        plot: Plot::Lines(LinePlot {
            title: "Line search for the learning rate".into(),
            x_label: "learning rate".into(),
            y_label: "loss after one step".into(),
            x: XAxis::LogTicks(ticks),
            y: YRange::ClipHigh,
            bars: false,
            series,
        }),
    })
}

/// A plot over learning rates; `None` if there are fewer than two.
fn by_rate(
    i: usize,
    group: &Group,
    name: &str,
    title: String,
    caption: String,
    mut series: Vec<Series>,
) -> Option<Figure> {
    series.retain(|s| !s.points.is_empty());
    let mut ticks: Vec<f64> = series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    (ticks.len() > 1).then(|| Figure {
        place: Place::Group(i),
        name: format!("{}-{name}", group.slug()),
        caption,
        plot: Plot::Lines(LinePlot {
            title,
            x_label: "learning rate".into(),
            y_label: words(&group.score.name),
            x: XAxis::LogTicks(ticks),
            y: if group.score.more_is_better { YRange::ClipLow } else { YRange::ClipHigh },
            bars: true,
            series,
        }),
    })
}

fn curves(i: usize, group: &Group, style: &dyn Fn(&String) -> usize) -> Option<Figure> {
    let series = |a: &ArmReport| Series {
        name: a.arm.clone(),
        style: style(&a.arm),
        points: a.curve.steps.iter().copied().zip(a.curve.values.iter().copied()).collect(),
        band: a.band.clone(),
        marked: None,
        dots: false,
    };
    let list: Vec<Series> = group.arms.iter().map(series).filter(|s| s.points.len() > 1).collect();
    if list.is_empty() {
        return None;
    }
    Some(Figure {
        place: Place::Group(i),
        name: format!("{}-curves", group.slug()),
        caption:
            "Loss during training, each arm at its best learning rate: mean over seeds, with the range from least to \
                  largest as a band."
                .into(),
        plot: Plot::Lines(LinePlot {
            title: "Loss by step".into(),
            x_label: "step".into(),
            y_label: "loss".into(),
            x: XAxis::Linear,
            y: YRange::Curves,
            bars: false,
            series: list,
        }),
    })
}

fn magnitudes(i: usize, group: &Group, arm: &ArmReport, scale: (f64, f64)) -> Option<Figure> {
    let m = arm.magnitudes.as_ref()?;
    Some(Figure {
        place: Place::Group(i),
        name: format!("{}-magnitude-{}", group.slug(), file_name(&arm.arm)),
        caption: format!(
            "Relative size of each layer's update under {}: ‖ΔW‖ / ‖W‖ by step, first seed. All maps have one scale.",
            arm.arm
        ),
        plot: Plot::Heat(HeatMap {
            title: format!("‖ΔW‖ / ‖W‖, {}", arm.arm),
            rows: m.layers.iter().map(|l| short(l)).collect(),
            columns: m.steps.clone(),
            values: m.relative.clone(),
            scale,
        }),
    })
}

/// `layers.3.self_attn.q_proj` as `3 q_proj`.
fn short(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let block = parts.iter().find(|p| p.parse::<usize>().is_ok());
    let last = parts.last().copied().unwrap_or(path);
    // every block of BERT has three layers called `dense`
    let name = match (last, parts.len()) {
        ("dense", n) if n > 1 => format!("{}.{last}", parts[n - 2]),
        _ => last.to_string(),
    };
    block.map_or(name.clone(), |b| format!("{b} {name}"))
}

/// The name of a metric in words.
pub(super) fn words(metric: &str) -> String {
    loram_train::objective::metric(metric).map_or_else(|| metric.replace('_', " "), |m| m.title.to_string())
}

pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().collect::<String>() + chars.as_str())
}
