//! Ranks that are threads of one process, for tests of everything above an engine.

use loram_train::dist::{Collective, Failure, Lost, ProcessGroup, Wire};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Values that the ranks leave for each other in a round.
#[derive(Debug, Default)]
struct Round {
    number: usize,
    given: Vec<Option<Vec<u8>>>,
    /// The whole round before this one, until its last reader.
    whole: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Shared {
    world: usize,
    round: Mutex<Round>,
    changed: Condvar,
}

/// A rank.
#[derive(Debug)]
struct Thread {
    rank: usize,
    shared: Arc<Shared>,
    lost: Lost,
}

impl Thread {
    /// The bytes of all ranks.
    fn meet(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
        let s = &self.shared;
        let mut round = s.round.lock().unwrap();
        let number = round.number;
        round.given.resize(s.world, None);
        round.given[self.rank] = Some(mine.to_vec());
        if round.given.iter().all(Option::is_some) {
            round.whole = round.given.drain(..).flatten().collect();
            round.number += 1;
            s.changed.notify_all();
        }
        // no rank can end the next round before this one has read: it takes part in it
        while round.number == number {
            self.lost.check()?;
            round = s.changed.wait_timeout(round, Duration::from_millis(10)).unwrap().0;
        }
        Ok(round.whole.clone())
    }
}

impl Collective for Thread {
    fn engine(&self) -> &'static str {
        "threads"
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.shared.world
    }

    fn all_reduce_sum(&self, values: &mut [f32], wire: Wire) -> Result<(), Failure> {
        let sent = |x: f64| match wire {
            Wire::F32 => x as f32,
            Wire::Bf16 => half::bf16::from_f32(x as f32).to_f32(),
        };
        let mine: Vec<u8> = values.iter().flat_map(|&x| sent(f64::from(x)).to_le_bytes()).collect();
        let mut sums = vec![0.0f64; values.len()];
        for bytes in self.meet(&mine)? {
            for (sum, x) in sums.iter_mut().zip(bytes.chunks_exact(4)) {
                *sum += f64::from(f32::from_le_bytes(x.try_into().unwrap()));
            }
        }
        values.iter_mut().zip(sums).for_each(|(v, sum)| *v = sent(sum));
        Ok(())
    }

    fn all_gather(&self, mine: &[u8], all: &mut [u8]) -> Result<(), Failure> {
        all.copy_from_slice(&self.meet(mine)?.concat());
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<(), Failure> {
        bytes.copy_from_slice(&self.meet(bytes)?[root]);
        Ok(())
    }

    fn lost(&self) -> &Lost {
        &self.lost
    }
}

/// A rank that panics ends the others.
struct EndsOthers(usize, Lost);

impl Drop for EndsOthers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.1.note(self.0);
        }
    }
}

/// Runs `work` on `world` ranks, and returns what each of them does.
pub fn ranks<T: Send>(world: usize, work: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
    let shared = Arc::new(Shared { world, round: Mutex::default(), changed: Condvar::new() });
    let lost = Lost::default();
    std::thread::scope(|scope| {
        let start = |rank| {
            let (thread, work) = (Thread { rank, shared: shared.clone(), lost: lost.clone() }, &work);
            let end = EndsOthers(rank, lost.clone());
            scope.spawn(move || {
                let _end = end;
                work(ProcessGroup::new(Box::new(thread)).unwrap())
            })
        };
        let all: Vec<_> = (0..world).map(start).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    })
}
