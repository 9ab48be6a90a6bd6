//! Any text is a set that prints and reads back as itself, or an error inside the text; the lenient
//! reader agrees wherever the strict one reads at all.

#![no_main]

use ktstr_topology::{MAX_CPU, parse_cpu_list, parse_cpu_list_lenient};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lenient = parse_cpu_list_lenient(text);
    assert!(lenient.last() <= Some(MAX_CPU));
    match parse_cpu_list(text) {
        Ok(cpus) => {
            assert_eq!(parse_cpu_list(&cpus.to_string()).as_ref(), Ok(&cpus));
            assert_eq!(lenient, cpus);
        }
        Err(error) => {
            assert!(text.is_char_boundary(error.position()));
            assert!(!error.to_string().is_empty());
        }
    }
});
