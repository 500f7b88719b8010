//! The state of every run of a grid: scored, ready, or waiting for a round of halving.

use crate::Result;
use crate::choice::{self, Choice};
use crate::grid::{Grid, Halving, RunSpec};
use crate::run_folder::check_same;
use crate::scores::Scores;
use loram_train::TrainConfig;
use loram_train::config::LearningRate;
use std::collections::{BTreeMap, BTreeSet};

/// Summary of a scored run.
#[derive(Debug, Clone)]
pub struct Brief {
    /// The figures that learning rates are chosen by; `None` for a run that diverged.
    pub choice: Option<Choice>,
    /// Seconds of training and scoring.
    pub seconds: f64,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is scored.
    Scored,
    /// It can be run now.
    Ready,
    /// It waits for short runs, which decide if it is run.
    Waiting,
    /// Short runs decided against it.
    Dropped,
}

/// All runs of a grid with their states.
pub struct Board {
    /// The runs.
    pub runs: Vec<RunSpec>,
    /// The summary of each run that is scored.
    scored: Vec<Option<Brief>>,
    /// Runs that differ only in learning rate and seed, in the order of their names.
    groups: Vec<Vec<usize>>,
    halving: Halving,
}

/// A share of a grid: part `index` (from 1) of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Number of the part.
    pub index: usize,
    /// Number of parts.
    pub of: usize,
}

impl Board {
    /// Reads every run folder of the grid. Errors: a folder whose run has another configuration.
    pub fn new(grid: &Grid) -> Result<Board> {
        let runs = grid.runs()?;
        let halving = grid.halving.unwrap_or(Halving { factor: 1, rounds: 0, keep_auto: false });
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, RunSpec { point: p, .. }) in runs.iter().enumerate() {
            let name = format!("{} {} {} {:?} {:?}", p.model, p.task, p.arm, p.r, p.others);
            groups.entry(name).or_default().push(i);
        }
        let scored = vec![None; runs.len()];
        let mut board = Board { runs, scored, groups: groups.into_values().collect(), halving };
        for i in 0..board.runs.len() {
            board.look(i)?;
        }
        Ok(board)
    }

    /// A configuration for each model, by its name in the grid.
    pub fn models(&self) -> BTreeMap<&str, &TrainConfig> {
        self.runs.iter().map(|s| (s.point.model.as_str(), &s.config)).collect()
    }

    /// Reads the folder of a run again. Returns true if it is scored.
    pub fn look(&mut self, i: usize) -> Result<bool> {
        let spec = &self.runs[i];
        let Some(s) = Scores::read(&spec.config.output_dir)? else { return Ok(false) };
        check_same(spec, &spec.config.output_dir)?;
        let brief = Brief { choice: Choice::of(&s), seconds: s.cost.train_seconds + s.cost.score_seconds };
        self.scored[i] = Some(brief);
        Ok(true)
    }

    /// The summary of a run; `None` until it is scored.
    pub fn brief(&self, i: usize) -> Option<&Brief> {
        self.scored[i].as_ref()
    }

    /// The state of every run.
    pub fn states(&self) -> Vec<State> {
        let mut out = vec![State::Waiting; self.runs.len()];
        for members in &self.groups {
            self.group_states(members, &mut out);
        }
        out
    }

    fn group_states(&self, members: &[usize], out: &mut [State]) {
        // learning rates that take part in the round; `None`: all
        let mut rates: Option<BTreeSet<LearningRate>> = None;
        for round in 0..=self.halving.rounds {
            let rung = (round < self.halving.rounds).then_some(round);
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

    fn rate(&self, i: usize) -> LearningRate {
        self.runs[i].point.learning_rate
    }

    /// The best learning rates of a finished round.
    fn survivors(&self, round: &[usize], rates: Option<&BTreeSet<LearningRate>>) -> BTreeSet<LearningRate> {
        let mut list: Vec<usize> =
            round.iter().copied().filter(|&i| rates.is_none_or(|r| r.contains(&self.rate(i)))).collect();
        let of = |i: usize| self.brief(i).and_then(|b| b.choice);
        list.sort_by(|&a, &b| choice::cmp(of(a), of(b), &self.runs[a].score));
        let kept = list.iter().map(|&i| self.rate(i)).filter(|r| self.halving.keep_auto && *r == LearningRate::Auto);
        let kept: Vec<LearningRate> = kept.collect();
        list.truncate(list.len().div_ceil(self.halving.factor));
        list.into_iter().map(|i| self.rate(i)).chain(kept).collect()
    }

    /// The runs of a shard. With halving, all learning rates of an arm are in the same shard, since they decide about each other.
    pub fn shard(&self, shard: Option<Shard>) -> Vec<usize> {
        let Some(shard) = shard else { return (0..self.runs.len()).collect() };
        let ours = |n: usize| n % shard.of == shard.index - 1;
        match self.halving.rounds {
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

    /// Estimated seconds of these runs, one after another, by the time per step of scored runs of the same model, task and
    /// round, else of the same model and task, else of all runs. Of runs that wait for short runs, a share is counted. `None`
    /// before the first run is scored.
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
                let rounds = self.runs[i].point.rung.unwrap_or(self.halving.rounds) as i32;
                (self.halving.factor as f64).powi(-rounds)
            }
            State::Scored | State::Dropped => 0.0,
        };
        runs.iter().map(|&i| Some(of(i)? * share(i))).sum()
    }
}
