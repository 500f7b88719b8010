//! A GPU that is none: its memory is the program's, its kernels are C++ (kernels/emulation.h), its products the CPU's.

use super::call::{Address, Grid, Product};
use crate::compute::Compute;
use crate::kernels::gemm::{View, ViewMut, gemm};
use half::bf16;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::sync::Mutex;
use std::time::Instant;

/// A point in the stream of work.
pub(crate) type Mark = Instant;

type Result<T> = std::result::Result<T, String>;

// SAFETY: declared as in kernels/emulation.h, which is compiled into this program
unsafe extern "C" {
    fn loram_emulated_launch(
        name: *const c_char,
        x: c_uint,
        y: c_uint,
        threads: c_uint,
        bytes: c_uint,
        arguments: *mut *mut c_void,
        kinds: *const c_char,
    ) -> c_int;
}

/// Bytes around each allocation that nobody may write to.
const GUARD: usize = 256;
const MARK: u8 = 0xa5;

/// Sizes of what is allocated.
pub(crate) struct Driver {
    sizes: Mutex<HashMap<u64, usize>>,
}

/// The emulation knows one block at a time.
static LAUNCH: Mutex<()> = Mutex::new(());

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + 2 * GUARD, 256).expect("a size that memory can have")
}

impl Driver {
    pub fn open() -> Result<Driver> {
        Ok(Driver { sizes: Mutex::default() })
    }

    pub fn name(&self) -> &str {
        "emulation"
    }

    pub fn memory(&self) -> Result<(u64, u64)> {
        Ok((8 << 30, 8 << 30))
    }

    pub fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    /// Memory that is NaN in every number type.
    pub fn allocate(&self, bytes: usize) -> Result<Address> {
        // SAFETY: the size is not 0, and all of it is written
        let start = unsafe {
            let start = alloc(layout(bytes));
            if start.is_null() {
                return Err("out of memory".into());
            }
            start.write_bytes(MARK, bytes + 2 * GUARD);
            start.add(GUARD).write_bytes(0xff, bytes);
            start.add(GUARD) as u64
        };
        self.sizes.lock().expect("sizes").insert(start, bytes);
        Ok(Address(start))
    }

    pub fn free(&self, address: Address) {
        let bytes = self.sizes.lock().expect("sizes").remove(&address.0).expect("memory is freed once");
        let start = address.0 as *mut u8;
        // SAFETY: what `allocate` made
        unsafe {
            let guards = [start.sub(GUARD), start.add(bytes)];
            let whole = guards.iter().all(|g| std::slice::from_raw_parts(*g, GUARD).iter().all(|&b| b == MARK));
            dealloc(start.sub(GUARD), layout(bytes));
            assert!(whole, "a kernel wrote beyond a buffer of {bytes} bytes");
        }
    }

    pub fn upload(&self, to: Address, from: &[u8]) -> Result<()> {
        // SAFETY: the buffer was checked by its owner
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.0 as *mut u8, from.len()) };
        Ok(())
    }

    pub fn download(&self, from: Address, to: &mut [u8]) -> Result<()> {
        // SAFETY: the buffer was checked by its owner
        unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    pub fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        // SAFETY: both buffers were checked by their owners
        unsafe { std::ptr::copy(from.0 as *const u8, to.0 as *mut u8, bytes) };
        Ok(())
    }

    pub fn zero(&self, at: Address, bytes: usize) -> Result<()> {
        // SAFETY: the buffer was checked by its owner
        unsafe { (at.0 as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    pub fn launch(&self, name: &str, grid: Grid, values: &mut [u64], kinds: &[u8]) -> Result<()> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|e| e.to_string());
        let (c_name, c_kinds) = (text(name.as_bytes())?, text(kinds)?);
        let mut arguments: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let _alone = LAUNCH.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let [x, y, threads, bytes] = [grid.blocks.0, grid.blocks.1, grid.threads, grid.shared].map(|n| n as c_uint);
        // SAFETY: as many arguments as kinds, which are compared with the kernel's
        let code = unsafe {
            let arguments = arguments.as_mut_ptr();
            loram_emulated_launch(c_name.as_ptr(), x, y, threads, bytes, arguments, c_kinds.as_ptr())
        };
        match code {
            0 => Ok(()),
            1 => Err(format!("there is no kernel {name}")),
            _ => Err(format!("kernel {name} does not take ({})", String::from_utf8_lossy(kinds))),
        }
    }

    pub fn mark(&self) -> Result<Mark> {
        Ok(Instant::now())
    }

    /// Seconds between two marks.
    pub fn between(&self, [a, b]: [Mark; 2]) -> Result<f64> {
        Ok((b - a).as_secs_f64())
    }

    pub fn product(&self, p: &Product) -> Result<()> {
        let a = read_rows(p.input, p.a, p.a_pitch, if p.a_transposed { (p.k, p.m) } else { (p.m, p.k) });
        let b = read_rows(p.input, p.b, p.b_pitch, if p.b_transposed { (p.n, p.k) } else { (p.k, p.n) });
        let view = |data, rows, cols, transposed| match transposed {
            false => View::new(data, rows, cols),
            true => View::new(data, cols, rows).t(),
        };
        // what beta 0 covers is not read: it may be NaN
        let mut c = if p.beta == 0.0 { vec![0.0; p.m * p.n] } else { read(p.output, p.c, p.m * p.n) };
        c.iter_mut().for_each(|x| *x *= p.beta);
        let (a, b) = (view(&a, p.m, p.k, p.a_transposed), view(&b, p.k, p.n, p.b_transposed));
        gemm(ViewMut::new(&mut c, p.m, p.n), true, p.alpha, a, b);
        match p.output {
            Compute::CudaBf16 => {
                // SAFETY: the operations checked that the matrix lies within its buffer
                let to = unsafe { std::slice::from_raw_parts_mut(p.c.0 as *mut bf16, c.len()) };
                to.iter_mut().zip(&c).for_each(|(t, &x)| *t = bf16::from_f32(x));
            }
            // SAFETY: as above
            _ => unsafe { std::slice::from_raw_parts_mut(p.c.0 as *mut f32, c.len()) }.copy_from_slice(&c),
        }
        Ok(())
    }
}

/// The first columns of a matrix whose rows are `pitch` elements apart.
fn read_rows(compute: Compute, from: Address, pitch: usize, (rows, cols): (usize, usize)) -> Vec<f32> {
    let whole = read(compute, from, (rows - 1) * pitch + cols);
    whole.chunks(pitch).flat_map(|row| &row[..cols]).copied().collect()
}

fn read(compute: Compute, from: Address, len: usize) -> Vec<f32> {
    match compute {
        Compute::CudaBf16 => {
            // SAFETY: the operations checked that the matrix lies within its buffer
            unsafe { std::slice::from_raw_parts(from.0 as *const bf16, len) }.iter().map(|x| x.to_f32()).collect()
        }
        // SAFETY: as above
        _ => unsafe { std::slice::from_raw_parts(from.0 as *const f32, len) }.to_vec(),
    }
}
