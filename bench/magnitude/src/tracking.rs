//! Tracking: the sine basis at the magnitude of another scheme, beside that scheme itself. If the gain of spectral initialisations is
//! their magnitude, the two learn alike.

use crate::plot::{Line, Panel, figure};
use crate::result::Result;
use crate::runs::{Outcome, train};
use plotters::prelude::SeriesLabelPosition;
use std::path::Path;

pub const SCHEMES: [&str; 4] = ["pissa", "milora", "corda", "lora-ga"];

/// The scheme, and the sine basis at its magnitude, at one learning rate.
pub fn pair(scheme: &str, steps: usize) -> Result<(Outcome, Outcome)> {
    let common = "learning_rate: 1e-3\ncalibration_samples: 32";
    let own = train(&format!("init: {scheme}\n{common}"), steps)?;
    Ok((own, train(&format!("init: loram\ngain: track:{scheme}\n{common}"), steps)?))
}

pub fn run(plots: &Path, steps: usize) -> Result<()> {
    let lora = train("init: lora\nlearning_rate: 1e-3", steps)?;
    println!("{:10} {:>22} {:>22}", "", "scheme itself", "sine basis");
    println!("{:10} {:>10} {:>11} {:>10} {:>11}", "magnitude", "eval loss", "‖ΔW‖/‖W‖", "eval loss", "‖ΔW‖/‖W‖");
    println!("{:10} {:10.4} {:11.4}", "lora", lora.eval_loss, lora.distance());
    let (mut losses, mut moved) = (Vec::new(), Vec::new());
    for (colour, scheme) in SCHEMES.into_iter().enumerate() {
        let (own, tracked) = pair(scheme, steps)?;
        println!(
            "{scheme:10} {:10.4} {:11.4} {:10.4} {:11.4}",
            own.eval_loss,
            own.distance(),
            tracked.eval_loss,
            tracked.distance()
        );
        for (lines, of) in [(&mut losses, 0), (&mut moved, 1)] {
            let points = |o: &Outcome| if of == 0 { o.losses.clone() } else { o.moved.clone() };
            lines.push(Line::new(scheme, colour, points(&own)));
            lines.push(Line::new(format!("sines at {scheme}'s"), colour, points(&tracked)).dashed());
        }
    }
    losses.push(Line::new("lora", 6, lora.losses.clone()));
    moved.push(Line::new("lora", 6, lora.moved.clone()));
    let panel = |title: &str, log_y, legend, lines| Panel {
        title: title.into(),
        x: "step",
        y: "",
        log_x: false,
        log_y,
        legend,
        lines,
    };
    let panels = [
        panel("training loss", false, SeriesLabelPosition::UpperRight, losses),
        panel("mean ‖ΔW‖/‖W‖ over layers", true, SeriesLabelPosition::LowerRight, moved),
    ];
    figure(&plots.join("tracking.svg"), &panels, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracked_starts_move_as_far_as_the_tracked_ones() {
        for scheme in ["pissa", "lora-ga"] {
            let (own, tracked) = pair(scheme, 10).unwrap();
            let ratio = tracked.distance() / own.distance();
            assert!((0.5..2.0).contains(&ratio), "{scheme}: {ratio}");
        }
    }
}
