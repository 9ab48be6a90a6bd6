//! What the kernel that runs here tells of its own types, and what is made of it.

use ktstr_guest_init::complain;
use ktstr_live_kernel::BtfTypes;
use ktstr_scheduler::ports::{KernelTypes, MemberPlace, Prototype};
use ktstr_scheduler::repro::{Probe, define};
use std::path::Path;

/// The types of the running kernel, or why there are none.
pub(super) fn open() -> Result<BtfTypes, String> {
    BtfTypes::open(Path::new(BtfTypes::OF_RUNNING)).map_err(|e| e.to_string())
}

/// A probe for each function; without arguments where the kernel does not tell its types.
pub(super) fn probes(functions: &[String], types: Result<&BtfTypes, &String>) -> Vec<Probe> {
    let types: &dyn KernelTypes = match types {
        Ok(types) => types,
        Err(why) => {
            complain(&format!("ktstr: probing functions without their arguments: {why}"));
            &NoTypes
        }
    };
    functions.iter().map(|function| define(function, types)).collect()
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

    fn callbacks(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    fn id(&self, _of: &str) -> Option<u32> {
        None
    }
}
