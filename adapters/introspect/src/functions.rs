//! Where functions of a kernel stand in its source.

use std::collections::BTreeMap;
use std::path::Path;

/// The first line of each of these functions, such as `kernel/sched/ext.c:3210`, as far as `vmlinux` has debug
/// information for it. Nothing is told of a file that can't be read: lines are a help and no result.
#[cfg(feature = "dwarf")]
pub fn function_lines(vmlinux: &Path, functions: &[&str]) -> BTreeMap<String, String> {
    use ktstr_introspect_dwarf::{DebugSections, SourceLines};
    let Ok(file) = ktstr_introspect_symbols::Vmlinux::open(vmlinux) else { return BTreeMap::new() };
    let (Ok(symbols), Ok(sections)) = (file.symbols(), DebugSections::read(file.bytes())) else {
        return BTreeMap::new();
    };
    let Ok(lines) = SourceLines::open(&sections) else { return BTreeMap::new() };
    let place = |function: &&str| {
        let frames = lines.frames(symbols.lookup(function)?.address).ok()?;
        // The outermost: what is inlined at the first instruction is another function.
        let frame = frames.last()?;
        let (file, line) = (frame.file.as_deref()?, frame.line?);
        Some(((*function).to_string(), format!("{file}:{line}")))
    };
    functions.iter().filter_map(place).collect()
}

/// Built without a reader of debug information.
#[cfg(not(feature = "dwarf"))]
pub fn function_lines(_: &Path, _: &[&str]) -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[cfg(all(test, feature = "dwarf"))]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_of_what_is_no_kernel() {
        assert!(function_lines(Path::new("/no/such/vmlinux"), &["schedule"]).is_empty());
        let own = std::env::current_exe().unwrap();
        assert!(function_lines(&own, &["no_such_function"]).is_empty());
    }
}
