//! The engine that joins the processes of a launcher.

use super::group::ProcessGroup;
use super::launch::Launch;
use crate::{Error, Result};

/// Features of this build that join processes, with true for those that it has.
pub fn features() -> [(&'static str, bool); 1] {
    [("mpi", cfg!(feature = "mpi"))]
}

/// Joins the processes of a launcher; a single process is a group of its own. `on_gpu`: the run is on GPUs.
///
/// # Errors
/// Several processes, and no engine in this build that joins them; a failure of the engine.
pub fn connect(launch: Option<&Launch>, on_gpu: bool) -> Result<ProcessGroup> {
    let Some(launch) = launch.filter(|l| l.world > 1) else { return Ok(ProcessGroup::default()) };
    if on_gpu {
        return Err(refused(
            launch,
            "one run on several GPUs is not supported: train on one GPU, spread the runs of a grid over GPUs (loram compare \
             --shard), or set device: cpu",
        ));
    }
    #[cfg(feature = "mpi")]
    return join_by_mpi(launch);
    #[cfg(not(feature = "mpi"))]
    Err(refused(
        launch,
        "this build of loram cannot join them: it lacks the feature `mpi` (cargo install --locked --path crates/loram-cli --features \
         mpi; docs/distributed.md). To run one process, leave the launcher out",
    ))
}

/// The error where processes cannot be joined: each of them would train the whole run.
fn refused(launch: &Launch, why: &str) -> Error {
    let what = format!("{} started {} processes of this run: {why}", launch.launcher.name(), launch.world);
    Error::Rank { what, code: 2, diverged: false, told: launch.rank > 0 }
}

#[cfg(feature = "mpi")]
fn join_by_mpi(launch: &Launch) -> Result<ProcessGroup> {
    use super::launch::Launcher;
    let engine = super::mpi::Mpi::start()?;
    let found = super::collective::Collective::world(&engine);
    if found != launch.world {
        let hint = match launch.launcher {
            Launcher::Torchrun => "MPI does not see the processes of torchrun: start them with mpirun or srun",
            Launcher::Slurm => {
                "srun needs the PMI of this MPI: srun --mpi=pmix or --mpi=pmi2 (srun --mpi=list), or mpirun"
            }
            Launcher::OpenMpi | Launcher::Pmi => "start them with the mpirun of the MPI that loram was built with",
        };
        return Err(refused(launch, &format!("MPI joins {found} of them; {hint}")));
    }
    let group = ProcessGroup::new(Box::new(engine))?;
    group.watch()?;
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::Launcher;

    fn launch(rank: usize, world: usize) -> Launch {
        Launch { launcher: Launcher::OpenMpi, rank, world, local_rank: None, local_world: None, master: None }
    }

    #[test]
    fn one_process_is_a_group_of_its_own() {
        assert!(connect(None, false).unwrap().is_solo());
        assert!(connect(Some(&launch(0, 1)), true).unwrap().is_solo());
    }

    #[test]
    fn processes_that_cannot_be_joined_are_refused_once() {
        let e = [0, 1].map(|rank| connect(Some(&launch(rank, 2)), true).unwrap_err());
        assert!(e[0].to_string().starts_with("mpirun (Open MPI) started 2 processes of this run: "), "{}", e[0]);
        assert_eq!(e.each_ref().map(Error::is_told_elsewhere), [false, true]);
        assert_eq!(e[1].exit_code(), 2);
        #[cfg(not(feature = "mpi"))]
        {
            let e = connect(Some(&launch(0, 2)), false).unwrap_err().to_string();
            assert!(e.contains("lacks the feature `mpi`") && e.contains("--features mpi"), "{e}");
        }
    }
}
