//! `report_to: mlflow` against a server that writes down what it is sent.

use loram_io::testing::tiny_llama;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers so many requests, or all.
fn server(answers: usize) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let seen = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(answers) {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                head.push(line.trim().to_string());
            }
            let length = head.iter().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).unwrap();
            let path = head[0].split(' ').nth(1).unwrap().trim_start_matches("/api/2.0/mlflow/").to_string();
            let known = path.starts_with("experiments/get-by-name");
            let answer = match path.as_str() {
                "runs/create" => json!({"run": {"info": {"run_id": "r1"}}}),
                "experiments/create" => json!({"experiment_id": "7"}),
                _ => json!({}),
            };
            seen.lock().unwrap().push((path, serde_json::from_slice(&body).unwrap_or(Value::Null)));
            let status = if known { "404 Not Found" } else { "200 OK" };
            let text = answer.to_string();
            write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}", text.len())
                .unwrap();
        }
    });
    (url, requests)
}

fn train(dir: &Path, uri: &str, more: &[&str]) -> assert_cmd::assert::Assert {
    let model = tiny_llama().display().to_string();
    let common =
        ["train", "--model", &model, "--data", "demo:restaurants?n=32", "--learning-rate", "2e-3", "-o", "run"];
    let how = ["--report-to", "mlflow", "--logging-steps", "2", "--eval-data", "demo:restaurants?n=8&split=dev"];
    let mut command = assert_cmd::Command::cargo_bin("loram").unwrap();
    command.current_dir(dir).env("LORAM_CACHE", "").env("MLFLOW_TRACKING_URI", uri);
    command.env("MLFLOW_EXPERIMENT_NAME", "ours").args(common).args(how).args(more).assert()
}

#[test]
fn parameters_metrics_and_the_end() {
    let room = tempfile::tempdir().unwrap();
    let (url, requests) = server(usize::MAX);
    train(room.path(), &url, &["--max-steps", "4", "--save-steps", "2"]).success();
    let found = requests.lock().unwrap().clone();
    let of = |path: &str| found.iter().filter(|r| r.0 == path).map(|r| r.1.clone()).collect::<Vec<_>>();
    assert_eq!(of("experiments/create"), [json!({"name": "ours"})]);
    let created = &of("runs/create")[0];
    assert_eq!((&created["experiment_id"], &created["run_name"]), (&json!("7"), &json!("run")));
    let batches = of("runs/log-batch");
    assert!(batches.iter().all(|b| b["run_id"] == "r1"));
    let all =
        |key: &str| batches.iter().flat_map(|b| b[key].as_array().cloned().unwrap_or_default()).collect::<Vec<_>>();
    let rate = all("params").into_iter().find(|p| p["key"] == "learning_rate").unwrap();
    assert_eq!(rate["value"].as_str().unwrap().parse::<f64>().unwrap(), 2e-3);
    let metrics = all("metrics");
    let steps = |name: &str| {
        let of = metrics.iter().filter(|m| m["key"] == name).map(|m| m["step"].as_u64().unwrap());
        of.collect::<Vec<_>>()
    };
    assert_eq!(steps("train/loss"), [2, 4]);
    assert!(steps("eval/loss").contains(&4) && !steps("train/learning_rate").is_empty());
    let lines = std::fs::read_to_string(room.path().join("run/metrics.jsonl")).unwrap();
    let last: Value =
        lines.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).rfind(|l| l["loss"].is_f64()).unwrap();
    let sent = metrics.iter().rfind(|m| m["key"] == "train/loss").unwrap();
    assert_eq!(sent["value"], last["loss"]);
    assert_eq!(of("runs/update").last().unwrap()["status"], "FINISHED");

    // a run that goes on does so under the same name
    std::fs::remove_dir_all(room.path().join("run/adapter")).unwrap();
    std::fs::remove_dir_all(room.path().join("run/checkpoint-4")).unwrap();
    std::fs::remove_file(room.path().join("run/summary.json")).unwrap();
    requests.lock().unwrap().clear();
    train(room.path(), &url, &["--max-steps", "4", "--save-steps", "2", "--resume-from-checkpoint", "true"]).success();
    let found = requests.lock().unwrap().clone();
    assert_eq!(found[0].1, json!({"run_id": "r1", "status": "RUNNING"}));
    assert!(found.iter().all(|r| r.0 != "runs/create"));
}

#[test]
fn a_server_that_goes_away_does_not_end_a_run() {
    let room = tempfile::tempdir().unwrap();
    // experiment, run, parameters (two requests at most), a first line of metrics
    let (url, requests) = server(6);
    let done = train(room.path(), &url, &["--max-steps", "8"]).success();
    let text = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    assert_eq!(text.matches("the MLflow server gets no more metrics of this run").count(), 1, "{text}");
    assert!(room.path().join("run/adapter").is_dir() && requests.lock().unwrap().len() == 6);
}

#[test]
fn no_server_is_an_error_before_the_first_step() {
    let room = tempfile::tempdir().unwrap();
    for (uri, words) in [
        ("", "MLFLOW_TRACKING_URI"),
        ("file:///tmp/mlruns", "file:///tmp/mlruns"),
        ("http://127.0.0.1:9", "127.0.0.1:9"),
    ] {
        let failed = train(room.path(), uri, &["--max-steps", "2"]).code(2);
        let text = String::from_utf8_lossy(&failed.get_output().stderr).into_owned();
        assert!(text.contains("report_to: mlflow") && text.contains(words), "{text}");
        assert!(!room.path().join("run/adapter").exists());
    }
}
