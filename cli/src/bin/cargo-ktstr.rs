//! `cargo ktstr`: tests and kernels, from within a cargo project.

fn main() -> std::process::ExitCode {
    ktstr::cli::cargo_ktstr()
}
