//! The engine: libFuzzer makes inputs by what they reach, the target of its first folder takes them.
//!
//! `cargo xtask fuzz` builds and runs it with the flags it needs.
#![no_main]

use std::sync::OnceLock;

use lateen_fuzz::{Target, settings};

static CHOSEN: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let target = settings::of_this_process().expect("the first folder is named after a target");
        CHOSEN.get_or_init(|| target);
    },
    |data: &[u8]| {
        if let Some(target) = CHOSEN.get() {
            (target.run)(data);
        }
    }
);
