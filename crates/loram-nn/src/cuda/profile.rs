//! Where the GPU's time goes: marks in the stream before and after each launch.

use super::device::{catch, driver, ok, synchronize};
use super::driver::Mark;
use crate::Result;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);
static SPANS: Mutex<Vec<(String, [Mark; 2])>> = Mutex::new(Vec::new());

/// The launches of a kernel, or the products of a shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    name: String,
    calls: usize,
    seconds: f64,
}

impl Timing {
    /// Name of the kernel, or `product m×n×k` with the number types of operands and result.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often it ran.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// How long all calls took on the GPU.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }
}

/// Measures all work from here on; every launch costs a few microseconds more.
pub fn profile() {
    ON.store(true, Ordering::Relaxed);
}

/// Ends [`profile`], waits for the GPU and says what ran since, what took longest first.
pub fn timings() -> Result<Vec<Timing>> {
    ON.store(false, Ordering::Relaxed);
    synchronize()?;
    let spans = std::mem::take(&mut *SPANS.lock().expect("spans"));
    catch(|| {
        let mut sums: HashMap<String, (usize, f64)> = HashMap::new();
        for (name, marks) in spans {
            let sum = sums.entry(name).or_default();
            sum.0 += 1;
            sum.1 += ok(driver().between(marks));
        }
        let mut all: Vec<Timing> =
            sums.into_iter().map(|(name, (calls, seconds))| Timing { name, calls, seconds }).collect();
        all.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.name.cmp(&b.name)));
        Ok(all)
    })
}

/// Launches something, between two marks while a profile runs.
pub(super) fn span(name: impl FnOnce() -> String, launch: impl FnOnce()) {
    if !ON.load(Ordering::Relaxed) {
        return launch();
    }
    let begin = ok(driver().mark());
    launch();
    let end = ok(driver().mark());
    SPANS.lock().expect("spans").push((name(), [begin, end]));
}
