//! From stopped workers to a verdict.

use crate::engine::plan::HOST;
use crate::engine::stage::Group;
use ktstr_assert::{Assert, AssertResult, CgroupView, Detail, DetailKind};
use ktstr_topology::CpuSet;
use ktstr_workload::WorkerReport;

/// Judges the workers of each cgroup as they end, and joins the results.
pub(crate) struct Judge {
    assert: Assert,
    result: Option<AssertResult>,
    /// Findings that are not about workers.
    findings: Vec<Detail>,
    iterations: u64,
}

impl Judge {
    pub(crate) fn new(assert: Assert) -> Self {
        Self { assert, result: None, findings: Vec::new(), iterations: 0 }
    }

    /// Iterations of all workers that ended.
    pub(crate) fn iterations(&self) -> u64 {
        self.iterations
    }

    /// Adds a finding that is not about workers.
    pub(crate) fn push(&mut self, detail: Detail) {
        self.findings.push(detail);
    }

    /// Stops these groups and judges them, cgroup by cgroup in the order given.
    pub(crate) fn take(&mut self, mut groups: Vec<Group>) {
        groups.iter_mut().for_each(|group| group.handle.request_stop());
        while let Some(first) = groups.first() {
            let cgroup = first.cgroup.clone();
            let (together, rest) = groups.into_iter().partition(|g| g.cgroup == cgroup);
            groups = rest;
            let result = self.cgroup(cgroup.as_deref().unwrap_or(HOST), together);
            match &mut self.result {
                None => self.result = Some(result),
                Some(all) => {
                    all.merge(result);
                }
            }
        }
    }

    /// The result of all of it. Without a worker there is none to pass.
    pub(crate) fn verdict(self) -> AssertResult {
        let mut result = self.result.unwrap_or_else(|| {
            AssertResult::inconclusive(
                "the scenario ran no worker, so there is nothing to judge; \
                 give it a CgroupDef or a spawn op",
            )
        });
        for detail in self.findings {
            result.push(detail);
        }
        result
    }

    fn cgroup(&mut self, name: &str, groups: Vec<Group>) -> AssertResult {
        let mut reports = Vec::new();
        let mut missing = Vec::new();
        let mut allowed = Some(CpuSet::new());
        let mut nodes = Some(CpuSet::new());
        for (index, mut group) in groups.into_iter().enumerate() {
            let seen = collect(&mut group, index);
            if seen.len() != group.workers {
                let text = format!("expected the reports of {} workers, got {}", group.workers, seen.len());
                missing.push(Detail::inconclusive(DetailKind::Worker, text).in_cgroup(name));
            }
            reports.extend(seen);
            allowed = join(allowed, group.allowed);
            nodes = join(nodes, group.nodes);
        }
        self.iterations = reports.iter().fold(self.iterations, |sum, r| sum.saturating_add(r.iterations));
        let view = CgroupView { name, cpuset: allowed.as_ref(), nodes: nodes.as_ref() };
        let mut result = self.assert.assert_cgroup_view(&reports, &view);
        for detail in missing {
            result.push(detail);
        }
        result
    }
}

/// The reports of a group; `index` tells the groups of a cgroup apart.
fn collect(group: &mut Group, index: usize) -> Vec<WorkerReport> {
    let mut reports = group.handle.stop_and_collect();
    for report in &mut reports {
        report.group_idx = u32::try_from(index).unwrap_or(u32::MAX);
    }
    reports
}

/// The union; `None` (no restriction, or not known) wins.
fn join(a: Option<CpuSet>, b: Option<CpuSet>) -> Option<CpuSet> {
    Some(a?.union(&b?))
}
