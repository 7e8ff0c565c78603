//! Quantities of Kubernetes: `100m`, `1`, `128Mi`.
//!
//! Pure and exact up to a thousandth.

/// Thousandths of a quantity; `None` for what is none.
pub(super) fn thousandths(text: &str) -> Option<i128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: i128 = match unit {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_i128.pow(2),
        "G" => 1000 * 1000_i128.pow(3),
        "T" => 1000 * 1000_i128.pow(4),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{part}");
    let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    Some(digits.parse::<i128>().ok()?.checked_mul(factor)? / scale)
}

/// How many times `divisor` goes into `quantity`, rounded up. Texts as Kubernetes has them.
pub(super) fn divide(quantity: &str, divisor: &str) -> Option<i128> {
    let (quantity, divisor) = (thousandths(quantity)?, thousandths(divisor)?);
    // Of `0`, as where it is left out, 1 is meant.
    let divisor = if divisor == 0 { 1000 } else { divisor };
    Some((quantity + divisor - 1) / divisor)
}

#[cfg(test)]
mod tests {
    use super::divide;

    #[test]
    fn quantities_are_rounded_up() {
        for (quantity, divisor, wanted) in [
            ("2000m", "1", Some(2)),
            ("2", "1m", Some(2000)),
            ("100m", "1", Some(1)),
            ("1.5", "0", Some(2)),
            ("1024Mi", "1", Some(1 << 30)),
            ("128Mi", "1Mi", Some(128)),
            ("1G", "1k", Some(1_000_000)),
            ("0", "1", Some(0)),
            ("many", "1", None),
            ("1", "1x", None),
            ("", "1", None),
        ] {
            assert_eq!(divide(quantity, divisor), wanted, "{quantity} / {divisor}");
        }
    }
}
