//! Tests over sysfs trees made in a temporary directory.

use super::*;
use std::fs;
use tempfile::TempDir;

struct Tree(TempDir);

impl Tree {
    /// Writes files of `(path below devices/system, content)`.
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, content)| tree.put(path, content));
        tree
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.0.path().join("devices/system").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_dir_all(self.0.path().join("devices/system").join(path)).unwrap();
    }

    fn cpu(&self, cpu: u32, siblings: &str, package: &str, llc: &str, llc_id: &str) {
        let at = |file: &str| format!("cpu/cpu{cpu}/{file}");
        self.put(&at("topology/core_cpus_list"), siblings);
        self.put(&at("topology/physical_package_id"), package);
        for (index, level, kind, cpus, id) in [
            (0, "1", "Data", siblings, "0"),
            (1, "1", "Instruction", siblings, "0"),
            (2, "2", "Unified", siblings, "0"),
            (3, "3", "Unified", llc, llc_id),
        ] {
            self.put(&at(&format!("cache/index{index}/level")), level);
            self.put(&at(&format!("cache/index{index}/type")), kind);
            self.put(&at(&format!("cache/index{index}/shared_cpu_list")), cpus);
            self.put(&at(&format!("cache/index{index}/id")), id);
        }
    }

    /// Two packages with one LLC and node each, two hyperthreads a core.
    fn two_nodes() -> Self {
        let tree = Self::new(&[
            ("cpu/online", "0-3"),
            ("node/online", "0-1"),
            ("node/node0/cpulist", "0-1"),
            ("node/node1/cpulist", "2-3"),
            ("node/node0/distance", "10 21"),
            ("node/node1/distance", "21 10"),
            (
                "node/node0/meminfo",
                "\nNode 0 MemTotal:  1000 kB\nNode 0 MemFree:  900 kB\nNode 0 MemUsed: 100 kB",
            ),
            ("node/node1/meminfo", "\nNode 1 MemTotal:  2000 kB\nNode 1 MemFree:  1800 kB"),
        ]);
        for cpu in 0..2 {
            tree.cpu(cpu, "0-1", "0", "0-1", "4");
        }
        for cpu in 2..4 {
            tree.cpu(cpu, "2-3", "1", "2-3", "8");
        }
        tree
    }

    fn observe(&self) -> ObservedTopology {
        observe_topology(self.0.path()).unwrap()
    }

    fn error(&self) -> SystemError {
        observe_topology(self.0.path()).unwrap_err()
    }
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

#[test]
fn nodes_llcs_cores_memory_and_distances_are_read() {
    let ObservedTopology { topology, notes } = Tree::two_nodes().observe();
    assert_eq!(notes, [""; 0]);
    let llcs: Vec<_> = topology.llcs().iter().map(|l| (l.id, l.node, l.cpus.to_string())).collect();
    assert_eq!(llcs, [(4, 0, "0-1".into()), (8, 1, "2-3".into())]);
    assert_eq!(topology.siblings_of(3), cpus("2-3"));
    assert_eq!(topology.numa_distance(0, 1), 21);
    assert_eq!(topology.node_meminfo(1), Some(NodeMemInfo { total_kib: 2000, free_kib: 1800 }));
}

#[test]
fn an_offline_cpu_does_not_count() {
    let tree = Tree::two_nodes();
    tree.put("cpu/online", "0,2-3");
    let topology = tree.observe().topology;
    assert_eq!(topology.all_cpuset(), cpus("0,2-3"));
    assert_eq!(topology.siblings_of(0), cpus("0"));
}

#[test]
fn without_caches_the_package_is_the_llc_and_a_note_says_so() {
    let tree = Tree::two_nodes();
    (0..4).for_each(|cpu| tree.remove(&format!("cpu/cpu{cpu}/cache")));
    let ObservedTopology { topology, notes } = tree.observe();
    assert_eq!(topology.split_by_llc(), [cpus("0-1"), cpus("2-3")]);
    assert!(notes.iter().any(|n| n.contains("CPUs 0-3 show no cache")), "{notes:?}");
}

#[test]
fn without_nodes_all_is_node_0_and_a_note_says_so() {
    let tree = Tree::two_nodes();
    tree.remove("node");
    let ObservedTopology { topology, notes } = tree.observe();
    assert_eq!(topology.num_numa_nodes(), 1);
    assert_eq!(topology.num_llcs(), 2);
    assert!(notes.iter().any(|n| n.contains("node 0")), "{notes:?}");
}

#[test]
fn the_last_level_may_be_the_second() {
    let tree = Tree::two_nodes();
    (0..4).for_each(|cpu| tree.remove(&format!("cpu/cpu{cpu}/cache/index3")));
    assert_eq!(tree.observe().topology.num_llcs(), 2);
}

#[test]
fn equal_cache_numbers_are_replaced() {
    let tree = Tree::two_nodes();
    (2..4).for_each(|cpu| tree.cpu(cpu, "2-3", "1", "2-3", "4"));
    let ObservedTopology { topology, notes } = tree.observe();
    assert_eq!(topology.llcs().iter().map(|l| l.id).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(notes.len(), 1);
}

#[test]
fn an_llc_over_two_nodes_is_split() {
    let tree = Tree::two_nodes();
    (0..4).for_each(|cpu| tree.cpu(cpu, if cpu < 2 { "0-1" } else { "2-3" }, "0", "0-3", "0"));
    assert_eq!(tree.observe().topology.split_by_llc(), [cpus("0-1"), cpus("2-3")]);
}

#[test]
fn a_memory_only_node_is_kept() {
    let tree = Tree::two_nodes();
    tree.put("node/online", "0-2");
    tree.put("node/node2/cpulist", "");
    tree.put("node/node0/distance", "10 21 30");
    tree.put("node/node1/distance", "21 10 30");
    tree.put("node/node2/distance", "30 30 10");
    let topology = tree.observe().topology;
    assert!(topology.is_memory_only(2));
    assert_eq!(topology.numa_distance(2, 0), 30);
}

#[test]
fn contradictions_and_nonsense_are_errors() {
    let tree = Tree::two_nodes();
    tree.put("node/node1/cpulist", "3");
    assert!(matches!(tree.error(), SystemError::Contradiction { .. }));
    tree.put("node/node1/cpulist", "two");
    let text = tree.error().to_string();
    assert!(text.contains("node1/cpulist") && text.contains("\"two\""), "{text}");
    tree.put("node/node1/cpulist", "2-3");
    tree.put("node/node0/distance", "10 2000");
    assert!(tree.error().to_string().contains("\"2000\""));
}

#[test]
fn without_sysfs_the_error_names_the_file() {
    let text = Tree::new(&[]).error().to_string();
    assert!(text.contains("cpu/online") && text.contains("mounted"), "{text}");
}
