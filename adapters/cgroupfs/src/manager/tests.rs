//! Tests over a fake tree: a directory whose interface files are plain files. What
//! the kernel does by itself (files in a new directory, events) the test does.

use super::*;
use tempfile::TempDir;

struct Fake {
    dir: TempDir,
    manager: CgroupManager,
}

impl Fake {
    fn new(controllers: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        populate(dir.path(), controllers);
        let parent = dir.path().join("ktstr");
        fs::create_dir(&parent).unwrap();
        populate(&parent, controllers);
        let manager = CgroupManager::new(dir.path(), "ktstr").unwrap();
        manager.setup().unwrap();
        Self { dir, manager }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("ktstr").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn create(&self, name: &str) {
        self.manager.create_cgroup(name).unwrap();
        populate(&self.path(name), "cpuset cpu memory pids io");
    }
}

/// The files that the kernel puts into a new cgroup.
fn populate(dir: &Path, controllers: &str) {
    fs::write(dir.join("cgroup.controllers"), controllers).unwrap();
    for file in ["cgroup.subtree_control", "cgroup.procs", "cgroup.freeze", "cpuset.cpus", "cpuset.mems"] {
        fs::write(dir.join(file), "").unwrap();
    }
    fs::write(dir.join("cpuset.cpus.effective"), "0-3\n").unwrap();
    fs::write(dir.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
    for file in ["cpu.max", "cpu.weight", "memory.max", "pids.max"] {
        fs::write(dir.join(file), "max\n").unwrap();
    }
}

#[test]
fn setup_says_where_no_cgroup_v2_is() {
    let dir = tempfile::tempdir().unwrap();
    let manager = CgroupManager::new(dir.path(), "ktstr").unwrap();
    let text = manager.setup().unwrap_err().to_string();
    assert!(text.contains("cgroup.controllers") && text.contains("mount -t cgroup2"), "{text}");
}

#[test]
fn the_first_cgroup_sets_up_what_nobody_did() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path(), "cpuset cpu");
    fs::create_dir(dir.path().join("ktstr")).unwrap();
    populate(&dir.path().join("ktstr"), "cpuset cpu");
    let manager = CgroupManager::new(dir.path(), "ktstr").unwrap();
    manager.create_cgroup("a").unwrap();
    for control in ["cgroup.subtree_control", "ktstr/cgroup.subtree_control"] {
        assert_eq!(fs::read_to_string(dir.path().join(control)).unwrap(), "+cpuset +cpu");
    }
    assert!(dir.path().join("ktstr/a").is_dir());
}

#[test]
fn a_parent_must_have_a_good_name() {
    assert!(matches!(CgroupManager::new(Path::new("/x"), "../up"), Err(CgroupError::Name { .. })));
}

#[test]
fn foreign_cgroups_are_left_alone() {
    let fake = Fake::new("cpuset cpu");
    fs::create_dir(fake.path("other")).unwrap();
    populate(&fake.path("other"), "");
    let cpus: CpuSet = "0".parse().unwrap();
    let m = &fake.manager;
    for result in [
        m.remove_cgroup("other"),
        m.set_cpuset("other", &cpus),
        m.move_tasks("other", &[1]),
        m.drain_tasks("other"),
        m.set_frozen("other", true),
        m.set_limit("other", CgroupLimit::CpuWeight(1)),
        m.create_cgroup("other/child"),
    ] {
        assert!(matches!(result, Err(CgroupError::NotOurs { .. })), "{result:?}");
    }
    assert!(matches!(m.create_cgroup("other"), Err(CgroupError::Exists { .. })));
    assert_eq!(fake.read("other/cpuset.cpus"), "");
}

#[test]
fn creating_twice_is_an_error_and_removing_twice_is_not() {
    let fake = Fake::new("cpuset");
    fake.manager.create_cgroup("a").unwrap();
    assert!(matches!(fake.manager.create_cgroup("a"), Err(CgroupError::Exists { .. })));
    fake.manager.remove_cgroup("never").unwrap();
}

#[test]
fn a_cpuset_is_written_as_a_cpulist_and_cleared_by_a_newline() {
    let fake = Fake::new("cpuset cpu");
    fake.create("a");
    fake.manager.set_cpuset("a", &"0-2,5".parse().unwrap()).unwrap();
    assert_eq!(fake.read("a/cpuset.cpus"), "0-2,5");
    fake.manager.set_cpuset_mems("a", &"1".parse().unwrap()).unwrap();
    assert_eq!(fake.read("a/cpuset.mems"), "1");
    fake.manager.clear_cpuset("a").unwrap();
    assert_eq!(fake.read("a/cpuset.cpus"), "\n");
}

#[test]
fn an_empty_cpuset_is_not_written() {
    let fake = Fake::new("cpuset");
    fake.create("a");
    let text = fake.manager.set_cpuset("a", &CpuSet::new()).unwrap_err().to_string();
    assert!(text.contains("clear the cpuset"), "{text}");
}

#[test]
fn a_missing_controller_is_an_error_when_needed() {
    let fake = Fake::new("cpu");
    fake.create("a");
    let err = fake.manager.set_cpuset("a", &"0".parse().unwrap()).unwrap_err();
    let CgroupError::Controller { controller, available, remedy, .. } = &err else { panic!("{err:?}") };
    assert_eq!((controller.as_str(), available.as_str()), ("cpuset", "cpu"));
    assert!(remedy.contains("CONFIG_CPUSETS"));
}

#[test]
fn a_nested_cgroup_gets_its_controller_when_needed() {
    let fake = Fake::new("cpuset cpu memory");
    fake.create("outer");
    fake.create("outer/inner");
    assert_eq!(fake.read("outer/cgroup.subtree_control"), "");
    fs::write(fake.dir.path().join("cgroup.subtree_control"), "cpu").unwrap();
    fs::write(fake.path("cgroup.subtree_control"), "cpu").unwrap();
    fake.manager.set_limit("outer/inner", CgroupLimit::CpuWeight(50)).unwrap();
    assert_eq!(fake.read("outer/cgroup.subtree_control"), "+cpu");
    assert_eq!(fake.read("outer/inner/cpu.weight"), "50");
}

#[test]
fn a_controller_is_not_enabled_below_a_cgroup_with_processes() {
    let fake = Fake::new("cpuset");
    fake.create("outer");
    fake.create("outer/inner");
    fs::write(fake.path("outer/cgroup.type"), "domain\n").unwrap();
    fs::write(fake.path("outer/cgroup.procs"), "7\n").unwrap();
    fs::write(fake.dir.path().join("cgroup.subtree_control"), "cpuset").unwrap();
    fs::write(fake.path("cgroup.subtree_control"), "cpuset").unwrap();
    let text = fake.manager.set_cpuset("outer/inner", &"0".parse().unwrap()).unwrap_err().to_string();
    assert!(text.contains("outer/cgroup.subtree_control") && text.contains("no-internal-process"), "{text}");
    assert_eq!(fake.read("outer/cgroup.subtree_control"), "");
}

#[test]
fn effective_cpus_come_from_the_nearest_cgroup_that_has_them() {
    let fake = Fake::new("cpuset");
    fake.create("outer");
    fake.manager.create_cgroup("outer/inner").unwrap();
    fs::write(fake.path("outer/cpuset.cpus.effective"), "1-2\n").unwrap();
    assert_eq!(fake.manager.effective_cpus("outer/inner").unwrap().to_string(), "1-2");
    fs::write(fake.path("outer/cpuset.cpus.effective"), "zero\n").unwrap();
    assert!(matches!(fake.manager.effective_cpus("outer"), Err(CgroupError::Content { .. })));
}

#[test]
fn freezing_writes_and_then_believes_only_the_events() {
    let fake = Fake::new("cpuset");
    fake.create("a");
    fs::write(fake.path("a/cgroup.events"), "populated 0\nfrozen 1\n").unwrap();
    fake.manager.set_frozen("a", true).unwrap();
    assert_eq!(fake.read("a/cgroup.freeze"), "1");
}

#[test]
fn moved_processes_are_written_one_by_one() {
    let fake = Fake::new("cpuset");
    fake.create("a");
    fake.manager.move_tasks("a", &[7, 12]).unwrap();
    assert_eq!(fake.read("a/cgroup.procs"), "12", "a plain file keeps the last write");
    assert_eq!(fake.manager.procs("a").unwrap(), [12]);
}

#[test]
fn a_populated_cgroup_that_can_not_be_cleared_gets_its_parents_cpus() {
    let fake = Fake::new("cpuset");
    fake.create("a");
    // As the kernel does for a cgroup with processes, this file answers ENOSPC, to
    // the second write too, whose error shows what was tried.
    fs::remove_file(fake.path("a/cpuset.cpus")).unwrap();
    std::os::unix::fs::symlink("/dev/full", fake.path("a/cpuset.cpus")).unwrap();
    let text = fake.manager.clear_cpuset("a").unwrap_err().to_string();
    assert!(text.starts_with("writing \"0-3\" to"), "{text}");
}
