#![no_main]
//! Grids of comparisons, and the runs that they make.

use libfuzzer_sys::fuzz_target;
use loram_lab::Grid;

fuzz_target!(|data: &[u8]| {
    let path = loram_fuzz::folder().join("grid.yaml");
    loram_fuzz::put(&path, data);
    let Ok(grid) = Grid::from_file(&path) else { return };
    let Ok(runs) = grid.runs() else { return };
    for run in runs {
        // names of folders, which no name in a grid may lead elsewhere
        assert!(!run.id().contains('/') && run.id() != "..");
    }
});
