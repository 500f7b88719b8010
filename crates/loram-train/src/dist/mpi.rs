//! MPI between the ranks of a run.
//!
//! Sums do not use `MPI_Allreduce`: the standard only recommends that it gives the same result again, and its order of terms
//! follows the implementation, the size and the placement of ranks. Instead each rank receives its share of the buffer from
//! all others (`MPI_Alltoall`), adds the terms in the order of ranks, and sends the sums to all (`MPI_Allgather`). That moves
//! 2·(world − 1)/world of the buffer per rank, the least that any algorithm can (Patarasuk and Yuan 2009).

use super::collective::{Collective, Failure, Lost, Wire};
use crate::{Error, Result};
use half::bf16;
use mpi::Threading;
use mpi::datatype::Equivalence;
use mpi::environment::Universe;
use mpi::ffi;
use mpi::raw::AsRaw;
use mpi::topology::Communicator;
use std::ffi::c_void;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::time::{Duration, Instant};

/// Values that are summed at a time: a few buffers of this size are all that a sum of any length needs.
const BLOCK: usize = 4 << 20;
/// Bytes of one message, which MPI counts in an `int`.
const MESSAGE: usize = 1 << 30;
/// After this time of waiting a rank leaves its core to others between two looks: rank 0 may be saving a checkpoint.
const PATIENCE: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_micros(200);

/// The processes that `mpirun` or `srun` started.
pub struct Mpi {
    universe: ManuallyDrop<Universe>,
    rank: usize,
    world: usize,
    lost: Lost,
}

impl std::fmt::Debug for Mpi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank).field("world", &self.world).finish_non_exhaustive()
    }
}

impl Mpi {
    /// Joins the processes of this launch. Errors: MPI was started before in this process.
    pub fn start() -> Result<Mpi> {
        let Some((universe, _)) = mpi::initialize_with_threading(Threading::Serialized) else {
            return Err(Error::Config("MPI cannot be started twice in one process".into()));
        };
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        Ok(Mpi { universe: ManuallyDrop::new(universe), rank, world: size, lost: Lost::default() })
    }

    /// Begins an operation and waits for its end, or until a rank is gone. `begin` gets the communicator and where the request
    /// goes, and returns MPI's error code.
    fn wait(
        &self,
        begin: impl FnOnce(ffi::MPI_Comm, *mut ffi::MPI_Request) -> i32,
    ) -> std::result::Result<(), Failure> {
        let checked = |code: i32| match code {
            0 => Ok(()),
            code => Err(Failure::Engine(format!("error code {code}"))),
        };
        self.lost.check()?;
        let mut request = MaybeUninit::<ffi::MPI_Request>::uninit();
        checked(begin(self.universe.world().as_raw(), request.as_mut_ptr()))?;
        // SAFETY: the operation has begun without an error, so that it has written its request
        let mut request = unsafe { request.assume_init() };
        let begun = Instant::now();
        loop {
            let (mut done, mut status) = (0, MaybeUninit::<ffi::MPI_Status>::uninit());
            // SAFETY: the request is one that was begun and has not ended; the other pointers are to locals
            checked(unsafe { ffi::MPI_Test(&mut request, &mut done, status.as_mut_ptr()) })?;
            if done != 0 {
                return Ok(());
            }
            self.lost.check()?;
            match begun.elapsed() < PATIENCE {
                true => std::thread::yield_now(),
                false => std::thread::sleep(PAUSE),
            }
        }
    }

    /// All ranks' parts of equal size in the order of ranks, into `all`.
    fn gather<T: Equivalence + Copy>(&self, mine: Vec<T>, all: Vec<T>) -> std::result::Result<Vec<T>, Failure> {
        let (mine, mut all) = (ManuallyDrop::new(mine), ManuallyDrop::new(all));
        let (n, of) = (mine.len() as i32, T::equivalent_datatype());
        self.wait(|world, request| {
            let (from, to) = (mine.as_ptr().cast::<c_void>(), all.as_mut_ptr().cast::<c_void>());
            // SAFETY: `all` has room for `n` values of each rank, and both buffers live until the operation has ended: they
            // are given up where it fails
            unsafe { ffi::MPI_Iallgather(from, n, of.as_raw(), to, n, of.as_raw(), world, request) }
        })?;
        drop(ManuallyDrop::into_inner(mine));
        Ok(ManuallyDrop::into_inner(all))
    }

    /// This rank's part of the values of every rank, in the order of ranks: each rank has `parts` of equal size for all.
    fn exchange<T: Equivalence + Copy + Default>(&self, parts: Vec<T>) -> std::result::Result<Vec<T>, Failure> {
        let n = (parts.len() / self.world) as i32;
        let received = vec![T::default(); parts.len()];
        let (parts, mut received) = (ManuallyDrop::new(parts), ManuallyDrop::new(received));
        let of = T::equivalent_datatype();
        self.wait(|world, request| {
            let (from, to) = (parts.as_ptr().cast::<c_void>(), received.as_mut_ptr().cast::<c_void>());
            // SAFETY: both buffers have `n` values for each rank, and live until the operation has ended: they are given up where
            // it fails
            unsafe { ffi::MPI_Ialltoall(from, n, of.as_raw(), to, n, of.as_raw(), world, request) }
        })?;
        drop(ManuallyDrop::into_inner(parts));
        Ok(ManuallyDrop::into_inner(received))
    }

    /// Sums a block over all ranks, in numbers that travel as `T`.
    fn sum_block<T: Equivalence + Copy + Default>(
        &self,
        block: &mut [f32],
        narrow: impl Fn(f32) -> T,
        widen: impl Fn(T) -> f32,
    ) -> std::result::Result<(), Failure> {
        let share = block.len().div_ceil(self.world);
        let mut parts: Vec<T> = block.iter().map(|&x| narrow(x)).collect();
        parts.resize(share * self.world, T::default());
        let received = self.exchange(parts)?;
        let mut sums = vec![0.0f64; share];
        for part in received.chunks_exact(share) {
            sums.iter_mut().zip(part).for_each(|(sum, &x)| *sum += f64::from(widen(x)));
        }
        let sums = sums.into_iter().map(|x| narrow(x as f32)).collect();
        let all = self.gather(sums, received)?;
        block.iter_mut().zip(all).for_each(|(to, x)| *to = widen(x));
        Ok(())
    }
}

impl Collective for Mpi {
    fn engine(&self) -> &'static str {
        "MPI"
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn all_reduce_sum(&self, values: &mut [f32], wire: Wire) -> std::result::Result<(), Failure> {
        values.chunks_mut(BLOCK).try_for_each(|block| match wire {
            Wire::F32 => self.sum_block(block, |x| x, |x| x),
            Wire::Bf16 => self.sum_block(block, |x| bf16::from_f32(x).to_bits(), |x| bf16::from_bits(x).to_f32()),
        })
    }

    fn all_gather(&self, mine: &[u8], all: &mut [u8]) -> std::result::Result<(), Failure> {
        let gathered = |from: usize, to: usize| self.gather(mine[from..to].to_vec(), vec![0; (to - from) * self.world]);
        for from in (0..mine.len()).step_by(MESSAGE) {
            let to = (from + MESSAGE).min(mine.len());
            for (rank, part) in gathered(from, to)?.chunks_exact(to - from).enumerate() {
                all[rank * mine.len()..][from..to].copy_from_slice(part);
            }
        }
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> std::result::Result<(), Failure> {
        for part in bytes.chunks_mut(MESSAGE) {
            let mut buffer = ManuallyDrop::new(part.to_vec());
            let of = u8::equivalent_datatype();
            self.wait(|world, request| {
                let at = buffer.as_mut_ptr().cast::<c_void>();
                // SAFETY: the buffer has as many bytes on every rank, and lives until the operation has ended
                unsafe { ffi::MPI_Ibcast(at, part.len() as i32, of.as_raw(), root as i32, world, request) }
            })?;
            part.copy_from_slice(&ManuallyDrop::into_inner(buffer));
        }
        Ok(())
    }

    fn lost(&self) -> &Lost {
        &self.lost
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // MPI_Finalize waits for all ranks: one that is gone, or a panic here, would make it wait for ever
        if self.lost.rank().is_none() && !std::thread::panicking() {
            // SAFETY: this is the only place that drops it, once
            unsafe { ManuallyDrop::drop(&mut self.universe) }
        }
    }
}
