//! With the feature `cuda`: the kernels as PTX, by NVIDIA's compiler. With `cuda-emulation`: the same sources as C++.
//! Otherwise nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNELS: &str = "src/cuda/kernels";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(gpu)");
    println!("cargo::rerun-if-changed=build.rs");
    let feature = |name: &str| env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let (cuda, emulation) = (feature("CUDA"), feature("CUDA_EMULATION"));
    if !cuda && !emulation {
        return;
    }
    println!("cargo::rustc-cfg=gpu");
    println!("cargo::rerun-if-changed={KERNELS}");
    if cuda && let Err(what) = ptx() {
        println!("cargo::error={what}");
        std::process::exit(1);
    }
    #[cfg(feature = "cuda-emulation")]
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file(format!("{KERNELS}/emulation.cpp"))
        // kernels jump between stacks, and a debug build would crawl
        .flag("-U_FORTIFY_SOURCE")
        .flag("-Wno-unknown-pragmas")
        .opt_level(2)
        .compile("loram_emulation");
}

fn ptx() -> Result<(), String> {
    for name in ["NVCC", "CUDA_HOME", "CUDA_VERSION", "CUDA_COMPUTE_CAP", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let nvcc = nvcc().ok_or(
        "the feature `cuda` needs NVIDIA's compiler: run scripts/cuda-toolkit, which makes one from PyPI's wheels, \
         or set NVCC or CUDA_HOME",
    )?;
    // forward compatible: the driver compiles it for the GPU at hand
    let arch = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".into());
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("no OUT_DIR")?).join("kernels.ptx");
    let done = Command::new(&nvcc)
        .args(["-ptx", "-O3", "-std=c++17", &format!("-arch=compute_{arch}"), "-o"])
        .arg(out)
        .arg(format!("{KERNELS}/all.cu"))
        .output()
        .map_err(|e| format!("{}: {e}", nvcc.display()))?;
    match done.status.success() {
        true => Ok(()),
        false => {
            Err(format!("{}: {}", nvcc.display(), String::from_utf8_lossy(&done.stderr).trim().replace('\n', " | ")))
        }
    }
}

/// `NVCC`, a toolkit in `CUDA_HOME`, on the path, or where `scripts/cuda-toolkit` puts it.
fn nvcc() -> Option<PathBuf> {
    if let Some(named) = env::var_os("NVCC") {
        return Some(named.into());
    }
    let home = env::var_os("CUDA_HOME").map(|h| Path::new(&h).join("bin"));
    let path = env::var_os("PATH").map(|p| env::split_paths(&p).collect::<Vec<_>>()).unwrap_or_default();
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|h| Path::new(&h).join(".cache")))
        .map(|c| {
            c.join("loram-cuda")
                .join(env::var("CUDA_VERSION").unwrap_or_else(|_| "13.0".into()))
                .join("compiler/nvidia")
        });
    let wheels =
        cache.and_then(|c| std::fs::read_dir(c).ok()).into_iter().flatten().flatten().map(|e| e.path().join("bin"));
    home.into_iter().chain(path).chain(wheels).map(|dir| dir.join("nvcc")).find(|p| p.is_file())
}
