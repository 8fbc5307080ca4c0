//! The program that `tests/fuzz/run` starts: libFuzzer around one target, named by `LEASEHOLD_FUZZ_TARGET`.

#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<&leasehold_fuzz::Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("LEASEHOLD_FUZZ_TARGET").unwrap_or_default();
    match leasehold_fuzz::find(&name) {
        Some(target) => drop(TARGET.set(target)),
        None => {
            eprintln!("LEASEHOLD_FUZZ_TARGET={name} is no target; see tests/fuzz/run");
            std::process::exit(2);
        }
    }
}

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    if let Some(target) = TARGET.get() {
        leasehold_fuzz::run(target, data);
    }
});
