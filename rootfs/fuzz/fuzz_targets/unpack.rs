//! cargo +nightly fuzz run --fuzz-dir rootfs/fuzz unpack
#![no_main]

libfuzzer_sys::fuzz_target!(|archive: &[u8]| rootfs::fuzz::unpack(archive));
