//! A line for each run.

use crate::run_record::RunRecord;
use loram_train::config::LearningRate;
use std::collections::BTreeSet;

pub(super) fn csv(runs: &[RunRecord]) -> String {
    let others: BTreeSet<&String> = runs.iter().flat_map(|r| r.scores.point.others.keys()).collect();
    let metrics: BTreeSet<String> =
        runs.iter().filter_map(|r| r.scores.test.as_ref()).flat_map(|m| m.values().into_keys()).collect();
    let mut head: Vec<String> = ["model", "task", "arm", "r", "learning_rate", "seed"].map(String::from).to_vec();
    head.extend(others.iter().map(|k| k.to_string()));
    head.extend(["rung", "outcome"].map(String::from));
    head.extend(metrics.iter().map(|m| format!("selection_{m}")));
    head.extend(metrics.iter().map(|m| format!("test_{m}")));
    head.extend(
        [
            "curve_height",
            "forgetting_before",
            "forgetting_after",
            "start_seconds",
            "train_seconds",
            "score_seconds",
            "peak_rss",
            "trainable_parameters",
            "result_bytes",
            "checkpoint_bytes",
            "threads",
            "folder",
        ]
        .map(String::from),
    );
    let mut rows = vec![head];
    for run in runs {
        let (s, p, c) = (&run.scores, &run.scores.point, &run.scores.cost);
        let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
        let mut cells = vec![p.model.clone(), p.task.clone(), p.arm.clone()];
        cells.push(p.r.map_or(String::new(), |r| r.to_string()));
        cells.extend([rate_cell(p.learning_rate), p.seed.to_string()]);
        cells.extend(others.iter().map(|k| p.others.get(*k).cloned().unwrap_or_default()));
        cells.push(p.rung.map_or(String::new(), |r| r.to_string()));
        cells.push(format!("{:?}", s.outcome).to_lowercase());
        for part in [&s.selection, &s.test] {
            cells.extend(metrics.iter().map(|m| number(part.as_ref().and_then(|x| x.get(m)))));
        }
        cells.push(number(run.curve().mean_height()));
        cells.push(number(s.forgetting.as_ref().map(|f| f.before)));
        cells.push(number(s.forgetting.as_ref().map(|f| f.after)));
        cells.extend([c.start_seconds, c.train_seconds, c.score_seconds].map(|x| x.to_string()));
        cells.extend([c.peak_rss, c.trainable_parameters, c.result_bytes, c.checkpoint_bytes].map(|x| x.to_string()));
        cells.extend([c.threads.to_string(), run.dir.display().to_string()]);
        rows.push(cells);
    }
    lines(&rows)
}

/// A number as it was before there was anything else.
fn rate_cell(rate: LearningRate) -> String {
    rate.value().map_or_else(|| rate.to_string(), |x| x.to_string())
}

fn lines(rows: &[Vec<String>]) -> String {
    let mut out = csv::Writer::from_writer(Vec::new());
    for row in rows {
        out.write_record(row).expect("rows of one length, into memory");
    }
    String::from_utf8(out.into_inner().expect("into memory")).expect("made of strings")
}

#[cfg(test)]
mod tests {
    #[test]
    fn cells_that_need_quotes_have_them() {
        let rows = vec![vec!["model".into(), "r".into()], vec!["a,b \"x\"\n".into(), "1".into()]];
        assert_eq!(super::lines(&rows), "model,r\n\"a,b \"\"x\"\"\n\",1\n");
    }
}
