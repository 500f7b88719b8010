//! The process that holds a lock.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The name of this machine; empty where the system does not say.
pub fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = String::new();
    name
}

/// The process that holds a lock, as the file says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Number of the process; 0 when the file does not say.
    pub pid: u32,
    /// Name of its machine.
    pub host: String,
    /// When it took the lock.
    pub started: String,
}

impl Holder {
    pub(crate) fn this_process() -> Holder {
        Holder {
            pid: std::process::id(),
            host: host_name(),
            started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
    }

    /// The holder that a lock file names. It writes its name just after it has taken the lock, so that a look may be early.
    pub(crate) fn read(path: &Path) -> Holder {
        for _ in 0..10 {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if let Ok(holder) = serde_json::from_str(&text) {
                return holder;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Holder::default()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("another process"),
            pid => write!(f, "process {pid} on {} since {}", self.host, self.started),
        }
    }
}
