//! Where the running kernel's functions are.

use crate::{SystemError, read};
use std::path::Path;

/// The address of a function of the running kernel, as `/proc/kallsyms` has it: the first of that name.
///
/// # Errors
/// [`SystemError::NoFunction`] without such a function, [`SystemError::HiddenAddress`] where the kernel shows zeros
/// instead of addresses (`kernel.kptr_restrict`, or a reader without `CAP_SYSLOG`).
pub fn resolve_func_ip(name: &str) -> Result<u64, SystemError> {
    let text = read::required("reading the kernel's symbols", Path::new("/proc/kallsyms"))?;
    address_in(&text, name)
}

/// Lines are `address type name`, with `[module]` after those of modules; a function's type is `t` or `w`, in
/// capitals where it is global (`kallsyms_get_symbol_type` in kernel/kallsyms.c; nm(1)).
fn address_in(text: &str, name: &str) -> Result<u64, SystemError> {
    let found = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (address, kind, symbol) = (words.next()?, words.next()?, words.next()?);
        let is_function = matches!(kind, "t" | "T" | "w" | "W");
        (is_function && symbol == name).then(|| u64::from_str_radix(address, 16).ok()).flatten()
    });
    match found {
        None => Err(SystemError::NoFunction { name: name.to_string() }),
        Some(0) => Err(SystemError::HiddenAddress { name: name.to_string() }),
        Some(address) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "ffffffff81000000 D schedule\nffffffff81234560 T schedule\nffffffff81234570 t schedule_tail\n\
                        ffffffffc0000010 t helper\t[some_module]\n0000000000000000 T hidden\nnonsense\n";

    #[test]
    fn functions_are_found_by_their_whole_name() {
        assert_eq!(address_in(TEXT, "schedule").unwrap(), 0xffff_ffff_8123_4560);
        assert_eq!(address_in(TEXT, "helper").unwrap(), 0xffff_ffff_c000_0010);
        assert!(matches!(address_in(TEXT, "sched"), Err(SystemError::NoFunction { .. })));
        assert!(matches!(address_in("", "schedule"), Err(SystemError::NoFunction { .. })));
    }

    #[test]
    fn an_address_of_zero_is_no_address() {
        let error = address_in(TEXT, "hidden").unwrap_err();
        assert!(matches!(error, SystemError::HiddenAddress { .. }));
        assert!(error.to_string().contains("kptr_restrict"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_the_text_it_is_zero_for_nobody(text in "([0-9a-f]{0,17} [tTdw] [a-c]{1,2}\n){0,9}", name in "[a-c]{1,2}") {
            if let Ok(address) = address_in(&text, &name) {
                prop_assert!(address != 0 && text.contains(&name));
            }
        }
    }
}
