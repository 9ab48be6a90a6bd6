//! From a fragment to a `.config` that has what we need.

use std::fs;
use std::path::Path;

use ktstr_kconfig::{
    EMBEDDED_KCONFIG, Fragment, Value, merge_kconfig_fragments, missing_options, overrides,
    unmet_requirements,
};
use ktstr_kernel::ports::BuildError;
use ktstr_kernel::{Arch, Progress};

use crate::MakeError;

/// The fragment to build with, and the user's part of it.
pub(crate) struct Wanted<'a> {
    pub(crate) fragment: String,
    extra: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Merges the user's fragment into the embedded one and warns of each
    /// option that it changes.
    pub(crate) fn new(extra: Option<&'a str>, progress: &mut dyn Progress) -> Result<Self, MakeError> {
        if let Some(extra) = extra {
            for change in overrides(EMBEDDED_KCONFIG, extra).map_err(MakeError::ExtraKconfig)? {
                progress.warn(format!(
                    "your fragment changes CONFIG_{} from {} to {}",
                    change.option, change.baked, change.extra
                ));
            }
        }
        Ok(Self { fragment: merge_kconfig_fragments(EMBEDDED_KCONFIG, extra).into_owned(), extra })
    }

    /// Does the file `config` already say all of it? A file with lines that
    /// can't be read doesn't count.
    pub(crate) fn satisfied_by(&self, config: &str) -> bool {
        missing_options(&self.fragment, config).is_ok_and(|missing| missing.is_empty())
    }

    /// Puts the fragment behind the lines of `path`; kconfig takes the last
    /// line about an option. Replaces the file by a rename, so that a kill
    /// leaves the user's configuration as it was or complete.
    pub(crate) fn append_to(&self, path: &Path, config: &str) -> Result<(), MakeError> {
        let staged = path.with_file_name(format!(".config.ktstr-{}", std::process::id()));
        fs::write(&staged, format!("{config}\n{}", self.fragment))
            .and_then(|()| fs::rename(&staged, path))
            .map_err(MakeError::io("writing", path))
    }

    /// Checks that the settled `config` has the options that tests can't do
    /// without, except those that the user's own fragment turns off.
    pub(crate) fn require(&self, tree: &Path, config: &str, arch: Arch) -> Result<(), BuildError> {
        let turned_off = self.turned_off()?;
        let unmet: Vec<_> = unmet_requirements(config, arch.name())
            .into_iter()
            .filter(|required| !turned_off.iter().any(|off| off == required.option))
            .collect();
        if unmet.is_empty() {
            return Ok(());
        }
        Err(BuildError::RequiredOptions {
            tree: tree.to_owned(),
            options: unmet.iter().map(|r| format!("CONFIG_{}: {}", r.option, r.remedy)).collect(),
        })
    }

    /// Warns of all that did not stick in the settled `config`. Which options
    /// exist differs from kernel to kernel, so that is no error.
    pub(crate) fn warn_of_missing(&self, config: &str, progress: &mut dyn Progress) {
        // A `.config` that kconfig wrote has no bad lines; if it had, there
        // would be nothing to compare with.
        if let Ok(missing) = missing_options(&self.fragment, config)
            && !missing.is_empty()
        {
            let list: Vec<String> = missing
                .iter()
                .map(|m| format!("CONFIG_{} (wanted {}, got {})", m.option, m.wanted, m.seen))
                .collect();
            progress.warn(format!("options that this kernel did not take: {}", list.join(", ")));
        }
    }

    fn turned_off(&self) -> Result<Vec<String>, MakeError> {
        let extra = Fragment::parse(self.extra.unwrap_or_default());
        let extra = extra.map_err(MakeError::ExtraKconfig)?;
        Ok(extra
            .effective()
            .into_iter()
            .filter(|(_, value)| **value != Value::Yes)
            .map(|(option, _)| option.to_owned())
            .collect())
    }
}
