//! A test's own check on the host, whatever it returns.

use ktstr_assert::AssertResult;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a `post_vm` function may return: `Result<()>`, or `Result<AssertResult>` where it makes
/// claims.
pub trait HostVerdict {
    /// As a result to merge with the guest's.
    fn into_result(self) -> AssertResult;
}

impl HostVerdict for () {
    fn into_result(self) -> AssertResult {
        AssertResult::pass()
    }
}

impl HostVerdict for AssertResult {
    fn into_result(self) -> AssertResult {
        self
    }
}

impl<T: HostVerdict> HostVerdict for anyhow::Result<T> {
    fn into_result(self) -> AssertResult {
        match self {
            Ok(inner) => inner.into_result(),
            Err(e) => AssertResult::fail(format!("the check on the host (post_vm) failed: {e:#}")),
        }
    }
}

/// Calls the check; a panic of it is a failure.
#[doc(hidden)]
pub fn host_check<T: HostVerdict>(check: impl FnOnce() -> T) -> AssertResult {
    catch_unwind(AssertUnwindSafe(|| check().into_result())).unwrap_or_else(|payload| {
        let text = panic_text(payload.as_ref());
        AssertResult::fail(format!("the check on the host (post_vm) panicked: {text}"))
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_fail() {
        assert!(host_check(|| anyhow::Ok(())).is_pass());
        assert!(host_check(|| anyhow::Ok(AssertResult::inconclusive("x"))).is_inconclusive());
        let failed = host_check(|| Err::<(), _>(anyhow::anyhow!("no such snapshot")));
        assert!(failed.details[0].message.ends_with("failed: no such snapshot"));
        assert!(host_check(|| -> anyhow::Result<()> { panic!("boom") }).is_fail());
    }
}
