//! Runs the runs of a grid in parallel, each in its own process.
//!
//! With a process for each run, its peak memory can be measured, a crash does not affect other runs, and a killed driver
//! leaves ordinary run folders. Jobs times threads never exceeds the number of cores to use.

use crate::board::{Board, Shard, State};
use crate::grid::Grid;
use crate::run_folder::{lock_file, state_dir};
use crate::{Error, Result};
use loram_io::lock::{FileLock, Holder};
use loram_train::StopFlag;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time between two checks of the processes.
const PAUSE: Duration = Duration::from_millis(40);

/// Exit code of a process whose run another process makes (EX_TEMPFAIL of sysexits.h).
pub const BUSY: i32 = 75;

/// How the runs of a grid are started.
#[derive(Debug, Clone)]
pub struct DriveOptions {
    /// The program that runs one run: called as `program compare GRID --only ID --threads N`.
    pub program: PathBuf,
    /// Number of cores to use.
    pub cores: usize,
    /// Number of parallel runs; `None`: that of the grid, else one for each core.
    pub jobs: Option<usize>,
    /// The part of the grid to run; `None`: all of it.
    pub shard: Option<Shard>,
    /// A launcher with its arguments, such as `mpirun -n 2`, that starts each run as several processes; empty: none.
    pub launcher: Vec<String>,
}

impl DriveOptions {
    /// The number of parallel runs, and of threads for each.
    pub fn layout(&self, grid: &Grid) -> (usize, usize) {
        // a run of several processes fills the machine, or several
        let usual = if self.launcher.is_empty() { self.cores } else { 1 };
        let jobs = self.jobs.or(grid.jobs).unwrap_or(usual).clamp(1, self.cores.max(1));
        (jobs, (self.cores / jobs).max(1))
    }
}

/// A message of the driver.
#[derive(Debug, Clone)]
pub enum Update {
    /// The driver begins.
    Begin {
        /// Number of runs of this shard.
        total: usize,
        /// Number of runs that were scored before.
        done: usize,
        /// Number of parallel runs.
        jobs: usize,
        /// Threads of each run.
        threads: usize,
    },
    /// A run has been started.
    Started {
        /// Name of the run.
        id: String,
    },
    /// A run is scored.
    Scored {
        /// Name of the run.
        id: String,
        /// Its score on the selection part; `None`: it diverged.
        selection: Option<f64>,
        /// Name of the metric.
        metric: String,
        /// Number of runs done so far.
        done: usize,
        /// Number of runs of this shard.
        total: usize,
        /// The best run of the same model and task, and its score.
        best: Option<(String, f64)>,
        /// Estimated seconds until all are done.
        left: Option<f64>,
    },
    /// Another process makes a run; the driver waits for it.
    Busy {
        /// Name of the run.
        id: String,
        /// The process.
        holder: Holder,
    },
    /// A run failed; its folder is kept.
    Failed {
        /// Name of the run.
        id: String,
        /// The reason.
        message: String,
    },
}

/// The result of [`drive`].
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Driven {
    /// Number of runs of this shard.
    pub total: usize,
    /// Runs that are scored, before or by this call.
    pub scored: usize,
    /// Runs that this call scored.
    pub made: usize,
    /// Runs dropped by successive halving.
    pub dropped: usize,
    /// Runs that failed in this call, with the reason.
    pub failed: Vec<(String, String)>,
    /// Number of runs that are not done: interrupted, or waiting for some that failed.
    pub remaining: usize,
    /// The names of all runs that are not scored, failed ones as well.
    pub missing: Vec<String>,
    /// True if the stop flag was set.
    pub interrupted: bool,
}

struct Job {
    index: usize,
    child: Child,
    log: PathBuf,
}

/// Runs a grid until no run is ready, or until `stop` is set.
pub fn drive(grid: &Grid, options: &DriveOptions, stop: &StopFlag, tell: &mut dyn FnMut(&Update)) -> Result<Driven> {
    let mut board = Board::new(grid)?;
    let (jobs, threads) = options.layout(grid);
    let mine = board.shard(options.shard);
    let before = count(&board, &mine, State::Scored);
    if before < mine.len() {
        crate::gains::prepare(grid, &board.models())?;
    }
    crate::planned::write(grid, &board)?;
    tell(&Update::Begin { total: mine.len(), done: before, jobs, threads });
    let mut running: Vec<Job> = Vec::new();
    let mut given_up: BTreeSet<usize> = BTreeSet::new();
    let mut failed = Vec::new();
    let mut asked = None;
    let mut told: BTreeSet<usize> = BTreeSet::new();
    let mut states = board.states();
    loop {
        let mut busy = Vec::new();
        let ready: Vec<usize> = mine
            .iter()
            .copied()
            .filter(|&i| states[i] == State::Ready && !given_up.contains(&i) && running.iter().all(|j| j.index != i))
            .collect();
        for index in ready {
            if stop.is_set() || running.len() >= jobs {
                break;
            }
            let id = board.runs[index].id();
            if let Some(holder) = FileLock::holder(&lock_file(&grid.output_dir, &id)) {
                if told.insert(index) {
                    tell(&Update::Busy { id, holder });
                }
                busy.push(index);
                continue;
            }
            // the process that had it may have scored it
            if told.contains(&index) && board.look(index)? {
                states = board.states();
                tell(&scored(&board, &mine, index, jobs));
                continue;
            }
            let job = start(grid, options, &board, index, threads)?;
            tell(&Update::Started { id });
            running.push(job);
        }
        if running.is_empty() && busy.is_empty() && (stop.is_set() || !is_any_ready(&states, &mine, &given_up)) {
            break;
        }
        if stop.is_set() && asked.is_none() {
            // Ctrl-C reaches the whole process group; a signal to this process alone does not
            running.iter().for_each(|j| terminate(&j.child));
            asked = Some(Instant::now());
        }
        std::thread::sleep(PAUSE);
        let mut still = Vec::new();
        for mut job in running.drain(..) {
            let status = job.child.try_wait().map_err(|e| Error::Failed(format!("cannot wait for a run: {e}")))?;
            let Some(status) = status else {
                still.push(job);
                continue;
            };
            let id = board.runs[job.index].id();
            if board.look(job.index)? {
                states = board.states();
                tell(&scored(&board, &mine, job.index, jobs));
                continue;
            }
            if status.code() == Some(BUSY) {
                // another process was quicker
                told.insert(job.index);
                continue;
            }
            given_up.insert(job.index);
            if !stop.is_set() {
                let message = last_line(&job.log).unwrap_or_else(|| format!("ended with {status}"));
                tell(&Update::Failed { id: id.clone(), message: message.clone() });
                failed.push((id, message));
            }
        }
        running = still;
    }
    crate::planned::write(grid, &board)?;
    let scored = count(&board, &mine, State::Scored);
    let missing = mine.iter().filter(|&&i| !matches!(states[i], State::Scored | State::Dropped));
    let dropped = count(&board, &mine, State::Dropped);
    Ok(Driven {
        total: mine.len(),
        scored,
        made: scored - before,
        dropped,
        remaining: mine.len() - scored - dropped - failed.len(),
        failed,
        missing: missing.map(|&i| board.runs[i].id()).collect(),
        interrupted: stop.is_set(),
    })
}

fn is_any_ready(states: &[State], mine: &[usize], given_up: &BTreeSet<usize>) -> bool {
    mine.iter().any(|i| states[*i] == State::Ready && !given_up.contains(i))
}

fn count(board: &Board, mine: &[usize], state: State) -> usize {
    let states = board.states();
    mine.iter().filter(|&&i| states[i] == state).count()
}

fn scored(board: &Board, mine: &[usize], index: usize, jobs: usize) -> Update {
    let states = board.states();
    let open: Vec<usize> =
        mine.iter().copied().filter(|&i| matches!(states[i], State::Ready | State::Waiting)).collect();
    let left = board.expected_seconds(&open, &states);
    Update::Scored {
        id: board.runs[index].id(),
        selection: board.brief(index).and_then(|b| b.choice).map(|c| c.score),
        metric: board.runs[index].score.name.clone(),
        done: mine.len() - open.len(),
        total: mine.len(),
        best: board.best(index).map(|(i, x)| (board.runs[i].id(), x)),
        left: left.map(|s| s / jobs as f64),
    }
}

fn start(grid: &Grid, options: &DriveOptions, board: &Board, index: usize, threads: usize) -> Result<Job> {
    let spec = &board.runs[index];
    // before the process starts, since several would write the same files
    spec.split.prepare()?;
    let log = state_dir(&grid.output_dir).join(format!("{}.log", spec.id()));
    let dir = log.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|e| loram_io::Error::io("create", dir, e))?;
    let file = File::create(&log).map_err(|e| loram_io::Error::io("create", &log, e))?;
    let mut command = match options.launcher.split_first() {
        None => Command::new(&options.program),
        Some((launcher, arguments)) => {
            let mut command = Command::new(launcher);
            command.args(arguments).arg(&options.program);
            command
        }
    };
    command.arg("compare").arg(&grid.path).args(["--only", &spec.id(), "--quiet"]);
    if options.launcher.is_empty() {
        command.args(["--threads", &threads.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    end_with_parent(&mut command);
    let child = command.spawn().map_err(|e| Error::Failed(format!("cannot start {:?}: {e}", command.get_program())))?;
    Ok(Job { index, child, log })
}

/// Lets a run save a checkpoint and end when its driver is killed, so that no second process starts it meanwhile.
#[cfg(target_os = "linux")]
fn end_with_parent(command: &mut Command) {
    use rustix::process::{Signal, set_parent_process_death_signal};
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure makes one system call, which is async-signal-safe and touches nothing of this process
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_: &mut Command) {}

#[cfg(unix)]
fn terminate(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process};
    // a child that was not waited for keeps its id; it may have ended, which is as good
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
}

#[cfg(not(unix))]
fn terminate(_: &Child) {}

/// The error of a failed run: the last line of its log.
fn last_line(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let line = text.lines().rev().find(|l| !l.trim().is_empty())?;
    Some(line.strip_prefix("error: ").unwrap_or(line).to_string())
}
