//! The command `distill`: see `distill --help`.

fn main() -> std::process::ExitCode {
    datafusion_distill::cli::main()
}
