//! The command `distill`: see `distill --help`.

/// Training and distilling allocate and free the same large tensors at each step: this allocator keeps their memory, where the system's own gives it
/// back and has it zeroed again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    datafusion_distill::cli::main()
}
