//! What has been done of a grid, what can be done now, and what waits for a round of halving.

use crate::Result;
use crate::choice::{self, Choice};
use crate::grid::{Grid, RunSpec};
use crate::run_folder::check_same;
use crate::scores::Scores;
use loram_train::TrainConfig;
use std::collections::{BTreeMap, BTreeSet};

/// A scored run in short.
#[derive(Debug, Clone)]
pub struct Brief {
    /// What learning rates are chosen on; `None` for a run that diverged.
    pub choice: Option<Choice>,
    /// Seconds of training and scoring.
    pub seconds: f64,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its scores are there.
    Scored,
    /// It can be made now.
    Ready,
    /// It waits for shorter runs, which decide whether it is made.
    Waiting,
    /// Shorter runs decided against it.
    Dropped,
}

/// All runs of a grid and what is known of them.
pub struct Board {
    /// The runs.
    pub runs: Vec<RunSpec>,
    /// What is known of each.
    scored: Vec<Option<Brief>>,
    /// Runs that differ in learning rate and seed only, in the order of their names.
    groups: Vec<Vec<usize>>,
    factor: usize,
    rounds: usize,
}

/// A share of a grid: part `index` (from 1) of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Board {
    /// Looks at every run folder of the grid.
    pub fn new(grid: &Grid) -> Result<Board> {
        let runs = grid.runs()?;
        let (factor, rounds) = grid.halving.map_or((1, 0), |h| (h.factor, h.rounds));
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, RunSpec { point: p, .. }) in runs.iter().enumerate() {
            let name = format!("{} {} {} {:?} {:?}", p.model, p.task, p.arm, p.r, p.others);
            groups.entry(name).or_default().push(i);
        }
        let scored = vec![None; runs.len()];
        let mut board = Board { runs, scored, groups: groups.into_values().collect(), factor, rounds };
        for i in 0..board.runs.len() {
            board.look(i)?;
        }
        Ok(board)
    }

    /// A configuration for each model, by its name in the grid.
    pub fn models(&self) -> BTreeMap<&str, &TrainConfig> {
        self.runs.iter().map(|s| (s.point.model.as_str(), &s.config)).collect()
    }

    /// Looks at the folder of a run again; gives whether it is scored.
    pub fn look(&mut self, i: usize) -> Result<bool> {
        let spec = &self.runs[i];
        let Some(s) = Scores::read(&spec.config.output_dir)? else { return Ok(false) };
        check_same(spec, &spec.config.output_dir)?;
        let brief = Brief { choice: Choice::of(&s), seconds: s.cost.train_seconds + s.cost.score_seconds };
        self.scored[i] = Some(brief);
        Ok(true)
    }

    /// What is known of a scored run.
    pub fn brief(&self, i: usize) -> Option<&Brief> {
        self.scored[i].as_ref()
    }

    /// Where every run is.
    pub fn states(&self) -> Vec<State> {
        let mut out = vec![State::Waiting; self.runs.len()];
        for members in &self.groups {
            self.group_states(members, &mut out);
        }
        out
    }

    fn group_states(&self, members: &[usize], out: &mut [State]) {
        // rates that are still in, round after round; all of them at first
        let mut rates: Option<BTreeSet<u64>> = None;
        for round in 0..=self.rounds {
            let rung = (round < self.rounds).then_some(round);
            let of_round: Vec<usize> = members.iter().copied().filter(|&i| self.runs[i].point.rung == rung).collect();
            let mut done = true;
            for &i in &of_round {
                let within = rates.as_ref().is_none_or(|r| r.contains(&self.rate(i)));
                out[i] = match (self.brief(i).is_some(), within) {
                    (true, _) => State::Scored,
                    (false, true) => State::Ready,
                    (false, false) => State::Dropped,
                };
                done &= out[i] != State::Ready;
            }
            if !done {
                return;
            }
            if rung.is_some() {
                rates = Some(self.survivors(&of_round, rates.as_ref()));
            }
        }
    }

    fn rate(&self, i: usize) -> u64 {
        self.runs[i].point.learning_rate.to_bits()
    }

    /// The best rates of a finished round.
    fn survivors(&self, round: &[usize], rates: Option<&BTreeSet<u64>>) -> BTreeSet<u64> {
        let mut list: Vec<usize> =
            round.iter().copied().filter(|&i| rates.is_none_or(|r| r.contains(&self.rate(i)))).collect();
        let of = |i: usize| self.brief(i).and_then(|b| b.choice);
        list.sort_by(|&a, &b| choice::cmp(of(a), of(b), &self.runs[a].score));
        list.truncate(list.len().div_ceil(self.factor));
        list.into_iter().map(|i| self.rate(i)).collect()
    }

    /// The runs of a shard. With halving, all rates of an arm go to the same one, for they decide over each other.
    pub fn shard(&self, shard: Option<Shard>) -> Vec<usize> {
        let Some(shard) = shard else { return (0..self.runs.len()).collect() };
        let ours = |n: usize| n % shard.of == shard.index - 1;
        match self.rounds {
            0 => (0..self.runs.len()).filter(|&i| ours(i)).collect(),
            _ => {
                let groups = self.groups.iter().enumerate().filter(|(n, _)| ours(*n));
                let mut out: Vec<usize> = groups.flat_map(|(_, members)| members.iter().copied()).collect();
                out.sort_unstable();
                out
            }
        }
    }

    /// The best score so far on the model and task of a run, and the run that has it.
    pub fn best(&self, like: usize) -> Option<(usize, f64)> {
        let p = &self.runs[like].point;
        let same = |i: &usize| {
            let q = &self.runs[*i].point;
            q.rung.is_none() && (&q.model, &q.task) == (&p.model, &p.task)
        };
        let scored = (0..self.runs.len()).filter(same).filter_map(|i| Some((i, self.brief(i)?.choice?)));
        scored.min_by(|a, b| a.1.cmp(&b.1, &self.runs[like].score)).map(|(i, c)| (i, c.score))
    }

    /// Estimated seconds of these runs, one after another: each takes what a step of scored runs of the same model, task and
    /// round takes, else of the same model and task, else of all; of those that wait for shorter runs, a share is made.
    /// `None` before the first run is scored.
    pub fn expected_seconds(&self, runs: &[usize], states: &[State]) -> Option<f64> {
        type Key<'a> = Option<(&'a str, &'a str, Option<Option<usize>>)>;
        let keys = |i: usize| -> [Key<'_>; 3] {
            let p = &self.runs[i].point;
            [Some((&p.model, &p.task, Some(p.rung))), Some((&p.model, &p.task, None)), None]
        };
        let steps = |i: usize| self.runs[i].config.max_steps.unwrap_or(1).max(1) as f64;
        let mut known: BTreeMap<Key<'_>, (f64, f64)> = BTreeMap::new();
        for i in 0..self.runs.len() {
            let Some(brief) = self.brief(i).filter(|b| b.seconds > 0.0) else { continue };
            for key in keys(i) {
                let sum = known.entry(key).or_default();
                *sum = (sum.0 + brief.seconds, sum.1 + steps(i));
            }
        }
        let of = |i: usize| keys(i).iter().find_map(|k| known.get(k)).map(|(seconds, made)| seconds / made * steps(i));
        let share = |i: usize| match states[i] {
            State::Ready => 1.0,
            State::Waiting => {
                let rounds = self.runs[i].point.rung.unwrap_or(self.rounds) as i32;
                (self.factor as f64).powi(-rounds)
            }
            State::Scored | State::Dropped => 0.0,
        };
        runs.iter().map(|&i| Some(of(i)? * share(i))).sum()
    }
}
