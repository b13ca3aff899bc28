//! The `roomcast` program: picks the allocator and hands over to the command line.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before the heap grows. It only saves memory: where the kernel refuses, all else works.
    let _ = roomcast::net::sys::forbid_huge_pages();
    roomcast::cli::main()
}
