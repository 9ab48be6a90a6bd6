//! Tests with small trees and real git.

use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

struct Fixture {
    _dir: TempDir,
    tree: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("outer/linux");
        fs::create_dir_all(&tree).expect("made");
        for name in LANDMARKS {
            fs::write(tree.join(name), "# kernel\n").expect("written");
        }
        let tree = fs::canonicalize(tree).expect("there");
        Self { _dir: dir, tree }
    }

    fn git(&self, dir: &Path, args: &[&str]) {
        let mut git = Commands::default().command("git");
        git.arg("-C")
            .arg(dir)
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org"])
            .args(["-c", "commit.gpgsign=false"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        command::run("preparing", &mut git).expect("git works");
    }

    fn commit(&self, dir: &Path) {
        self.git(dir, &["init", "-q"]);
        self.git(dir, &["add", "."]);
        self.git(dir, &["commit", "-q", "-m", "all"]);
    }

    fn state(&self) -> TreeState {
        identify(&Commands::default(), &self.tree).expect("a tree").state
    }
}

#[test]
fn without_makefile_or_kconfig_it_is_no_kernel_tree() {
    let f = Fixture::new();
    fs::remove_file(f.tree.join("Kconfig")).expect("removed");
    let error = identify(&Commands::default(), &f.tree).expect_err("no tree");
    let text = error.to_string();
    assert!(text.contains("not a kernel source tree"), "{text}");
    assert!(text.contains("Kconfig"), "{text}");
    assert!(identify(&Commands::default(), Path::new("/nonexistent")).is_err());
}

#[test]
fn a_clean_tree_is_named_by_its_commit() {
    let f = Fixture::new();
    f.commit(&f.tree);
    let TreeState::Clean { commit } = f.state() else {
        panic!("{:?}", f.state());
    };
    assert_eq!(commit.len(), 40);
    fs::write(f.tree.join("notes.txt"), "untracked").expect("written");
    assert_eq!(f.state(), TreeState::Clean { commit: commit.clone() });
    fs::write(f.tree.join("Makefile"), "changed").expect("written");
    assert_eq!(f.state(), TreeState::Dirty { commit });
}

#[test]
fn a_staged_change_is_a_change() {
    let f = Fixture::new();
    f.commit(&f.tree);
    fs::write(f.tree.join("new.c"), "int x;").expect("written");
    f.git(&f.tree, &["add", "new.c"]);
    assert!(matches!(f.state(), TreeState::Dirty { .. }));
}

#[test]
fn an_outer_repository_does_not_name_the_tree() {
    let f = Fixture::new();
    assert_eq!(f.state(), TreeState::NotGit);
    f.commit(f.tree.parent().expect("outer"));
    assert_eq!(f.state(), TreeState::NotGit);
}

#[test]
fn a_repository_without_commits_names_nothing() {
    let f = Fixture::new();
    f.git(&f.tree, &["init", "-q"]);
    assert_eq!(f.state(), TreeState::NotGit);
}

#[test]
fn without_git_a_tree_is_not_git() {
    let f = Fixture::new();
    f.commit(&f.tree);
    let none = Commands::searching("/nonexistent".into());
    let id = identify(&none, &f.tree).expect("a tree");
    assert_eq!(id.state, TreeState::NotGit);
}

#[test]
fn links_are_followed_and_the_configuration_is_hashed() {
    let f = Fixture::new();
    let link = f.tree.with_file_name("link");
    std::os::unix::fs::symlink(&f.tree, &link).expect("linked");
    let id = identify(&Commands::default(), &link).expect("a tree");
    assert_eq!((id.dir, id.config_hash), (f.tree.clone(), None));
    fs::write(f.tree.join(".config"), "123456789").expect("written");
    let id = identify(&Commands::default(), &link).expect("a tree");
    assert_eq!(id.config_hash.as_deref(), Some("cbf43926"));
}
