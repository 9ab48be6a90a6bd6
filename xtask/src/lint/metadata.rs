//! The workspace's crates and what each declares to need, from `cargo metadata`.

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::Path;

/// A crate of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    /// Its folder, relative to the workspace.
    pub(super) dir: String,
    pub(super) description: Option<String>,
    pub(super) dependencies: Vec<Dependency>,
}

/// An entry of a crate's dependency tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The folder, relative to the workspace, if it is a crate of the workspace.
    pub(super) dir: Option<String>,
}

/// Which table a dependency is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Build,
    Dev,
}

impl Package {
    pub(super) fn manifest(&self) -> String {
        format!("{}/Cargo.toml", self.dir)
    }
}

/// Reads the answer of `cargo metadata --no-deps` for the workspace at `root`.
pub(super) fn parse(json: &[u8], root: &Path) -> Result<Vec<Package>> {
    let value: Value = serde_json::from_slice(json).context("reading cargo metadata: not JSON")?;
    let packages = list(&value, "packages")?;
    packages.iter().map(|package| parse_package(package, root)).collect()
}

fn parse_package(package: &Value, root: &Path) -> Result<Package> {
    let name = text(package, "name")?;
    let manifest = Path::new(text(package, "manifest_path")?);
    let dir = manifest.parent().and_then(|dir| relative(dir, root)).with_context(|| {
        format!("reading cargo metadata: {} is outside {}", manifest.display(), root.display())
    })?;
    let dependencies = list(package, "dependencies")?
        .iter()
        .map(|dependency| parse_dependency(dependency, root))
        .collect::<Result<_>>()
        .with_context(|| format!("in crate {name}"))?;
    Ok(Package {
        name: name.to_owned(),
        dir,
        description: package["description"].as_str().map(str::to_owned),
        dependencies,
    })
}

fn parse_dependency(dependency: &Value, root: &Path) -> Result<Dependency> {
    let kind = match dependency["kind"].as_str() {
        None => Kind::Normal,
        Some("build") => Kind::Build,
        Some("dev") => Kind::Dev,
        Some(other) => anyhow::bail!("reading cargo metadata: unknown kind of dependency {other:?}"),
    };
    let dir = dependency["path"].as_str().and_then(|path| relative(Path::new(path), root));
    Ok(Dependency { name: text(dependency, "name")?.to_owned(), kind, dir })
}

fn relative(path: &Path, root: &Path) -> Option<String> {
    Some(path.strip_prefix(root).ok()?.to_str()?.to_owned())
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("reading cargo metadata: no text {key:?}"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("reading cargo metadata: no list {key:?}"))
}

#[cfg(test)]
impl Package {
    /// A crate without dependencies.
    pub(super) fn at(dir: &str) -> Self {
        Self {
            name: dir.replace('/', "-"),
            dir: dir.to_owned(),
            description: Some("a crate".to_owned()),
            dependencies: vec![],
        }
    }

    /// Adds a dependency on the workspace crate in `dir`.
    pub(super) fn needs(mut self, kind: Kind, dir: &str) -> Self {
        let name = dir.replace('/', "-");
        self.dependencies.push(Dependency { name, kind, dir: Some(dir.to_owned()) });
        self
    }

    /// Adds a dependency on a crate from a registry.
    pub(super) fn needs_external(mut self, kind: Kind, name: &str) -> Self {
        self.dependencies.push(Dependency { name: name.to_owned(), kind, dir: None });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_folders_are_read() {
        let json = br#"{"packages": [{
            "name": "a", "manifest_path": "/p/core/a/Cargo.toml", "description": null,
            "dependencies": [
                {"name": "b", "kind": null, "path": "/p/core/b"},
                {"name": "serde", "kind": "build"},
                {"name": "away", "kind": "dev", "path": "/elsewhere/away"}
            ]}]}"#;
        let wanted = Package { name: "a".into(), description: None, ..Package::at("core/a") }
            .needs(Kind::Normal, "core/b")
            .needs_external(Kind::Build, "serde")
            .needs_external(Kind::Dev, "away");
        let mut seen = parse(json, Path::new("/p")).unwrap();
        seen[0].dependencies[0].name = "core-b".into();
        assert_eq!(seen, [wanted]);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(parse(b"{}", Path::new("/p")).is_err());
        assert!(parse(b"no", Path::new("/p")).is_err());
    }
}
