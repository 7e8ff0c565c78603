//! What one rendering may use.
//!
//! Counted, not timed: the same template and data give the same answer on every machine. A step
//! is a node, a function call, or 64 bytes that a function reads. Must not know what is done.

/// Longest text of a template, bytes.
pub(super) const TEXT_BYTES: usize = 256 * 1024;
/// Deepest nesting of actions and of parentheses in a text.
pub(super) const NESTING: usize = 40;
/// Deepest nesting of bodies, pipelines and templates while rendering. With it a rendering takes
/// a third of the 2 MiB of stack that a thread has, unoptimised.
pub(super) const DEPTH: usize = 100;
/// Largest rendered text, bytes.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// Largest value that a function makes, in bytes as if it shared nothing.
pub(crate) const VALUE_BYTES: usize = 4 * 1024 * 1024;
/// Deepest value that a function makes.
pub(super) const VALUE_DEPTH: usize = 200;
/// Bytes that all functions together make.
const MADE_BYTES: usize = 32 * 1024 * 1024;
/// Steps.
const STEPS: usize = 500_000;
/// Bytes that a function reads in a step.
const STEP_BYTES: usize = 64;

/// What is left.
#[derive(Debug)]
pub(super) struct Meter {
    steps: usize,
    made: usize,
    output: usize,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { steps: STEPS, made: MADE_BYTES, output: OUTPUT_BYTES }
    }

    /// A step, and what it reads.
    pub(super) fn step(&mut self, bytes: usize) -> Result<(), String> {
        match self.steps.checked_sub(1 + bytes / STEP_BYTES) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => Err(format!("takes more than {STEPS} steps")),
        }
    }

    /// A value that was made.
    pub(super) fn make(&mut self, bytes: usize) -> Result<(), String> {
        match self.made.checked_sub(bytes) {
            Some(left) => {
                self.made = left;
                Ok(())
            }
            None => Err(format!("makes more than {MADE_BYTES} bytes of values")),
        }
    }

    /// Text that is written.
    pub(super) fn write(&mut self, bytes: usize) -> Result<(), String> {
        match self.output.checked_sub(bytes) {
            Some(left) => {
                self.output = left;
                Ok(())
            }
            None => Err(format!("renders more than {OUTPUT_BYTES} bytes")),
        }
    }
}

/// Whether a function may make a text of this length; asked before it is made.
pub(super) fn room(bytes: usize) -> Result<(), String> {
    if bytes > VALUE_BYTES {
        return Err(format!("would make more than {VALUE_BYTES} bytes"));
    }
    Ok(())
}
