#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sticky_core::fuzzing::bus(bytes));
