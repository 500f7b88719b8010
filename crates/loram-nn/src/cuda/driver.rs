//! NVIDIA's driver and cuBLAS, looked for when they are first needed.

use super::call::{Address, Grid, Product};
use crate::compute::Compute;
use cudarc::cublas::{result as blas, sys as cublas};
use cudarc::driver::{result, sys};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::Mutex;

type Result<T> = std::result::Result<T, String>;

/// The kernels, compiled ahead for a virtual GPU.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

/// Shared memory that a kernel may have without asking for more.
const SHARED: usize = 48 << 10;

/// A GPU with a context, one stream and one handle to cuBLAS.
pub(crate) struct Driver {
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    blas: cublas::cublasHandle_t,
    kernels: Mutex<HashMap<String, Kernel>>,
    name: String,
    /// The most shared memory of a block.
    shared: usize,
}

#[derive(Clone, Copy)]
struct Kernel(sys::CUfunction);

// SAFETY: handles of the driver and of cuBLAS may be used from any thread; launches are ordered by the stream
unsafe impl Send for Driver {}
// SAFETY: as above; the table of kernels has a lock
unsafe impl Sync for Driver {}
// SAFETY: a handle of the driver
unsafe impl Send for Kernel {}

/// A point in the stream of work.
pub(crate) struct Mark(sys::CUevent);

// SAFETY: a handle of the driver
unsafe impl Send for Mark {}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: made by `mark`, destroyed once; an error comes back with the next call
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

fn driver_error(e: result::DriverError) -> String {
    let text = e.error_string().ok().and_then(|s| s.to_str().ok());
    text.map_or_else(|| format!("{e:?}"), str::to_string)
}

fn blas_error(e: blas::CublasError) -> String {
    format!("cuBLAS: {:?}", e.0)
}

impl Driver {
    /// The first GPU. The error says what is missing.
    pub fn open() -> Result<Driver> {
        // SAFETY: looks for libraries only
        let (driver, library) = unsafe { (sys::is_culib_present(), cublas::is_culib_present()) };
        if !driver {
            return Err("no NVIDIA driver on this machine (libcuda.so.1)".into());
        }
        if !library {
            return Err("libcublas is not found: put its folder into LD_LIBRARY_PATH".into());
        }
        result::init().map_err(|e| format!("the NVIDIA driver does not start: {}", driver_error(e)))?;
        if result::device::get_count().map_err(driver_error)? == 0 {
            return Err("the NVIDIA driver sees no GPU".into());
        }
        let device = result::device::get(0).map_err(driver_error)?;
        use sys::CUdevice_attribute_enum as Attribute;
        // SAFETY: the device exists
        let attribute = |a| unsafe { result::device::get_attribute(device, a) }.map_err(driver_error);
        let name = result::device::get_name(device).map_err(driver_error)?;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        if major < 8 {
            return Err(format!("{name} has compute capability {major}.x: bfloat16 needs 8.0 (Ampere) or newer"));
        }
        let shared = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize;
        let ptx = CString::new(PTX).map_err(|e| e.to_string())?;
        // SAFETY: the device exists, the context lives as long as the process, and the PTX ends with a 0
        unsafe {
            let context = result::primary_ctx::retain(device).map_err(driver_error)?;
            result::ctx::set_current(context).map_err(driver_error)?;
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(driver_error)?;
            let module = result::module::load_data(ptx.as_ptr().cast())
                .map_err(|e| format!("the kernels do not load ({}): is the driver older than 580?", driver_error(e)))?;
            let blas = blas::create_handle().map_err(blas_error)?;
            blas::set_stream(blas, stream.cast()).map_err(blas_error)?;
            Ok(Driver { context, stream, module, blas, kernels: Mutex::default(), name, shared })
        }
    }

    /// Name of the GPU.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the context that of the calling thread.
    fn enter(&self) -> Result<()> {
        thread_local! {
            static ENTERED: Cell<bool> = const { Cell::new(false) };
        }
        if !ENTERED.get() {
            // SAFETY: the context lives
            unsafe { result::ctx::set_current(self.context) }.map_err(driver_error)?;
            ENTERED.set(true);
        }
        Ok(())
    }

    /// Free and all bytes of the GPU's memory.
    pub fn memory(&self) -> Result<(u64, u64)> {
        self.enter()?;
        result::mem_get_info().map(|(free, total)| (free as u64, total as u64)).map_err(driver_error)
    }

    /// Waits for all work.
    pub fn synchronize(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream lives
        unsafe { result::stream::synchronize(self.stream) }.map_err(driver_error)
    }

    pub fn allocate(&self, bytes: usize) -> Result<Address> {
        self.enter()?;
        // SAFETY: nothing is assumed about the contents
        unsafe { result::malloc_sync(bytes) }.map(Address).map_err(driver_error)
    }

    pub fn free(&self, address: Address) {
        // SAFETY: freed once, by its owner; an error comes back with the next call
        let _ = self.enter().map(|()| unsafe { result::free_sync(address.0) });
    }

    pub fn upload(&self, to: Address, from: &[u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the buffer was checked by its owner; pageable memory is read before the call returns
        unsafe { result::memcpy_htod_async(to.0, from, self.stream) }.map_err(driver_error)
    }

    pub fn download(&self, from: Address, to: &mut [u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the buffer was checked by its owner; the slice lives until the stream has written it
        unsafe { result::memcpy_dtoh_async(to, from.0, self.stream) }.map_err(driver_error)?;
        self.synchronize()
    }

    pub fn copy(&self, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: both buffers were checked by their owners
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream) }.map_err(driver_error)
    }

    pub fn zero(&self, at: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the buffer was checked by its owner
        unsafe { result::memset_d8_async(at.0, 0, bytes, self.stream) }.map_err(driver_error)
    }

    fn kernel(&self, name: &str) -> Result<Kernel> {
        let mut kernels = self.kernels.lock().expect("kernels");
        if let Some(kernel) = kernels.get(name) {
            return Ok(*kernel);
        }
        let c_name = CString::new(name).map_err(|e| e.to_string())?;
        // SAFETY: the module lives
        let function = unsafe { result::module::get_function(self.module, c_name) }
            .map_err(|e| format!("kernel {name}: {}", driver_error(e)))?;
        kernels.insert(name.to_string(), Kernel(function));
        Ok(Kernel(function))
    }

    /// Launches a kernel. The emulation checks `kinds` against the kernel's parameters; the driver has no way to.
    pub fn launch(&self, name: &str, grid: Grid, values: &mut [u64], _kinds: &[u8]) -> Result<()> {
        self.enter()?;
        let Kernel(function) = self.kernel(name)?;
        if grid.shared > self.shared {
            let (need, have) = (grid.shared, self.shared);
            return Err(format!("kernel {name} needs {need} bytes of shared memory, {} has {have}", self.name));
        }
        if grid.shared > SHARED {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MAX;
            // SAFETY: the function lives with its module
            unsafe { result::function::set_function_attribute(function, MAX, grid.shared as i32) }
                .map_err(|e| format!("kernel {name}: {}", driver_error(e)))?;
        }
        let mut arguments: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let blocks = (grid.blocks.0 as u32, grid.blocks.1 as u32, 1);
        let (threads, shared) = ((grid.threads as u32, 1, 1), grid.shared as u32);
        // SAFETY: types of the arguments are checked by the emulation's tests, sizes by the operations
        unsafe { result::launch_kernel(function, blocks, threads, shared, self.stream, &mut arguments) }
            .map_err(|e| format!("kernel {name}: {}", driver_error(e)))
    }

    pub fn mark(&self) -> Result<Mark> {
        self.enter()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(driver_error)?;
        let mark = Mark(event);
        // SAFETY: event and stream live
        unsafe { result::event::record(mark.0, self.stream) }.map_err(driver_error)?;
        Ok(mark)
    }

    /// Seconds between two marks that the stream has passed.
    pub fn between(&self, [a, b]: [Mark; 2]) -> Result<f64> {
        self.enter()?;
        // SAFETY: both were recorded in the same stream
        unsafe { result::event::elapsed(a.0, b.0) }.map(|ms| f64::from(ms) / 1e3).map_err(driver_error)
    }

    /// C = beta·C + alpha·op(A)·op(B), row-major, sums in f32.
    pub fn product(&self, p: &Product) -> Result<()> {
        self.enter()?;
        let kind = |compute| match compute {
            Compute::CudaBf16 => cublas::cudaDataType::CUDA_R_16BF,
            _ => cublas::cudaDataType::CUDA_R_32F,
        };
        let op = |transposed| match transposed {
            true => cublas::cublasOperation_t::CUBLAS_OP_T,
            false => cublas::cublasOperation_t::CUBLAS_OP_N,
        };
        // cuBLAS counts by columns: there it is Cᵀ = op(B)ᵀ·op(A)ᵀ
        // SAFETY: the operations checked that the matrices lie within their buffers
        unsafe {
            blas::gemm_ex(
                self.blas,
                op(p.b_transposed),
                op(p.a_transposed),
                p.n as c_int,
                p.m as c_int,
                p.k as c_int,
                std::ptr::from_ref(&p.alpha).cast(),
                p.b.0 as *const c_void,
                kind(p.input),
                p.b_pitch as c_int,
                p.a.0 as *const c_void,
                kind(p.input),
                p.a_pitch as c_int,
                std::ptr::from_ref(&p.beta).cast(),
                p.c.0 as *mut c_void,
                kind(p.output),
                p.n as c_int,
                cublas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(blas_error)
    }
}
