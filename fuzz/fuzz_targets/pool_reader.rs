#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| datafusion_distill_fuzz::pool_reader(data));
