//! Metrics of a run for an MLflow server, through its REST interface (`/api/2.0/mlflow`).

use crate::{Error, Result};
use loram_io::http::{JsonService, ServiceError};
use loram_io::{atomic, input};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The file in a run folder that names the run of the server, so that a resumed run goes on there.
const FILE: &str = "mlflow.json";

const API: &str = "/api/2.0/mlflow";

/// Metrics and parameters of one request, at most, by MLflow's documentation.
const BATCH: (usize, usize) = (1000, 100);

/// Characters of a parameter, at most.
const PARAMETER: usize = 6000;

/// The run of a server.
pub(crate) struct MlFlow {
    service: JsonService,
    run_id: String,
    /// The server has stopped answering: nothing more is sent.
    lost: bool,
}

#[derive(Serialize, Deserialize)]
struct Known {
    tracking_uri: String,
    run_id: String,
}

/// The end of a run, in MLflow's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Interrupted,
    Failed,
}

impl MlFlow {
    /// Begins a run at `MLFLOW_TRACKING_URI`, in the experiment `MLFLOW_EXPERIMENT_NAME`, with the parameters of the configuration; a
    /// resumed run goes on with its own.
    ///
    /// # Errors
    /// No address, a server that does not answer or refuses.
    pub fn begin(dir: &Path, parameters: &[(String, String)], resumed: bool) -> Result<MlFlow> {
        let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let uri = variable("MLFLOW_TRACKING_URI").unwrap_or_default();
        if !uri.starts_with("http://") && !uri.starts_with("https://") {
            return Err(Error::Config(format!(
                "report_to: mlflow needs the address of a server in MLFLOW_TRACKING_URI, such as http://127.0.0.1:5000 \
                 (`mlflow server` starts one), found `{uri}`"
            )));
        }
        let service = JsonService::new(&uri, authorization(variable));
        let failed = |e: ServiceError| Error::Config(format!("report_to: mlflow: {uri}: {e}"));
        let path = dir.join(FILE);
        let known = input::read_text_if_there(&path)?.and_then(|text| serde_json::from_str::<Known>(&text).ok());
        if let Some(known) = known.filter(|k| resumed && k.tracking_uri == uri) {
            let run = MlFlow { service, run_id: known.run_id, lost: false };
            let running = json!({"run_id": run.run_id, "status": "RUNNING"});
            run.service.post(&format!("{API}/runs/update"), &running).map_err(failed)?;
            return Ok(run);
        }
        let experiment = experiment(&service, variable("MLFLOW_EXPERIMENT_NAME")).map_err(failed)?;
        let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let begin = json!({"experiment_id": experiment, "run_name": name, "start_time": now(),
                           "tags": [{"key": "mlflow.source.name", "value": "loram"}]});
        let made = service.post(&format!("{API}/runs/create"), &begin).map_err(failed)?;
        let Some(run_id) = made["run"]["info"]["run_id"].as_str().map(str::to_string) else {
            return Err(Error::Config(format!("report_to: mlflow: {uri}: the server names no run")));
        };
        atomic::write_json(&path, &Known { tracking_uri: uri.clone(), run_id: run_id.clone() })?;
        let run = MlFlow { service, run_id, lost: false };
        for some in parameters.chunks(BATCH.1) {
            let one = |(key, value): &(String, String)| json!({"key": key, "value": value.chars().take(PARAMETER).collect::<String>()});
            let body = json!({"run_id": run.run_id, "params": some.iter().map(one).collect::<Vec<_>>()});
            run.service.post(&format!("{API}/runs/log-batch"), &body).map_err(failed)?;
        }
        Ok(run)
    }

    /// Sends metrics of a step. Returns a warning when the server has stopped answering, once.
    pub fn log(&mut self, step: usize, metrics: &[(String, f64)]) -> Option<String> {
        let time = now();
        // the server takes numbers alone
        let finite: Vec<&(String, f64)> = metrics.iter().filter(|m| m.1.is_finite()).collect();
        for some in finite.chunks(BATCH.0) {
            let one = |(key, value): &&(String, f64)| json!({"key": named(key), "value": value, "timestamp": time, "step": step});
            let body = json!({"run_id": self.run_id, "metrics": some.iter().map(one).collect::<Vec<_>>()});
            if let Some(warning) = self.send("log-batch", &body) {
                return Some(warning);
            }
        }
        None
    }

    /// Ends the run on the server.
    pub fn end(&mut self, ending: Ending) -> Option<String> {
        let status = match ending {
            Ending::Finished => "FINISHED",
            Ending::Interrupted => "KILLED",
            Ending::Failed => "FAILED",
        };
        self.send("update", &json!({"run_id": self.run_id, "status": status, "end_time": now()}))
    }

    fn send(&mut self, verb: &str, body: &Value) -> Option<String> {
        if self.lost {
            return None;
        }
        let failed = self.service.post(&format!("{API}/runs/{verb}"), body).err()?;
        self.lost = true;
        Some(format!("the MLflow server gets no more metrics of this run, which goes on: {failed}"))
    }
}

/// The id of the experiment of this name, which is created if it is not there; `0` is the server's own.
fn experiment(service: &JsonService, name: Option<String>) -> std::result::Result<String, ServiceError> {
    let Some(name) = name else { return Ok("0".into()) };
    let id = |found: &Value| found.as_str().map(str::to_string).unwrap_or_default();
    match service.get(&format!("{API}/experiments/get-by-name"), &[("experiment_name", &name)]) {
        Ok(found) => Ok(id(&found["experiment"]["experiment_id"])),
        Err(ServiceError::Status { status: 404, .. }) => {
            let made = service.post(&format!("{API}/experiments/create"), &json!({"name": name}))?;
            Ok(id(&made["experiment_id"]))
        }
        Err(e) => Err(e),
    }
}

/// A token, or a user with a password.
fn authorization(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    if let Some(token) = variable("MLFLOW_TRACKING_TOKEN") {
        return Some(format!("Bearer {token}"));
    }
    let (user, password) = (variable("MLFLOW_TRACKING_USERNAME")?, variable("MLFLOW_TRACKING_PASSWORD")?);
    Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let n = three.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for i in 0..4 {
            out.push(if i <= three.len() { LETTERS[(n >> (18 - 6 * i)) as usize & 63] as char } else { '=' });
        }
    }
    out
}

/// A name with the characters that MLflow takes.
fn named(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "_-. /".contains(c) { c } else { '_' }).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        for (text, wanted) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), wanted);
        }
    }

    #[test]
    fn a_token_comes_before_a_password() {
        let of = |given: &'static [(&str, &str)]| {
            authorization(|name| given.iter().find(|g| g.0 == name).map(|g| g.1.to_string()))
        };
        assert_eq!(
            of(&[("MLFLOW_TRACKING_USERNAME", "a"), ("MLFLOW_TRACKING_PASSWORD", "b")]).as_deref(),
            Some("Basic YTpi")
        );
        assert_eq!(of(&[("MLFLOW_TRACKING_TOKEN", "t")]).as_deref(), Some("Bearer t"));
        assert_eq!(of(&[]), None);
    }
}
