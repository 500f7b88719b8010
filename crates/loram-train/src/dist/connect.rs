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
        return Err(lacks(launch, "nccl", "GPUs"));
    }
    #[cfg(feature = "mpi")]
    return join_by_mpi(launch);
    #[cfg(not(feature = "mpi"))]
    Err(lacks(launch, "mpi", "CPUs"))
}

/// The error of a build that cannot join the processes: each of them would train the whole run.
fn lacks(launch: &Launch, feature: &str, devices: &str) -> Error {
    let what = format!(
        "{} started {} processes of this run, and this build of loram cannot join them: for {devices} it needs the feature \
         `{feature}` (cargo install --path crates/loram-cli --features {feature}; docs/distributed.md). To run one process, \
         leave the launcher out",
        launch.launcher.name(),
        launch.world
    );
    Error::Rank { what, code: 2, diverged: false, told: launch.rank > 0 }
}

#[cfg(feature = "mpi")]
fn join_by_mpi(launch: &Launch) -> Result<ProcessGroup> {
    use super::launch::Launcher;
    let engine = super::mpi::Mpi::start()?;
    let found = super::collective::Collective::world(&engine);
    if found != launch.world {
        let hint = match launch.launcher {
            Launcher::Torchrun => "torchrun is for GPUs (feature `nccl`): on CPUs start them with mpirun or srun",
            Launcher::Slurm => {
                "srun needs the PMI of this MPI: srun --mpi=pmix or --mpi=pmi2 (srun --mpi=list), or mpirun"
            }
            Launcher::OpenMpi | Launcher::Pmi => "start them with the mpirun of the MPI that loram was built with",
        };
        let what =
            format!("{} started {} processes, but MPI joins {found}: {hint}", launch.launcher.name(), launch.world);
        return Err(Error::Rank { what, code: 2, diverged: false, told: launch.rank > 0 });
    }
    let group = ProcessGroup::new(Box::new(engine))?;
    group.watch()?;
    Ok(group)
}
