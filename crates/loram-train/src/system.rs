//! Memory and processor of this machine, and memory of this process: from `/proc` on Linux, and as `sysinfo` reads them on other
//! systems.

#[cfg(target_os = "linux")]
pub use linux::{available_memory, cpu_name, peak_rss, rss};
#[cfg(not(target_os = "linux"))]
pub use others::{available_memory, cpu_name, peak_rss, rss};

/// Processors of this machine, whether or not this process may run on them; `None` where the system does not say.
pub fn online_processors() -> Option<usize> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let count = |range: &str| match range.split_once('-') {
        Some((from, to)) => Some(to.parse::<usize>().ok()?.checked_sub(from.parse().ok()?)? + 1),
        None => range.parse::<usize>().ok().map(|_| 1),
    };
    text.trim().split(',').map(count).sum()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    /// Resident memory of this process in bytes; 0 where `/proc` is not mounted.
    pub fn rss() -> u64 {
        let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|s| s.split(' ').nth(1)?.parse::<u64>().ok());
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }

    /// Peak resident memory of this process in bytes; 0 where `/proc` is not mounted.
    pub fn peak_rss() -> u64 {
        // not getrusage, which counts the memory of the parent before exec as well
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        kilobytes(&status, "VmHWM:").unwrap_or(0)
    }

    /// The line `name  123 kB` of a file in `/proc`, in bytes.
    fn kilobytes(text: &str, name: &str) -> Option<u64> {
        let line = text.lines().find_map(|l| l.strip_prefix(name))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    }

    /// Free memory in bytes: `MemAvailable` of the kernel, within the limit of the control group. `None` where
    /// the system does not say.
    pub fn available_memory() -> Option<u64> {
        let info = fs::read_to_string("/proc/meminfo").ok()?;
        let available = kilobytes(&info, "MemAvailable:")?;
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let group = [
            ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
            (
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                "/sys/fs/cgroup/memory/memory.stat",
            ),
        ];
        let limits = group.iter().filter_map(|(max, current, stat)| {
            let (max, current) = (number(max)?, number(current)?);
            // the group's usage includes cached files, which the kernel can reclaim
            let stat = fs::read_to_string(stat).unwrap_or_default();
            let cached = stat.lines().find_map(|l| l.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
            Some(max.saturating_sub(current.saturating_sub(cached.unwrap_or(0))))
        });
        limits.chain([available]).min()
    }

    /// Name of the processor; empty where the system does not say.
    pub fn cpu_name() -> String {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = info.lines().find(|l| l.starts_with("model name"));
        line.and_then(|l| l.split(':').nth(1)).map(|s| s.trim().to_string()).unwrap_or_default()
    }
}

#[cfg(not(target_os = "linux"))]
mod others {
    use std::sync::atomic::{AtomicU64, Ordering};
    use sysinfo::{CpuRefreshKind, MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, RefreshKind, System};

    static PEAK: AtomicU64 = AtomicU64::new(0);

    /// Resident memory of this process in bytes; 0 where the system does not say.
    pub fn rss() -> u64 {
        let Ok(id) = sysinfo::get_current_pid() else { return 0 };
        let mut system = System::new();
        let memory = ProcessRefreshKind::nothing().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), false, memory);
        let now = system.process(id).map_or(0, |p| p.memory());
        PEAK.fetch_max(now, Ordering::Relaxed);
        now
    }

    /// The largest [`rss`] that was asked for so far, in bytes: these systems' own peaks need calls that no safe crate has.
    pub fn peak_rss() -> u64 {
        let now = rss();
        PEAK.load(Ordering::Relaxed).max(now)
    }

    /// Free memory in bytes.
    pub fn available_memory() -> Option<u64> {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        Some(System::new_with_specifics(memory).available_memory()).filter(|&bytes| bytes > 0)
    }

    /// Name of the processor; empty where the system does not say.
    pub fn cpu_name() -> String {
        let system = System::new_with_specifics(RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing()));
        system.cpus().first().map(|cpu| cpu.brand().trim().to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn figures_are_plausible() {
        let (now, peak) = (super::rss(), super::peak_rss());
        assert!(now > 100_000 && peak >= now / 2, "{now} {peak}");
        assert!(super::available_memory().unwrap() > 1 << 20);
        let allowed = std::thread::available_parallelism().unwrap().get();
        assert!(super::online_processors().is_none_or(|online| online >= allowed));
    }
}
