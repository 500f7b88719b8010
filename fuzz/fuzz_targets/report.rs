#![no_main]
//! Run folders of others, and the reports of them.

use libfuzzer_sys::fuzz_target;
use loram_lab::report::Report;
use loram_lab::{analyse, collect};

const FILES: [&str; 5] = ["scores.json", "metrics.jsonl", "summary.json", "environment.json", "config.yaml"];

fuzz_target!(|data: &[u8]| {
    // two runs, of which the second has all files that the input gives, the first only its scores
    let Some([first, a, b, c, d, e]) = loram_fuzz::parts(data) else { return };
    let root = loram_fuzz::folder().join("compare");
    let dirs = [root.join("runs/a"), root.join("runs/b")];
    for dir in &dirs {
        std::fs::create_dir_all(dir).expect("a folder in memory");
        loram_fuzz::put(&dir.join("config.yaml"), "model: m\ndata: demo:restaurants\n");
    }
    loram_fuzz::put(&dirs[0].join("scores.json"), first);
    for (name, text) in FILES.iter().zip([a, b, c, d, e]) {
        if *name != "config.yaml" || !text.is_empty() {
            loram_fuzz::put(&dirs[1].join(name), text);
        }
    }
    let Ok(runs) = collect(&[root]) else { return };
    let analysis = analyse(&runs);
    let report = Report::new("Comparison".into(), &runs, analysis);
    let _ = report.markdown();
    let _ = serde_json::to_string(&report);
});
