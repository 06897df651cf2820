//! cargo +nightly fuzz run --fuzz-dir rootfs/fuzz layout
#![no_main]

libfuzzer_sys::fuzz_target!(|documents: &[u8]| rootfs::fuzz::layout(documents));
