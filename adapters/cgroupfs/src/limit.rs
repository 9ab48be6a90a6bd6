//! Which file and text a [`CgroupLimit`] becomes
//! (`Documentation/admin-guide/cgroup-v2.rst`, "Controllers").

use ktstr_scenario::ports::CgroupLimit;

/// Controller, interface file and content of a limit.
pub(crate) fn rendered(limit: CgroupLimit) -> (&'static str, &'static str, String) {
    let or_max = |value: Option<u64>| value.map_or_else(|| "max".to_string(), |v| v.to_string());
    match limit {
        CgroupLimit::CpuMax { quota_us, period_us } => {
            ("cpu", "cpu.max", format!("{} {period_us}", or_max(quota_us)))
        }
        CgroupLimit::CpuWeight(weight) => ("cpu", "cpu.weight", weight.to_string()),
        CgroupLimit::MemoryMax(bytes) => ("memory", "memory.max", or_max(bytes)),
        CgroupLimit::MemoryHigh(bytes) => ("memory", "memory.high", or_max(bytes)),
        CgroupLimit::MemoryLow(bytes) => ("memory", "memory.low", or_max(bytes)),
        CgroupLimit::MemorySwapMax(bytes) => ("memory", "memory.swap.max", or_max(bytes)),
        CgroupLimit::IoWeight(weight) => ("io", "io.weight", weight.to_string()),
        CgroupLimit::PidsMax(count) => ("pids", "pids.max", or_max(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_kernels_syntax() {
        let cases = [
            (CgroupLimit::CpuMax { quota_us: Some(50_000), period_us: 100_000 }, "cpu.max", "50000 100000"),
            (CgroupLimit::CpuMax { quota_us: None, period_us: 100_000 }, "cpu.max", "max 100000"),
            (CgroupLimit::MemoryMax(Some(1 << 20)), "memory.max", "1048576"),
            (CgroupLimit::MemorySwapMax(None), "memory.swap.max", "max"),
            (CgroupLimit::PidsMax(Some(7)), "pids.max", "7"),
            (CgroupLimit::IoWeight(200), "io.weight", "200"),
        ];
        for (limit, file, text) in cases {
            let (controller, seen_file, seen_text) = rendered(limit);
            assert_eq!((seen_file, seen_text.as_str()), (file, text));
            assert!(file.starts_with(controller));
        }
    }
}
