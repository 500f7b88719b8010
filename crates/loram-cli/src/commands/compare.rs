//! `loram compare`: trains a grid of runs.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::{count, duration, several};
use crate::program::program;
use crate::progress::Show;
use crate::ranks;
use crate::signals;
use crate::table::{Side, facts, table};
use clap::Args;
use clap::builder::TypedValueParser;
use loram_lab::job::{self, Done};
use loram_lab::{BUSY, Board, DriveOptions, Driven, Grid, GridPlan, Shard, State, Update, drive, gather, plan_grid};
use loram_train::StopFlag;
use loram_train::shell::quoted;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `loram compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Grid file: keys of a training configuration, plus schemes, models and tasks (docs/comparing.md)
    #[arg(value_name = "GRID.yaml")]
    pub grid: PathBuf,
    /// Number of concurrent runs, which share the cores [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub jobs: Option<usize>,
    /// Count the runs and estimate their time from a few trial steps, then exit
    #[arg(long, visible_alias = "dry-run")]
    pub plan: bool,
    /// Print a command for each remaining run, then exit
    #[arg(long, conflicts_with = "plan")]
    pub list: bool,
    /// Work only on part I of N, to share a grid among machines
    #[arg(long, value_name = "I/N", value_parser = shard)]
    pub shard: Option<Shard>,
    /// Start each run with this launcher, to train it over several processes, such as "mpirun -n 2"
    #[arg(long, value_name = "COMMAND")]
    pub launcher: Option<String>,
    /// Train a single run in this process; exit code 75 if another process makes it
    #[arg(long, value_name = "RUN", conflicts_with_all = ["plan", "list", "shard"])]
    pub only: Option<String>,
    /// Copy the scored runs from these output folders into the grid's own, then exit
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with_all = ["plan", "list", "shard", "only"])]
    pub gather: Vec<PathBuf>,
}

/// Returns the exit code: 129, 130 or 143 if a signal stopped the runs, 1 if some were not made.
pub fn run(args: &CompareArgs, threads: Option<usize>, console: &Console) -> Result<i32> {
    let grid = Grid::from_file(&args.grid)?;
    let options = DriveOptions {
        program: std::env::current_exe().map_err(|e| Error::Failed(format!("cannot find this program: {e}")))?,
        cores: threads.unwrap_or_else(rayon::current_num_threads),
        jobs: args.jobs,
        shard: args.shard,
        launcher: args.launcher.iter().flat_map(|l| l.split_whitespace()).map(str::to_string).collect(),
    };
    if let Some(id) = &args.only {
        return only(&grid, id, console);
    }
    if args.list {
        return list(args, &grid, console).map(|()| 0);
    }
    if !args.gather.is_empty() {
        let g = gather(&grid, &args.gather)?;
        let text = || {
            facts(&[
                ("copied", several(g.copied as u64, "run")),
                ("already there", count(g.there as u64)),
                ("skipped", format!("{} (of another grid, or not scored)", count(g.left_out as u64))),
                ("missing", count(g.missing as u64)),
            ])
        };
        console.result(text, &g)?;
        return Ok(if g.missing == 0 { 0 } else { 1 });
    }
    if args.plan {
        let (jobs, threads) = options.layout(&grid);
        let found = plan_grid(&grid, jobs, threads, &mut |line| console.say(line))?;
        return console.result(|| plan_text(&found), &found).map(|()| 0);
    }
    all(&grid, &options, console)
}

/// Trains all remaining runs.
fn all(grid: &Grid, options: &DriveOptions, console: &Console) -> Result<i32> {
    let stop = StopFlag::default();
    signals::stop_gently(stop.shared(), console.note())?;
    let done = drive(grid, options, &stop, &mut |update| tell(update, console))?;
    let json = json!({
        "output_dir": grid.output_dir,
        "total": done.total,
        "scored": done.scored,
        "made": done.made,
        "dropped": done.dropped,
        "remaining": done.remaining,
        "failed": done.failed.iter().map(|(id, why)| json!({"run": id, "error": why})).collect::<Vec<_>>(),
        "missing": done.missing,
        "interrupted": done.interrupted,
    });
    console.result(|| done_text(grid, &done), &json)?;
    if !done.missing.is_empty() && !done.interrupted {
        console.warn(format!("not made: {}", done.missing.join(", ")));
    }
    Ok(match (done.interrupted, done.missing.is_empty()) {
        (true, _) => signals::exit_code(),
        (false, false) => 1,
        _ => 0,
    })
}

fn tell(update: &Update, console: &Console) {
    match update {
        Update::Begin { total, done, jobs, threads } => console.say(format!(
            "{}, {} already scored; {} at a time with {} each",
            several(*total as u64, "run"),
            count(*done as u64),
            count(*jobs as u64),
            several(*threads as u64, "thread")
        )),
        Update::Started { id } if console.is_verbose() => console.say(format!("started  {id}")),
        Update::Started { .. } => {}
        Update::Scored { id, selection, metric, done, total, best, left } => {
            let found = selection.map_or("diverged".to_string(), |x| format!("{metric} {x:.4}"));
            let best = best.as_ref().map_or(String::new(), |(id, x)| format!("  best so far {x:.4} {id}"));
            let left = left.filter(|_| done < total).map_or(String::new(), |s| format!("  {} left", duration(s)));
            console.say(format!("{done}/{total}  {id}  {found}{best}{left}"));
        }
        Update::Busy { id, holder } => console.say(format!("waiting for {id}: {holder} makes it")),
        Update::Failed { id, message } => console.warn(format!("{id}: {message}")),
    }
}

fn done_text(grid: &Grid, d: &Driven) -> String {
    let mut rows = vec![("runs", format!("{} of {} scored, {} by this command", d.scored, d.total, d.made))];
    if d.dropped > 0 {
        rows.push(("dropped", format!("{} by successive halving", d.dropped)));
    }
    if d.remaining > 0 {
        rows.push(("remaining", format!("{}: run the same command again to resume", d.remaining)));
    }
    if !d.failed.is_empty() {
        rows.push(("failed", format!("{}: their folders are kept; run the same command to retry", d.failed.len())));
    }
    rows.push(("folder", grid.output_dir.display().to_string()));
    let report = grid.output_dir.join("report.html");
    let words = [&grid.output_dir, &report].map(|p| quoted(&p.display().to_string()));
    facts(&rows) + &format!("\nnext:\n  {} report {} -o {}\n", program(), words[0], words[1])
}

/// Trains one run in this process.
fn only(grid: &Grid, id: &str, console: &Console) -> Result<i32> {
    let runs = grid.runs()?;
    let Some(spec) = runs.iter().find(|s| s.id() == id) else {
        return Err(Error::Usage(format!("--only: the grid has no run `{id}`; --list prints the remaining ones")));
    };
    let (_, group) = ranks::join(Ok(spec.config.clone()), console)?;
    let stop = StopFlag::default();
    signals::stop_gently(stop.shared(), console.note())?;
    let mut show = Show::new(console);
    let done = job::run(spec, &grid.output_dir, grid.keep, &group, &stop, &mut show)?;
    show.clear();
    let (what, code) = match &done {
        Done::Scored => ("scored".to_string(), 0),
        Done::Before => ("already scored".into(), 0),
        Done::Interrupted => ("stopped by a signal".into(), signals::exit_code()),
        Done::Busy(holder) => (format!("not made here: {holder} makes it"), BUSY),
    };
    let folder = &spec.config.output_dir;
    console.result(
        || facts(&[("run", id.to_string()), ("state", what.clone()), ("folder", folder.display().to_string())]),
        &json!({"run": id, "state": what, "folder": folder}),
    )?;
    Ok(code)
}

/// Prints commands for the runs that can start now, one per line.
fn list(args: &CompareArgs, grid: &Grid, console: &Console) -> Result<()> {
    let board = Board::new(grid)?;
    let states = board.states();
    let mine = board.shard(args.shard);
    let ready = mine.iter().filter(|&&i| states[i] == State::Ready).map(|&i| board.runs[i].id());
    let commands: Vec<(String, String)> = ready.map(|id| (command(&args.grid, &id), id)).collect();
    let waiting = mine.iter().filter(|&&i| states[i] == State::Waiting).count();
    if waiting > 0 {
        console.say(format!("{waiting} more wait for the results of these (successive halving)"));
    }
    let json = json!({
        "ready": commands.iter().map(|(c, id)| json!({"run": id, "command": c})).collect::<Vec<_>>(),
        "waiting": waiting,
    });
    console.result(|| commands.iter().map(|(c, _)| format!("{c}\n")).collect(), &json)
}

fn command(grid: &Path, id: &str) -> String {
    format!("{} compare {} --only {id}", program(), quoted(&grid.display().to_string()))
}

fn plan_text(p: &GridPlan) -> String {
    let heading = [
        ("model", Side::Left),
        ("task", Side::Left),
        ("r", Side::Right),
        ("runs", Side::Right),
        ("done", Side::Right),
        ("steps", Side::Right),
        ("s/run", Side::Right),
        ("minutes", Side::Right),
        ("from", Side::Left),
    ];
    let row = |r: &loram_lab::PlanRow| {
        vec![
            r.model.clone(),
            r.task.clone(),
            r.rank.clone(),
            r.runs.to_string(),
            r.done.to_string(),
            r.steps.to_string(),
            format!("{:.1}", r.seconds),
            format!("{:.1}", r.total_seconds / 60.0),
            if r.measured { "runs" } else { "a trial" }.into(),
        ]
    };
    let runs: usize = p.rows.iter().map(|r| r.runs).sum();
    let left: usize = p.rows.iter().map(|r| r.left).sum();
    table(&heading, &p.rows.iter().map(row).collect::<Vec<_>>())
        + &format!(
            "\n{}, {left} remaining: about {} with {} at a time and {} each (minutes above: one after another)\n",
            several(runs as u64, "run"),
            duration(p.seconds),
            p.jobs,
            several(p.threads as u64, "thread")
        )
}

/// Parses `i/n`.
fn shard(text: &str) -> std::result::Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parts {
        Some((index, of)) if index >= 1 && index <= of => Ok(Shard { index, of }),
        _ => Err("expected i/n with 1 ≤ i ≤ n, such as 2/8".into()),
    }
}
