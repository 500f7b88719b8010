//! Instructions of this processor for products in bf16.

use std::sync::OnceLock;

/// Instructions that multiply bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// AMX tiles (`tdpbf16ps`).
    Amx,
    /// AVX512-BF16 dot products (`vdpbf16ps`).
    Avx512Bf16,
}

impl Kernel {
    /// All, best first.
    pub const ALL: [Kernel; 2] = [Kernel::Amx, Kernel::Avx512Bf16];

    /// "amx" or "avx512-bf16".
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Amx => "amx",
            Kernel::Avx512Bf16 => "avx512-bf16",
        }
    }

    /// Returns whether this processor has it and the system allows it.
    pub fn available(self) -> bool {
        static FOUND: OnceLock<[bool; 2]> = OnceLock::new();
        let [amx, avx512] = FOUND.get_or_init(found);
        match self {
            Kernel::Amx => *amx,
            Kernel::Avx512Bf16 => *avx512,
        }
    }

    /// The best of this processor, if it has any.
    pub fn best() -> Option<Kernel> {
        Kernel::ALL.into_iter().find(|k| k.available())
    }

    /// Returns whether it is faster than f32 on this processor. Intel's processors with AVX512-BF16 compute one dot product of
    /// a vector in the time of four multiply-adds in f32.
    pub fn beats_f32(self) -> bool {
        match self {
            Kernel::Amx => true,
            Kernel::Avx512Bf16 => !intel(),
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn found() -> [bool; 2] {
    [false; 2]
}

#[cfg(not(target_arch = "x86_64"))]
fn intel() -> bool {
    false
}

/// Availability of AMX and of AVX512-BF16. Packing needs the vector instructions for either.
#[cfg(target_arch = "x86_64")]
fn found() -> [bool; 2] {
    use std::arch::is_x86_feature_detected as has;
    let vectors = has!("avx512f") && has!("avx512bw") && has!("avx512bf16");
    [vectors && amx(), vectors]
}

#[cfg(target_arch = "x86_64")]
fn intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    // "GenuineIntel"
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// Asks the processor for AMX, the system for its state, and, on Linux, for the permission to use it.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx() -> bool {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const OSXSAVE: u32 = 1 << 27;
    const TILES_AND_BF16: u32 = 1 << 24 | 1 << 22;
    // XTILECFG and XTILEDATA in XCR0
    const STATE: u32 = 3 << 17;
    const SYS_ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let enough = __cpuid(0).eax >= 7 && __cpuid(1).ecx & OSXSAVE != 0;
    if !enough || __cpuid_count(7, 0).edx & TILES_AND_BF16 != TILES_AND_BF16 {
        return false;
    }
    let (state, refused): (u32, i64);
    // SAFETY: the system has enabled `xgetbv` (OSXSAVE), which changes nothing but the two registers
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") state, out("edx") _, options(nomem, nostack)) };
    if state & STATE != STATE {
        return false;
    }
    // SAFETY: the call gives this process larger register states, and touches no memory of it
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") SYS_ARCH_PRCTL => refused,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    refused == 0
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn amx() -> bool {
    false
}
