//! The kept corpus, and small changes of it, through every target.
//!
//! What an engine once found stays found: its input lies in `corpus/` for ever.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lateen_fuzz::{TARGETS, Target, named};

/// Longest an input may take, in a build that is not optimised, on a machine that does other things.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest input kept.
const MAX_KEPT: usize = 64 << 10;
/// Changes of each input.
const CHANGES: u64 = 24;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn inputs(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpus().join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// Runs one input; a panic is told with the file it came from.
fn run(target: Target, name: &str, input: &[u8]) {
    let begin = Instant::now();
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    assert!(outcome.is_ok(), "target {} fails with {name}: {:?}", target.name, text(input));
    let taken = begin.elapsed();
    assert!(taken < PATIENCE, "target {} takes {taken:?} for {name}", target.name);
}

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).chars().take(2000).collect()
}

/// A cheap, repeatable source of numbers (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }
}

/// Cut, doubled, or with a byte that is another.
fn changed(input: &[u8], seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut bytes = input.to_vec();
    let place = numbers.below(bytes.len());
    match numbers.below(4) {
        0 => bytes.truncate(place),
        1 => {
            let part = bytes[place..].to_vec();
            bytes.extend(part);
        }
        2 => {
            let end = (place + 1 + numbers.below(8)).min(bytes.len());
            bytes.drain(place..end);
        }
        _ => {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = u8::try_from(numbers.below(256)).unwrap();
            }
        }
    }
    bytes
}

#[test]
fn every_input_that_is_kept_passes() {
    for target in TARGETS {
        let inputs = inputs(target);
        assert!(inputs.len() > 1, "{} has no seeds", target.name);
        for (file, input) in inputs {
            assert!(input.len() <= MAX_KEPT, "{} is too large to be kept", file.display());
            run(target, &file.display().to_string(), &input);
        }
    }
}

#[test]
fn so_do_small_changes() {
    for target in TARGETS {
        for (file, input) in inputs(target) {
            for seed in 0..CHANGES {
                let name = format!("{}, changed by {seed}", file.display());
                run(target, &name, &changed(&input, seed));
            }
        }
    }
}

#[test]
fn every_folder_belongs_to_a_target() {
    for entry in fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(named(name.to_str().unwrap()).is_some(), "corpus/{}", name.display());
    }
    assert!(TARGETS.windows(2).all(|pair| pair[0].name < pair[1].name), "sort TARGETS by name");
}
