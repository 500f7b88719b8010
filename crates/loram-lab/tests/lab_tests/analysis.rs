//! From run folders to figures and pages, on folders that are written by hand.

use loram_lab::{Analysis, ArmReport, Decision, Group, Planned, Point, Verdict, analyse, collect, report};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Writes the folder of a run with 20 test examples; `hard` shifts all of them for a seed.
struct Run<'a> {
    arm: &'a str,
    r: Option<u64>,
    rate: f64,
    seed: u64,
    selection: f64,
    test: f64,
}

impl Run<'_> {
    fn write(&self, root: &Path) {
        let r = self.r.map_or(String::new(), |r| format!(".r{r}"));
        let dir = root.join(format!("runs/m.t.{}{r}.lr{:e}.s{}", self.arm, self.rate, self.seed));
        fs::create_dir_all(&dir).unwrap();
        let file = |name: &str, value: &Value| fs::write(dir.join(name), value.to_string()).unwrap();
        let metrics = |loss: f64| json!({"loss": loss, "tokens": 200, "examples": 20});
        // ten tokens each; examples differ among themselves by much more than arms do
        let nats: Vec<f64> = (0..20).map(|i| 10.0 * self.test + (f64::from(i) - 9.5)).collect();
        file(
            "scores.json",
            &json!({
                "point": {"model": "m", "task": "t", "arm": self.arm, "r": self.r, "learning_rate": self.rate, "seed": self.seed},
                "score": {"name": "loss", "more_is_better": false},
                "outcome": "finished",
                "selection": metrics(self.selection),
                "test": metrics(self.test),
                "data": ["selection.jsonl", "test.jsonl"],
                "forgetting": {"data": ["own.txt"], "before": 1.0, "after": 1.25},
                "cost": {"start_seconds": 0.5, "train_seconds": 2.0, "peak_rss": 1000, "trainable_parameters": 7,
                         "result_bytes": 10, "checkpoint_bytes": 0, "threads": 1},
                "examples": {"kind": "language", "nats": nats, "tokens": vec![10; 20], "correct": vec![5; 20]},
            }),
        );
        let yaml = format!(
            "model: m\ndata: t.jsonl\neval_data: d.jsonl\nlearning_rate: {}\nseed: {}\nr: {}\n",
            self.rate,
            self.seed,
            self.r.unwrap_or(8)
        );
        fs::write(dir.join("config.yaml"), yaml).unwrap();
        file("summary.json", &json!({"status": "finished", "steps": 20, "total_steps": 20, "scheme": self.arm}));
        let mut lines = String::new();
        for (step, part) in [(0, 1.0), (10, 0.5), (20, 0.0)] {
            let loss = self.selection + 2.0 * part;
            lines += &format!("{}\n", json!({"step": step, "epoch": 0.0, "eval_loss": loss}));
            if step > 0 {
                let relative = 0.001 * f64::from(step) * self.test;
                let layers = json!({"layers.0.q_proj": {"relative": relative}, "layers.1.q_proj": {"relative": 0.002}});
                lines += &format!("{}\n", json!({"step": step, "epoch": 0.0, "magnitude": layers}));
            }
        }
        fs::write(dir.join("metrics.jsonl"), lines).unwrap();
    }
}

/// `lora` is best at the middle rate; `loram` at the highest on the selection part, at the lowest on the test part.
fn folders(root: &Path) {
    for seed in 0..3 {
        let shift = 0.01 * seed as f64;
        let run = |arm, r, rate, selection: f64, test: f64| {
            Run { arm, r, rate, seed, selection: selection + shift, test: test + shift }.write(root);
        };
        for r in [Some(4), Some(16)] {
            for (rate, loss) in [(1e-4, 1.4), (1e-3, 1.0), (1e-2, 1.2)] {
                run("lora", r, rate, loss, loss);
            }
            for (rate, selection, test) in [(1e-4, 1.3, 0.5), (1e-3, 1.1, 1.1), (1e-2, 0.9, 0.95)] {
                run("loram", r, rate, selection, test);
            }
        }
        run("full", None, 1e-3, 1.0, 1.0);
        run("full", None, 1e-2, 1.5, 1.5);
    }
}

fn analysis(root: &Path) -> Analysis {
    folders(root);
    analyse(&collect(&[root.to_path_buf()]).unwrap())
}

fn arm<'a>(group: &'a Group, name: &str) -> &'a ArmReport {
    group.arms.iter().find(|a| a.arm == name).unwrap()
}

#[test]
fn rates_are_chosen_on_one_part_and_scored_on_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let a = analysis(dir.path());
    assert_eq!(a.groups.iter().map(Group::title).collect::<Vec<_>>(), ["t on m, r 4", "t on m, r 16"]);
    let g = &a.groups[1];
    let loram = arm(g, "loram");
    assert_eq!(loram.best_rate, Some(1e-2.into()), "not 1e-4, which is best on the test part");
    let score = loram.score.unwrap();
    assert!((score.mean - 0.96).abs() < 1e-12 && (score.std.unwrap() - 0.01).abs() < 1e-12 && score.n == 3);
    assert_eq!(g.fixed_rate, Some(1e-3.into()));
    assert!((loram.fixed.unwrap().mean - 1.11).abs() < 1e-12);
    // the interval of a score knows that examples differ; that of a difference knows that both arms saw the same ones
    let interval = loram.interval.unwrap();
    assert!(interval.high - interval.low > 0.3, "{interval:?}");
    let c = loram.versus["lora"];
    assert!((c.difference.estimate + 0.05).abs() < 1e-9 && (c.difference.high + 0.05).abs() < 1e-9, "{c:?}");
    assert_eq!((c.verdict, c.seeds), (Verdict::Better, 3));
    assert_eq!(loram.versus_fixed["lora"].verdict, Verdict::Worse);
    let full = arm(g, "full");
    assert_eq!(full.versus["lora"].verdict, Verdict::Level, "equal to lora, in the groups of all ranks");
    let standing = a.standings.iter().find(|s| s.arm == "loram" && s.baseline == "lora").unwrap();
    assert_eq!((standing.at_best.better, standing.at_fixed.worse), (2, 2));
}

/// As it is where a short classifier guesses at every rate.
#[test]
fn between_equal_scores_the_loss_decides() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    for entry in fs::read_dir(dir.path().join("runs")).unwrap() {
        let path = entry.unwrap().path().join("scores.json");
        let mut scores: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        scores["score"] = json!({"name": "accuracy", "more_is_better": true});
        for part in ["selection", "test"] {
            scores[part]["accuracy"] = json!(0.5);
        }
        scores.as_object_mut().unwrap().remove("examples");
        fs::write(path, scores.to_string()).unwrap();
    }
    let analysis = analyse(&collect(&[dir.path().to_path_buf()]).unwrap());
    let best = |name| arm(&analysis.groups[0], name).best_rate;
    assert_eq!((best("lora"), best("loram")), (Some(1e-3.into()), Some(1e-2.into())));
}

#[test]
fn curves_costs_and_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let a = analysis(dir.path());
    let g = &a.groups[0];
    let loram = arm(g, "loram");
    // from selection + 2 down to selection, in a straight line
    assert!((loram.curve_height.unwrap().mean - 1.91).abs() < 1e-9);
    // lora ends at 1.01 on average; loram falls from 2.91 to 0.91 in 20 steps
    assert!((loram.steps_to_lora.unwrap().mean - 19.0).abs() < 1e-9, "{:?}", loram.steps_to_lora);
    assert_eq!(loram.forgetting.unwrap().mean, 0.25);
    assert_eq!((loram.cost.start_seconds, loram.cost.peak_rss), (0.5, 1000.0));
    assert_eq!(loram.magnitudes.as_ref().unwrap().layers.len(), 2);
    let warned = |words: &str| g.warnings.iter().any(|w| w.contains(words));
    assert!(warned("highest one of the grid, so that a better one may lie beyond it: loram."), "{:?}", g.warnings);
    assert!(!warned("Fewer than three seeds") && !warned("same"), "{:?}", g.warnings);
}

#[test]
fn a_run_that_no_comparison_made_is_reported_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    for entry in fs::read_dir(dir.path().join("runs")).unwrap().flatten() {
        fs::remove_file(entry.path().join("scores.json")).unwrap();
        let summary = json!({"status": "finished", "scheme": "lora", "seconds": 1.0, "eval_after": {"loss": 1.0, "tokens": 9, "examples": 3}});
        fs::write(entry.path().join("summary.json"), summary.to_string()).unwrap();
    }
    let a = analyse(&collect(&[dir.path().to_path_buf()]).unwrap());
    assert!(
        a.groups[0].warnings[0].contains("chosen on the data on which the score was computed"),
        "{:?}",
        a.groups[0].warnings
    );
}

#[test]
fn short_runs_alone_are_no_divergence() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    for entry in fs::read_dir(dir.path().join("runs")).unwrap().flatten() {
        let path = entry.path().join("scores.json");
        let mut scores: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        scores["point"]["rung"] = json!(0);
        fs::write(&path, scores.to_string()).unwrap();
    }
    let runs = collect(&[dir.path().to_path_buf()]).unwrap();
    let a = analyse(&runs);
    let warnings = a.groups[0].warnings.join("\n");
    assert!(warnings.contains("scored so far: full, lora, loram") && !warnings.contains("Diverged"), "{warnings}");
    let page = report::Report::new("half-way".into(), &runs, a);
    let markdown = page.markdown().unwrap();
    assert!(markdown.contains("| a short run | – | 1.4") && !markdown.contains("dropped by halving"), "{markdown}");
    // all rates in one plot, for each group; full runs have none
    page.write(&dir.path().join("r.html")).unwrap();
    let html = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert_eq!((html.matches("Loss by learning rate, short runs").count(), html.matches("<svg").count()), (2, 2));
}

#[test]
fn a_report_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    let runs = collect(&[dir.path().to_path_buf()]).unwrap();
    let page = report::Report::new("A & B".into(), &runs, analyse(&runs));
    let file = |name: &str| dir.path().join(name);
    page.write(&file("r.html")).unwrap();
    let html = fs::read_to_string(file("r.html")).unwrap();
    assert!(html.contains("<h1>A &amp; B</h1>") && html.contains("‖ΔW‖ / ‖W‖"));
    // two plots and one heat map for each of three arms, in two groups
    assert_eq!(html.matches("<svg").count(), 10);
    // the ends of the colour scale are those of all maps
    let maps: Vec<Vec<&str>> = html
        .split("<figure id=")
        .filter(|f| f.contains("-magnitude-"))
        .map(|f| f.split("</svg>").next().unwrap().rsplit("<text").take(2).collect())
        .collect();
    let labels = |map: &Vec<&str>| map.iter().map(|t| t.split('\n').nth(1).unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(labels(&maps[0]), ["0.02", "0.002"], "{:?}", maps[0]);
    assert!(maps.len() == 6 && maps.iter().all(|m| labels(m) == labels(&maps[0])));
    let markdown = page.markdown().unwrap();
    assert!(markdown.contains("\n## T on m, r 4\n"), "{markdown}");
    assert!(markdown.contains("| **loram** | **1e-2 (edge)** | **0.9600 ± 0.0100** |"), "{markdown}");
    assert!(markdown.lines().all(|l| !l.starts_with('|') || l.ends_with('|')), "{markdown}");
    page.write(&file("r.json")).unwrap();
    let json: Value = serde_json::from_slice(&fs::read(file("r.json")).unwrap()).unwrap();
    assert_eq!((json["groups"].as_array().unwrap().len(), json["runs"].as_array().unwrap().len()), (2, 42));
    assert_eq!(page.write_plots(&file("plots")).unwrap().len(), 20);
    assert!(page.write(&file("r.pdf")).unwrap_err().to_string().contains(".html"));
}

/// The same runs on a second task, `loram` with other losses on the test part.
fn second_task(root: &Path, change: f64) {
    for folder in fs::read_dir(root.join("runs")).unwrap().map(|f| f.unwrap().path()).collect::<Vec<_>>() {
        let name = folder.file_name().unwrap().to_str().unwrap().replace("m.t.", "m.u.");
        let to = root.join("runs").join(name);
        fs::create_dir(&to).unwrap();
        for file in ["config.yaml", "summary.json", "metrics.jsonl"] {
            fs::copy(folder.join(file), to.join(file)).unwrap();
        }
        let mut scores: Value = serde_json::from_slice(&fs::read(folder.join("scores.json")).unwrap()).unwrap();
        scores["point"]["task"] = json!("u");
        if scores["point"]["arm"] == "loram" {
            scores["test"]["loss"] = json!(scores["test"]["loss"].as_f64().unwrap() + change);
            for nats in scores["examples"]["nats"].as_array_mut().unwrap() {
                *nats = json!(nats.as_f64().unwrap() + 10.0 * change);
            }
        }
        fs::write(to.join("scores.json"), scores.to_string()).unwrap();
    }
}

#[test]
fn tasks_are_pooled() {
    let dir = tempfile::tempdir().unwrap();
    folders(dir.path());
    assert!(analyse(&collect(&[dir.path().to_path_buf()]).unwrap()).pooled.is_empty(), "one task");
    second_task(dir.path(), 0.03);
    let runs = collect(&[dir.path().to_path_buf()]).unwrap();
    let a = analyse(&runs);
    let of = |arm: &str| a.pooled.iter().find(|p| p.arm == arm && p.baseline == "lora").unwrap();
    let loram = of("loram");
    assert_eq!((loram.tasks, loram.left_out, loram.effects.len()), (2, 0, 4));
    // 0.95 and 0.98 against 1.0, in percent of lora's mean loss of 1.01; examples and seeds shift both arms alike
    assert!((loram.score.estimate - 3.5 / 1.01).abs() < 1e-9, "{:?}", loram.score);
    assert!((loram.score.wide.0 - 2.0 / 1.01).abs() < 1e-9 && (loram.score.wide.1 - 5.0 / 1.01).abs() < 1e-9);
    // curves end at the losses on the selection part, 0.9 and 1.0, and begin 2 above
    assert!((loram.area.unwrap().estimate - 10.0 / 1.01).abs() < 1e-9, "{:?}", loram.area);
    // from 1.9 to 0.9 in the second ten steps: a tenth of them earlier
    assert!((loram.steps.unwrap().estimate - 5.0).abs() < 1e-6, "{:?}", loram.steps);
    assert!((loram.seconds.unwrap().estimate - 5.0 * 2.0 / 2.5).abs() < 1e-6, "{:?}", loram.seconds);
    assert_eq!((loram.decision, of("full").decision), (Decision::Exceeds, Decision::Matches));
    let page = report::Report::new("two".into(), &runs, a);
    let markdown = page.markdown().unwrap();
    assert!(markdown.contains(r"| loram | lora | 2 | \+3.47 \[+1.98, +4.95\] |"), "{markdown}");
    page.write(&dir.path().join("r.html")).unwrap();
    let html = fs::read_to_string(dir.path().join("r.html")).unwrap();
    assert!(html.contains("Against lora") && html.contains("loram against lora"));
}

/// Two arms at two learning rates with three seeds; the better learning rate of `loram` is 1e-3.
fn small(root: &Path, without: &[(&str, f64, u64)]) {
    for seed in 0..3 {
        for (arm, rate, loss) in [("lora", 1e-4, 1.2), ("lora", 1e-3, 1.0), ("loram", 1e-4, 1.9), ("loram", 1e-3, 0.9)]
        {
            if !without.contains(&(arm, rate, seed)) {
                let loss = loss + 0.01 * seed as f64;
                Run { arm, r: Some(4), rate, seed, selection: loss, test: loss }.write(root);
            }
        }
    }
}

fn planned(root: &Path, arms: &[&str]) {
    let point = |arm: &str, rate: f64, seed| Point {
        model: "m".into(),
        task: "t".into(),
        arm: arm.into(),
        r: Some(4),
        learning_rate: rate.into(),
        seed,
        others: Default::default(),
        rung: None,
    };
    let rates = |arm: &str| [1e-4, 1e-3].map(|rate| [0, 1, 2].map(|seed| point(arm, rate, seed))).concat();
    let list = Planned { halving: None, dropped: Vec::new(), runs: arms.iter().flat_map(|arm| rates(arm)).collect() };
    fs::create_dir_all(root.join("state")).unwrap();
    fs::write(root.join("state/runs.json"), serde_json::to_vec(&list).unwrap()).unwrap();
}

#[test]
fn an_unfinished_comparison_gives_no_verdict_that_a_missing_run_may_turn() {
    let dir = tempfile::tempdir().unwrap();
    let verdict = |a: &Analysis| arm(&a.groups[0], "loram").versus["lora"].verdict;
    // the better learning rate lacks a seed, so that another one is chosen
    small(dir.path(), &[("loram", 1e-3, 2)]);
    let found = collect(&[dir.path().to_path_buf()]).unwrap();
    let a = analyse(&found);
    let loram = arm(&a.groups[0], "loram");
    assert_eq!((loram.best_rate, loram.score.unwrap().n, a.missing), (Some(1e-4.into()), 3, 1));
    assert_eq!(verdict(&a), Verdict::Open);
    assert_eq!((a.standings[0].at_best.open, a.standings[0].at_best.worse), (1, 0));
    let said = a.groups[0].warnings.join("\n");
    assert!(said.contains("A run of loram is missing: 1e-3 seed 2."), "{said}");
    assert!(said.contains("No verdict on loram yet: the learning rate 1e-3, which lacks seeds, is better"), "{said}");
    let page = report::Report::new("half-way".into(), &found, a).markdown().unwrap();
    assert!(page.contains("11 of 12 runs: 2 arms") && page.contains("1 of 12 runs is missing"), "{page}");
    assert!(page.contains("| open |") && !page.contains("**loram**  "), "{page}");
    assert!(page.contains("`loram` is not decided yet"), "{page}");
    // complete
    small(dir.path(), &[]);
    let found = collect(&[dir.path().to_path_buf()]).unwrap();
    let a = analyse(&found);
    assert_eq!((a.missing, verdict(&a)), (0, Verdict::Better));
    let page = report::Report::new("whole".into(), &found, a).markdown().unwrap();
    assert!(page.contains("`loram` is better.") && page.contains("\n12 runs: 2 arms"), "{page}");
}

#[test]
fn a_missing_run_of_a_worse_rate_leaves_the_verdict() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), &[("loram", 1e-4, 2)]);
    let a = analyse(&collect(&[dir.path().to_path_buf()]).unwrap());
    assert_eq!((a.missing, arm(&a.groups[0], "loram").versus["lora"].verdict), (1, Verdict::Better));
}

#[test]
fn runs_that_are_planned_and_not_begun_are_missed() {
    let dir = tempfile::tempdir().unwrap();
    let rate = [("loram", 1e-3, 0), ("loram", 1e-3, 1), ("loram", 1e-3, 2)];
    small(dir.path(), &rate);
    planned(dir.path(), &["lora", "loram", "pissa"]);
    let a = analyse(&collect(&[dir.path().to_path_buf()]).unwrap());
    let (g, loram) = (&a.groups[0], arm(&a.groups[0], "loram"));
    assert_eq!((a.missing, g.missing, loram.missing.runs, loram.missing.rates), (9, 9, 3, 1));
    assert_eq!(loram.versus["lora"].verdict, Verdict::Open);
    let said = g.warnings.join("\n");
    assert!(
        said.contains("No run is there yet of pissa.") && said.contains("one of its learning rates has no run yet")
    );
}

#[test]
fn scores_are_over_the_seeds_that_all_arms_have() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), &[("loram", 1e-3, 2), ("loram", 1e-4, 2)]);
    let a = analyse(&collect(&[dir.path().to_path_buf()]).unwrap());
    let g = &a.groups[0];
    assert_eq!((&g.seeds, &arm(g, "lora").seeds), (&vec![0, 1], &vec![0, 1]));
    assert_eq!(arm(g, "lora").score.unwrap().n, 2);
    assert!(g.warnings.iter().any(|w| w.contains("seeds that not all arms have are left out: 2.")), "{:?}", g.warnings);
}

/// As `loram train` leaves them: no `scores.json`.
fn trained(dir: &Path, config: &str, loss: f64) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.yaml"), format!("model: m\ndata: food/train.jsonl\neval_data: d.jsonl\n{config}"))
        .unwrap();
    let after = json!({"loss": loss, "tokens": 9, "examples": 6});
    let summary = json!({"status": "finished", "scheme": "lora", "seconds": 1.0, "eval_after": after});
    fs::write(dir.join("summary.json"), summary.to_string()).unwrap();
}

#[test]
fn runs_with_other_settings_are_other_arms() {
    let dir = tempfile::tempdir().unwrap();
    trained(&dir.path().join("a"), "weight_decay: 0\n", 1.0);
    trained(&dir.path().join("b"), "weight_decay: 0.1\nlogging_steps: 3\n", 3.0);
    trained(&dir.path().join("c"), "weight_decay: 0.1\nseed: 7\n", 5.0);
    trained(&dir.path().join("z-again"), "weight_decay: 0\n", 1.0);
    let found = collect(&[dir.path().to_path_buf()]).unwrap();
    // of two equal runs the first by name stays
    assert_eq!(found.repeated, [dir.path().join("z-again")]);
    let a = analyse(&found);
    let g = &a.groups[0];
    assert_eq!(g.title(), "food on m, r 16");
    let mut arms: Vec<(&str, usize)> = g.arms.iter().map(|a| (a.arm.as_str(), a.seeds.len())).collect();
    arms.sort();
    assert_eq!(arms, [("lora", 1), ("lora (weight_decay 0.1)", 1)]);
    let page = report::Report::new("t".into(), &found, a).markdown().unwrap();
    assert!(page.contains("6 evaluation records, on which learning rates were chosen, too"), "{page}");
    assert!(page.contains("the same settings and the same seed") && !page.contains("| selection |"), "{page}");
    assert!(page.contains("| arm | learning rate | loss | 95 % interval |"), "{page}");
}

#[test]
fn intervals_on_few_records_say_so() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path(), &[]);
    let a = analyse(&collect(&[dir.path().to_path_buf()]).unwrap());
    let said = a.groups[0].warnings.join("\n");
    assert!(said.contains("drawn from 20 test records. From fewer than 30 they are rough"), "{said}");
}
