//! The processes of a run that a launcher started: mpirun, srun, torchrun.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::table::facts;
use clap::ArgMatches;
use loram_io::error::human_bytes;
use loram_train::config::{DeviceKind, TrainConfig};
use loram_train::device;
use loram_train::dist::{Launch, ProcessGroup, Wire, connect, features};
use serde_json::json;
use std::time::Instant;

/// Values that `--dist-info` sums over the ranks, and how often.
const SUMS: [usize; 3] = [1 << 18, 1 << 22, 1 << 24];
const REPEATS: usize = 5;

/// The number of threads of this process, where the user gives none; 0: one for each processor.
pub fn threads() -> usize {
    let Ok(Some(launch)) = Launch::of_process() else { return 0 };
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    launch.threads(allowed, loram_train::system::online_processors().unwrap_or(allowed))
}

/// Joins the processes that the launcher started, with the configuration of this one: all ranks go on with theirs, or all end
/// with the error of one. Only rank 0 writes to the terminal.
pub fn join(config: Result<TrainConfig>, console: &Console) -> Result<(TrainConfig, ProcessGroup)> {
    let launch = Launch::of_process()?;
    if launch.as_ref().is_some_and(|l| l.rank > 0) {
        console.mute();
    }
    let kind = config.as_ref().map_or(DeviceKind::Auto, |c| c.device);
    let on_gpu = device::compute(kind).is_ok_and(|c| c.on_gpu());
    let group = connect(launch.as_ref(), on_gpu)?;
    let config = group.agree(config.map_err(of_run))?;
    Ok((config, group))
}

/// An error as one that a run may have, which all ranks can return.
fn of_run(e: Error) -> loram_train::Error {
    match e {
        Error::Train(e) => e,
        Error::Io(e) => e.into(),
        Error::Core(e) => e.into(),
        other => loram_train::Error::Config(other.to_string()),
    }
}

/// Commands whose processes work together, and those that only print.
const TOGETHER: [&str; 2] = ["train", "eval"];
const PRINT: [&str; 8] = ["info", "verify", "schemes", "doctor", "completions", "man", "docs", "help"];

/// An error where a launcher started several processes of a command that is for one: all would do the same.
pub fn check_command(matches: &ArgMatches) -> Result<()> {
    let Some((command, own)) = matches.subcommand() else { return Ok(()) };
    let one_run = command == "compare" && own.get_one::<String>("only").is_some();
    if one_run || TOGETHER.contains(&command) || PRINT.contains(&command) {
        return Ok(());
    }
    let instead = match command {
        "compare" => {
            "start it once, with --launcher \"mpirun -n 2\" for runs of several processes, or share the grid with --shard"
        }
        _ => "start it without the launcher",
    };
    match Launch::of_process()? {
        Some(l) if l.world > 1 => {
            let launcher = l.launcher.name();
            let what = format!("{launcher} started {} processes, and loram {command} is one: {instead}", l.world);
            Err(loram_train::Error::Rank { what, code: 2, diverged: false, told: l.rank > 0 }.into())
        }
        _ => Ok(()),
    }
}

/// The output of `--dist-info`: the launcher that was found, and the ranks where this build can join them.
pub fn info(config: Result<TrainConfig>, console: &Console) -> Result<()> {
    let launch = Launch::of_process()?;
    let (_, group) = match &launch {
        // what was found is shown even where the processes cannot be joined
        Some(l) if l.world > 1 && !features().iter().any(|f| f.1) => {
            let (rank, world) = (l.rank, l.world);
            console.say(format!("{}: rank {rank} of {world}; this build cannot join them", l.launcher.name()));
            join(config, console)?
        }
        _ => join(config, console)?,
    };
    let built: Vec<&str> = features().into_iter().filter(|f| f.1).map(|f| f.0).collect();
    let numbered = group.hosts().iter().enumerate();
    let hosts: Vec<String> = numbered.map(|(rank, host)| format!("{rank} on {host}")).collect();
    let threads = rayon::current_num_threads();
    let sums = if group.is_solo() { Vec::new() } else { time_sums(&group)? };
    let text = || {
        let mut rows =
            vec![("features", if built.is_empty() { "none (mpi joins processes)".into() } else { built.join(", ") })];
        match &launch {
            None => rows.push(("launcher", "none: one process".into())),
            Some(l) => {
                rows.push(("launcher", l.launcher.name().into()));
                rows.push(("ranks", hosts.join(", ")));
                rows.push(("engine", group.collective().engine().into()));
                let sum = |&(bytes, seconds): &(usize, f64)| {
                    format!("{} in {:.1} ms", human_bytes(bytes as u64), 1e3 * seconds)
                };
                rows.push(("sums", sums.iter().map(sum).collect::<Vec<_>>().join(", ")));
            }
        }
        rows.push(("threads", format!("{threads} on rank 0")));
        facts(&rows)
    };
    let json = json!({
        "features": built, "launch": launch, "engine": group.collective().engine(), "hosts": group.hosts(),
        "threads": threads,
        "sums": sums.iter().map(|(bytes, seconds)| json!({"bytes": bytes, "seconds": seconds})).collect::<Vec<_>>(),
    });
    if group.is_first() { console.result(text, &json) } else { Ok(()) }
}

/// Bytes and median seconds of sums over the ranks, as a training step has one of its gradients.
fn time_sums(group: &ProcessGroup) -> Result<Vec<(usize, f64)>> {
    let mut found = Vec::new();
    for n in SUMS {
        let mut values = vec![1e-3; n];
        let mut seconds = Vec::new();
        for _ in 0..=REPEATS {
            let begun = Instant::now();
            group.sum(&mut values, Wire::F32, Default::default())?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        // the first one makes connections
        seconds.remove(0);
        seconds.sort_by(f64::total_cmp);
        found.push((4 * n, seconds[REPEATS / 2]));
    }
    Ok(found)
}

/// True for an error that another rank shows.
pub fn is_told_elsewhere(e: &Error) -> bool {
    matches!(e, Error::Train(e) if e.is_told_elsewhere())
}
