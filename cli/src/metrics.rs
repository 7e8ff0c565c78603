//! Reading Prometheus text: the sum of the series that carry given labels.

/// Sums all series of `metric` in `text` whose label set holds every pair of `labels`.
#[must_use]
pub fn sum(text: &str, metric: &str, labels: &[(&str, &str)]) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{')?.rsplit_once("} "))
        .filter(|(set, _)| {
            labels.iter().all(|(name, value)| {
                let pair = format!("{name}=\"{value}\"");
                set.split(',').any(|given| given == pair)
            })
        })
        .filter_map(|(_, value)| value.split_whitespace().next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn only_series_with_all_labels_are_summed() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab{x=\"1\"} 9\n";
        assert_eq!(sum(text, "a", &[("x", "1")]), 7.0);
        assert_eq!(sum(text, "a", &[("x", "1"), ("y", "3")]), 4.0);
        assert_eq!(sum(text, "a", &[("x", "2")]), 0.0);
    }
}
