//! The running kernel's symbols, as `/proc/kallsyms` lists them.

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_symbols::{SymbolKind, SymbolTable, SymbolTableBuilder};

/// A kernel has some hundred thousand.
const TYPICAL: usize = 1 << 18;

/// The list is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KallsymsError {
    /// The kernel shows zeros.
    #[error(
        "the kernel hides its addresses: all {0} symbols of /proc/kallsyms are at 0; run as root with \
         kernel.kptr_restrict at most 1"
    )]
    Hidden(usize),
    /// It lists nothing.
    #[error("/proc/kallsyms lists no symbol of the kernel: expected one built with CONFIG_KALLSYMS")]
    Empty,
}

/// The kernel's own symbols at their runtime addresses: not those of modules and of BPF programs, which stand in
/// brackets. Lines are `address type name`; what else there may be is passed over (`s_show` of kernel/kallsyms.c).
///
/// # Errors
/// [`KallsymsError`]
pub fn parse_kallsyms(text: &str) -> Result<SymbolTable, KallsymsError> {
    let mut builder = SymbolTableBuilder::with_capacity(TYPICAL, 24 * TYPICAL);
    let (mut all, mut placed) = (0, 0);
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(kind), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (Ok(address), Some(kind)) = (u64::from_str_radix(address, 16), kind_of(kind)) else { continue };
        all += 1;
        placed += usize::from(address != 0);
        builder.push(name.as_bytes(), VirtAddr(address), 0, kind);
    }
    match (all, placed) {
        (0, _) => Err(KallsymsError::Empty),
        (all, 0) => Err(KallsymsError::Hidden(all)),
        _ => Ok(builder.build()),
    }
}

/// By nm(1)'s letter.
fn kind_of(letter: &str) -> Option<SymbolKind> {
    let mut letters = letter.chars();
    let (Some(letter), None) = (letters.next(), letters.next()) else { return None };
    Some(match letter.to_ascii_lowercase() {
        't' | 'w' | 'i' => SymbolKind::Function,
        'd' | 'b' | 'r' | 'v' | 'g' | 's' => SymbolKind::Object,
        'a' | 'n' | 'u' | 'c' | '?' => SymbolKind::Label,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "0000000000000000 A fixed_percpu_data\n0000000000034900 D runqueues\n\
                        ffffffff81000000 T _text\nffffffff81234560 t schedule\n\
                        ffffffffc0000010 t helper\t[some_module]\nffffffffc0001000 t bpf_prog_1\t[bpf]\nnonsense\n";

    #[test]
    fn the_kernels_own_symbols_are_kept_at_their_addresses() {
        let table = parse_kallsyms(TEXT).unwrap();
        assert_eq!(table.len(), 4);
        assert_eq!(
            table.lookup("schedule").map(|s| (s.address.0, s.kind)),
            Some((0xffff_ffff_8123_4560, SymbolKind::Function))
        );
        assert_eq!(table.lookup("runqueues").map(|s| s.address.0), Some(0x34900));
        assert!(table.lookup("helper").is_none());
    }

    #[test]
    fn zeros_are_no_addresses() {
        let error = parse_kallsyms("0000000000000000 T _text\n0000000000000000 t schedule\n").unwrap_err();
        assert_eq!(error, KallsymsError::Hidden(2));
        assert!(error.to_string().contains("kptr_restrict"), "{error}");
        assert_eq!(parse_kallsyms("nonsense\n").unwrap_err(), KallsymsError::Empty);
    }

    proptest! {
        #[test]
        fn every_symbol_with_an_address_is_found(symbols in proptest::collection::btree_map("[a-z_]{1,9}", 1u64.., 1..20)) {
            let text: String = symbols.iter().map(|(name, at)| format!("{at:016x} T {name}\n")).collect();
            let table = parse_kallsyms(&text).unwrap();
            for (name, at) in &symbols {
                prop_assert_eq!(table.lookup(name).map(|symbol| symbol.address.0), Some(*at));
            }
        }

        #[test]
        fn no_text_does_harm(text in "([0-9a-f]{0,18}| |[tTdDA?]|[a-z]{1,3}|\\PC|\n)*") {
            let _ = parse_kallsyms(&text);
        }
    }
}
