//! Probes on functions of the kernel that runs here, by its own word on their arguments.

use ktstr_live_kernel::BtfTypes;
use ktstr_scheduler::ports::{KernelTypes, MemberPlace, Prototype};
use ktstr_scheduler::repro::{Probe, define};
use std::path::Path;

/// A probe for each function; without arguments where the kernel does not tell its types.
pub(super) fn of_functions(functions: &[String]) -> Vec<Probe> {
    let types: Box<dyn KernelTypes> = match BtfTypes::open(Path::new(BtfTypes::OF_RUNNING)) {
        Ok(types) => Box::new(types),
        Err(e) => {
            eprintln!("ktstr: probing functions without their arguments: {e}");
            Box::new(NoTypes)
        }
    };
    functions.iter().map(|function| define(function, types.as_ref())).collect()
}

/// A kernel that tells nothing.
struct NoTypes;

impl KernelTypes for NoTypes {
    fn prototype(&self, _function: &str) -> Option<Prototype> {
        None
    }

    fn member(&self, _of: &str, _path: &str) -> Option<MemberPlace> {
        None
    }

    fn scalars(&self, _of: &str, _most: usize) -> Vec<String> {
        Vec::new()
    }
}
