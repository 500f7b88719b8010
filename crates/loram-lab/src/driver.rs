//! Makes the runs of a grid, several at a time, each in a process of its own.
//!
//! A process for each run, because its peak memory is then its own, a crash takes nothing else along, and a killed
//! driver leaves ordinary run folders. Jobs times threads never exceed the cores that may be used.

use crate::board::{Board, Shard, State};
use crate::grid::Grid;
use crate::run_folder::state_dir;
use crate::{Error, Result};
use loram_train::StopFlag;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(40);

/// How a grid is to be worked on.
#[derive(Debug, Clone)]
pub struct DriveOptions {
    /// Program that makes one run: called as `program compare GRID --only ID --threads N`.
    pub program: PathBuf,
    /// Cores to use.
    pub cores: usize,
    /// Runs at a time; `None`: by the grid, else one for each core.
    pub jobs: Option<usize>,
    /// Part of the grid to work on.
    pub shard: Option<Shard>,
}

impl DriveOptions {
    /// Runs at a time and threads for each.
    pub fn layout(&self, grid: &Grid) -> (usize, usize) {
        let jobs = self.jobs.or(grid.jobs).unwrap_or(self.cores).clamp(1, self.cores.max(1));
        (jobs, (self.cores / jobs).max(1))
    }
}

/// What a driver tells.
#[derive(Debug, Clone)]
pub enum Update {
    /// The work begins: runs of this shard in all, those that were scored before, jobs, threads of each.
    Begin {
        /// Runs of this shard.
        total: usize,
        /// Scored before.
        done: usize,
        /// Runs at a time.
        jobs: usize,
        /// Threads of each.
        threads: usize,
    },
    /// A run has begun.
    Started {
        /// Its name.
        id: String,
    },
    /// A run is scored.
    Scored {
        /// Its name.
        id: String,
        /// Its score on the selection part; `None`: diverged.
        selection: Option<f64>,
        /// Name of the metric.
        metric: String,
        /// Runs done so far.
        done: usize,
        /// Runs in all.
        total: usize,
        /// The best run of the same model and task, and its score.
        best: Option<(String, f64)>,
        /// Estimated seconds to the end.
        left: Option<f64>,
    },
    /// A run failed; its folder stays as it is.
    Failed {
        /// Its name.
        id: String,
        /// Why.
        message: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Driven {
    /// Runs of this shard.
    pub total: usize,
    /// Scored, before or now.
    pub scored: usize,
    /// Made by this call.
    pub made: usize,
    /// Left out by successive halving.
    pub dropped: usize,
    /// Failed in this call, with the reason.
    pub failed: Vec<(String, String)>,
    /// Not made: stopped, at work in another program, or waiting for another shard.
    pub remaining: usize,
    /// Whether it was stopped.
    pub interrupted: bool,
}

struct Job {
    index: usize,
    child: Child,
    log: PathBuf,
}

/// Works on a grid until nothing is left that can be done, or until `stop` is set.
pub fn drive(grid: &Grid, options: &DriveOptions, stop: &StopFlag, tell: &mut dyn FnMut(&Update)) -> Result<Driven> {
    let mut board = Board::new(grid)?;
    let (jobs, threads) = options.layout(grid);
    let mine = board.shard(options.shard);
    let before = count(&board, &mine, State::Scored);
    if before < mine.len() {
        crate::gains::prepare(grid, &board.models())?;
    }
    tell(&Update::Begin { total: mine.len(), done: before, jobs, threads });
    let mut running: Vec<Job> = Vec::new();
    let mut given_up: BTreeSet<usize> = BTreeSet::new();
    let mut failed = Vec::new();
    let mut asked = None;
    let mut states = board.states();
    loop {
        let ready = mine
            .iter()
            .copied()
            .filter(|&i| states[i] == State::Ready && !given_up.contains(&i) && running.iter().all(|j| j.index != i));
        let free = if stop.is_set() { 0 } else { jobs - running.len() };
        for index in ready.take(free).collect::<Vec<_>>() {
            let job = start(grid, options, &board, index, threads)?;
            tell(&Update::Started { id: board.runs[index].id() });
            running.push(job);
        }
        if running.is_empty() {
            break;
        }
        if stop.is_set() && asked.is_none() {
            // Ctrl-C reaches the whole group of processes; a signal sent to this one alone does not
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
            given_up.insert(job.index);
            if !stop.is_set() && !status.success() {
                let message = last_line(&job.log).unwrap_or_else(|| format!("ended with {status}"));
                tell(&Update::Failed { id: id.clone(), message: message.clone() });
                failed.push((id, message));
            }
        }
        running = still;
    }
    let scored = count(&board, &mine, State::Scored);
    let dropped = count(&board, &mine, State::Dropped);
    Ok(Driven {
        total: mine.len(),
        scored,
        made: scored - before,
        dropped,
        remaining: mine.len() - scored - dropped - failed.len(),
        failed,
        interrupted: stop.is_set(),
    })
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
    // two processes that need the same division would both write it
    spec.split.prepare()?;
    let log = state_dir(&grid.output_dir).join(format!("{}.log", spec.id()));
    let dir = log.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(|e| loram_io::Error::io("create", dir, e))?;
    let file = File::create(&log).map_err(|e| loram_io::Error::io("create", &log, e))?;
    let mut command = Command::new(&options.program);
    command.arg("compare").arg(&grid.path).args(["--only", &spec.id(), "--quiet"]);
    command.args(["--threads", &threads.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    end_with_parent(&mut command);
    let child =
        command.spawn().map_err(|e| Error::Failed(format!("cannot start {}: {e}", options.program.display())))?;
    Ok(Job { index, child, log })
}

/// A run whose driver was killed saves a checkpoint and ends, so that it is not made twice at a time.
#[cfg(target_os = "linux")]
fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl is async-signal-safe and touches nothing of this process
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_: &mut Command) {}

#[cfg(unix)]
fn terminate(child: &Child) {
    // SAFETY: sends a signal to a process that was not waited for, whose id is therefore still its own
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
}

#[cfg(not(unix))]
fn terminate(_: &Child) {}

/// The error that a run ended with: the last line of its messages.
fn last_line(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let line = text.lines().rev().find(|l| !l.trim().is_empty())?;
    Some(line.strip_prefix("error: ").unwrap_or(line).to_string())
}
