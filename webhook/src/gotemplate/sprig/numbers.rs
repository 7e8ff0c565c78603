//! Arithmetic. Whole numbers wrap around, as Go's do.

use super::super::syntax::{ANY, Call, Entry, Made};
use super::super::value::Value;
use super::kinds::{as_float, as_int};

pub(super) static ENTRIES: &[Entry] = &[
    Entry::new("add", (0, ANY), |call| Ok(fold(call, i64::wrapping_add))),
    Entry::new("sub", (2, 2), |call| Ok(fold(call, i64::wrapping_sub))),
    Entry::new("mul", (1, ANY), |call| Ok(fold(call, i64::wrapping_mul))),
    Entry::new("div", (2, 2), |call| divided(call, i64::wrapping_div)),
    Entry::new("mod", (2, 2), |call| divided(call, i64::wrapping_rem)),
    Entry::new("add1", (1, 1), |call| Ok(Value::Int(as_int(&call.args[0]).wrapping_add(1)))),
    Entry::new("max", (1, ANY), |call| Ok(fold(call, i64::max))),
    Entry::new("biggest", (1, ANY), |call| Ok(fold(call, i64::max))),
    Entry::new("min", (1, ANY), |call| Ok(fold(call, i64::min))),
    Entry::new("addf", (1, ANY), |call| Ok(fold_floats(call, |a, b| a + b))),
    Entry::new("subf", (2, ANY), |call| Ok(fold_floats(call, |a, b| a - b))),
    Entry::new("mulf", (1, ANY), |call| Ok(fold_floats(call, |a, b| a * b))),
    Entry::new("divf", (2, ANY), |call| Ok(fold_floats(call, |a, b| a / b))),
    Entry::new("maxf", (1, ANY), |call| Ok(fold_floats(call, f64::max))),
    Entry::new("minf", (1, ANY), |call| Ok(fold_floats(call, f64::min))),
    Entry::new("ceil", (1, 1), |call| Ok(Value::Float(as_float(&call.args[0]).ceil()))),
    Entry::new("floor", (1, 1), |call| Ok(Value::Float(as_float(&call.args[0]).floor()))),
    Entry::new("round", (2, 3), |call| {
        let places = as_int(&call.args[1]).clamp(-15, 15);
        let scale = 10f64.powi(i32::try_from(places).unwrap_or_default());
        Ok(Value::Float((as_float(&call.args[0]) * scale).round() / scale))
    }),
];

fn fold(call: &Call<'_>, with: fn(i64, i64) -> i64) -> Value {
    Value::Int(call.args.iter().map(as_int).reduce(with).unwrap_or_default())
}

fn fold_floats(call: &Call<'_>, with: fn(f64, f64) -> f64) -> Value {
    Value::Float(call.args.iter().map(as_float).reduce(with).unwrap_or_default())
}

fn divided(call: &Call<'_>, with: fn(i64, i64) -> i64) -> Made {
    match as_int(&call.args[1]) {
        0 => Err("divides by zero".to_owned()),
        by => Ok(Value::Int(with(as_int(&call.args[0]), by))),
    }
}

/// The whole part; numbers beyond 64 bits stop at the last one.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, which is what is wanted")]
pub(super) fn truncated(value: f64) -> i64 {
    value as i64
}
