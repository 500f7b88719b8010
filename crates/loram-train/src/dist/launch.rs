//! Launchers of many processes, recognised by the variables that they give each of them.

use crate::{Error, Result};
use serde::Serialize;

/// The kind of launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Launcher {
    /// `torchrun` of PyTorch, or anything that sets the same variables (Kubeflow's PyTorchJob, `accelerate launch`).
    Torchrun,
    /// `mpirun` of Open MPI.
    OpenMpi,
    /// `mpiexec` of MPICH, Intel MPI and others that speak PMI.
    Pmi,
    /// `srun` of SLURM.
    Slurm,
}

impl Launcher {
    /// The command.
    pub fn name(self) -> &'static str {
        match self {
            Launcher::Torchrun => "torchrun",
            Launcher::OpenMpi => "mpirun (Open MPI)",
            Launcher::Pmi => "mpiexec (PMI)",
            Launcher::Slurm => "srun (SLURM)",
        }
    }

    /// Variables: rank, world size, rank on this machine, ranks on this machine.
    fn variables(self) -> [&'static str; 4] {
        match self {
            Launcher::Torchrun => ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"],
            Launcher::OpenMpi => {
                let [rank, size] = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"];
                [rank, size, "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"]
            }
            Launcher::Pmi => ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"],
            Launcher::Slurm => ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"],
        }
    }
}

/// A process of several, as its launcher describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Launch {
    /// The launcher.
    pub launcher: Launcher,
    /// Number of this process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// Number of this process on its machine; `None` where the launcher does not say.
    pub local_rank: Option<usize>,
    /// Number of processes on this machine; `None` where the launcher does not say.
    pub local_world: Option<usize>,
    /// `MASTER_ADDR` and `MASTER_PORT`: where rank 0 can be reached.
    pub master: Option<(String, u16)>,
}

/// The launcher of a process with these variables; `None`: it was started alone, or by something that is no launcher.
///
/// The innermost launcher counts: torchrun inside srun, mpirun inside a SLURM job. A batch script of SLURM has most of the
/// variables of a step; only a step itself has `SLURM_STEP_ID`.
///
/// # Errors
/// Variables of a launcher that are no numbers, or a rank that is not below the number of processes.
pub fn detect(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Launch>> {
    let both = |l: Launcher| variable(l.variables()[0]).is_some() && variable(l.variables()[1]).is_some();
    let elastic = variable("TORCHELASTIC_RUN_ID").is_some() && both(Launcher::Torchrun);
    let in_order = [
        (Launcher::Torchrun, elastic),
        (Launcher::OpenMpi, both(Launcher::OpenMpi)),
        (Launcher::Pmi, both(Launcher::Pmi)),
        (Launcher::Torchrun, both(Launcher::Torchrun)),
        (Launcher::Slurm, both(Launcher::Slurm) && variable("SLURM_STEP_ID").is_some()),
    ];
    let Some(launcher) = in_order.into_iter().find(|(_, found)| *found).map(|(l, _)| l) else { return Ok(None) };
    let number = |name: &str| -> Result<usize> {
        let text = variable(name).unwrap_or_default();
        text.trim().parse().map_err(|_| {
            Error::Config(format!(
                "{name} is `{text}`, expected a number: {} sets it for each process",
                launcher.name()
            ))
        })
    };
    let [rank, size, local_rank, local_world] = launcher.variables();
    let (found, world) = (number(rank)?, number(size)?);
    if found >= world {
        let what = format!("{rank} is {found}, expected less than {size}, which is {world}");
        return Err(Error::Config(format!("{what}: {} numbers its processes from 0", launcher.name())));
    }
    let optional = |name: &str| variable(name).and_then(|text| leading_number(&text));
    let same_everywhere = launcher != Launcher::Slurm || !variable(local_world).unwrap_or_default().contains(',');
    let port = |p: String| p.trim().parse().ok();
    Ok(Some(Launch {
        launcher,
        rank: found,
        world,
        local_rank: optional(local_rank),
        local_world: optional(local_world).filter(|_| same_everywhere),
        master: variable("MASTER_ADDR").zip(variable("MASTER_PORT").and_then(port)),
    }))
}

impl Launch {
    /// The launcher of this process.
    ///
    /// # Errors
    /// See [`detect`].
    pub fn of_process() -> Result<Option<Launch>> {
        detect(|name| std::env::var(name).ok())
    }

    /// The threads that this process should use, of so many processors that it may run on and so many that the machine has:
    /// its share where it may run on all of them.
    pub fn threads(&self, allowed: usize, online: usize) -> usize {
        let share = |n: usize| (n / self.local_world.unwrap_or(1).max(1)).max(1);
        match allowed < online {
            // bound to some of them, maybe together with others
            true => allowed.min(share(online)),
            false => share(allowed),
        }
    }
}

/// The number at the start of a text such as `2(x3)`, SLURM's two tasks on each of three machines.
fn leading_number(text: &str) -> Option<usize> {
    let text = text.trim();
    text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// Environments of processes, recorded with `env` under each launcher; that of Kubeflow is written after its documentation.
    fn recorded(name: &str) -> Result<Option<Launch>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/launchers").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let all: BTreeMap<&str, &str> = text.lines().filter_map(|l| l.split_once('=')).collect();
        detect(|name| all.get(name).map(|v| v.to_string()))
    }

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Launch>> {
        detect(|name| pairs.iter().find(|p| p.0 == name).map(|p| p.1.to_string()))
    }

    #[test]
    fn recorded_environments_are_recognised() {
        let master = || Some(("127.0.0.1".to_string(), 29500));
        let launch = |launcher, rank, master| {
            Some(Launch { launcher, rank, world: 2, local_rank: Some(rank), local_world: Some(2), master })
        };
        assert_eq!(recorded("torchrun.env").unwrap(), launch(Launcher::Torchrun, 1, master()));
        assert_eq!(recorded("openmpi.env").unwrap(), launch(Launcher::OpenMpi, 1, None));
        assert_eq!(recorded("mpich.env").unwrap(), launch(Launcher::Pmi, 1, None));
        assert_eq!(recorded("srun.env").unwrap(), launch(Launcher::Slurm, 1, None));
        assert_eq!(recorded("sbatch.env").unwrap(), None, "a batch script is one process");
        let kubeflow = recorded("kubeflow.env").unwrap().unwrap();
        assert_eq!((kubeflow.launcher, kubeflow.rank, kubeflow.world), (Launcher::Torchrun, 0, 3));
        assert_eq!((kubeflow.local_rank, kubeflow.master.unwrap().1), (None, 23456));
    }

    #[test]
    fn the_innermost_launcher_counts() {
        let slurm = [("SLURM_PROCID", "3"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_STEP_ID", "0")];
        let torch = [("RANK", "5"), ("WORLD_SIZE", "8"), ("TORCHELASTIC_RUN_ID", "none")];
        let open = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        let rank = |parts: &[&[(&str, &str)]]| of(&parts.concat()).unwrap().unwrap().rank;
        assert_eq!((rank(&[&slurm]), rank(&[&slurm, &torch]), rank(&[&slurm, &open])), (3, 5, 1));
        assert_eq!(of(&[("RANK", "1")]).unwrap(), None, "a variable of that name may be anything");
        assert_eq!(of(&slurm[..2]).unwrap(), None);
    }

    #[test]
    fn wrong_numbers_are_named() {
        let e = of(&[("RANK", "x"), ("WORLD_SIZE", "2")]).unwrap_err().to_string();
        assert!(e.contains("RANK is `x`, expected a number") && e.contains("torchrun"), "{e}");
        let e = of(&[("PMI_RANK", "2"), ("PMI_SIZE", "2")]).unwrap_err().to_string();
        assert!(e.contains("PMI_RANK is 2, expected less than PMI_SIZE, which is 2"), "{e}");
    }

    #[test]
    fn processes_share_the_processors_of_a_machine() {
        let launch = |local_world| Launch {
            launcher: Launcher::OpenMpi,
            rank: 0,
            world: 8,
            local_rank: None,
            local_world,
            master: None,
        };
        assert_eq!(launch(Some(4)).threads(16, 16), 4);
        assert_eq!(launch(None).threads(16, 16), 16);
        assert_eq!(launch(Some(2)).threads(1, 2), 1, "bound to a core");
        assert_eq!(launch(Some(4)).threads(16, 32), 8, "two on each of two sockets");
        assert_eq!(launch(Some(40)).threads(16, 16), 1);
    }

    #[test]
    fn numbers_at_the_start() {
        assert_eq!([leading_number("2(x3)"), leading_number("4"), leading_number("x")], [Some(2), Some(4), None]);
    }
}
