//! Many runs: grids, fair comparisons, reports.
//!
//! - [`Grid`]: schemes × learning rates × ranks × seeds × models × tasks, from a YAML file;
//! - [`drive`]: runs it, several runs at a time; [`job::run`]: runs one of them; [`plan_grid`]: counts and times them;
//! - [`collect()`] and [`analyse()`] turn run folders into figures, [`report`] writes them as HTML, Markdown, CSV, JSON and plots;
//! - [`peft`] reads experiment folders of the PEFT project and writes its result files.
//!
//! ```no_run
//! # fn main() -> loram_lab::Result<()> {
//! let found = loram_lab::collect(&["runs/compare".into()])?;
//! for group in loram_lab::analyse(&found).groups {
//!     println!("{}: best is {}", group.title(), group.arms[0].arm);
//! }
//! # Ok(())
//! # }
//! ```

mod analyse;
mod arms;
mod board;
mod choice;
mod collect;
mod data;
mod driver;
mod error;
mod gains;
mod gather;
mod grid;
pub mod job;
mod metrics_file;
mod names;
pub mod peft;
mod plan;
mod planned;
pub mod report;
mod run_folder;
mod run_record;
mod score_run;
pub mod scores;
pub mod stats;

pub use analyse::{
    Analysis, ArmReport, BASELINES, Comparison, Decision, Edge, Group, MeanCost, Missing, PooledComparison, RatePoint,
    Spread, Standing, Tally, Verdict, analyse,
};
pub use board::{Board, Brief, Shard, State};
pub use choice::Choice;
pub use collect::{Collection, collect};
pub use data::{Split, SplitOptions};
pub use driver::{BUSY, DriveOptions, Driven, Update, drive};
pub use error::{Error, Result};

pub use gather::{Gathered, gather};
pub use grid::{Axis, Forgetting, Grid, Halving, Keep, Named, Point, RunSpec, Score};
pub use metrics_file::{Magnitudes, MetricsFile};
pub use plan::{GridPlan, PlanRow, plan_grid};
pub use planned::{Planned, missing};
pub use run_record::RunRecord;
