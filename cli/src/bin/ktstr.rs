//! `ktstr`: what needs no cargo.

fn main() -> std::process::ExitCode {
    ktstr::cli::ktstr()
}
