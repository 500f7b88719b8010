//! Kernel launches.

/// Launches a kernel by name: `launch!("rope_f32", grid; x, positions, 3i32)`.
macro_rules! launch {
    ($name:expr, $grid:expr; $($argument:expr),+ $(,)?) => {{
        fn kind<A: $crate::cuda::call::Argument>(_: &A) -> u8 {
            A::KIND
        }
        let grid: $crate::cuda::call::Grid = $grid;
        if !grid.is_empty() {
            let kinds = [$(kind(&$argument)),+];
            let mut values = [$($crate::cuda::call::Argument::bits(&$argument)),+];
            let name = $name;
            let name: &str = name.as_ref();
            $crate::cuda::profile::span(|| name.to_string(), || {
                $crate::cuda::device::ok($crate::cuda::device::driver().launch(name, grid, &mut values, &kinds));
            });
        }
    }};
}
pub(crate) use launch;
