//! Memory and processor of this machine, and memory of this process.

use std::fs;

/// Resident memory of this process in bytes; 0 where the system does not say.
pub fn rss() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok().and_then(|s| s.split(' ').nth(1)?.parse::<u64>().ok());
    // SAFETY: sysconf reads a constant of the system
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * page.max(0) as u64
}

/// Peak resident memory of this process in bytes.
pub fn peak_rss() -> u64 {
    // SAFETY: `usage` is a plain structure that the call fills
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: as above
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) } != 0 {
        return 0;
    }
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage.ru_maxrss.max(0) as u64 * unit
}

/// Free memory in bytes: `MemAvailable` of the kernel, within the limit of the control group. `None` where
/// the system does not say.
pub fn available_memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let available = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024;
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

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn figures_are_plausible() {
        let (now, peak) = (super::rss(), super::peak_rss());
        assert!(now > 100_000 && peak >= now / 2, "{now} {peak}");
        assert!(super::available_memory().unwrap() > 1 << 20);
    }
}
