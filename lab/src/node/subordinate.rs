//! Subordinate ids of a user, as `/etc/subuid` and `/etc/subgid` give them.
//!
//! Pure: text in, range out.

/// Ids `first..first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// The largest range that `text` gives the user, who is named there by name or by number.
pub(super) fn range(text: &str, user: &str, uid: u32) -> Option<Range> {
    let number = uid.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut parts = line.trim().split(':');
        let name = parts.next()?;
        let range =
            Range { first: parts.next()?.parse().ok()?, count: parts.next()?.parse().ok()? };
        ((name == user || name == number) && parts.next().is_none()).then_some(range)
    });
    ranges.max_by_key(|range| range.count)
}

#[cfg(test)]
mod tests {
    use super::{Range, range};

    #[test]
    fn the_largest_range_of_the_user_is_taken() {
        let text = "# x\nalice:100000:65536\nbob:165536:65536\n1000:300000:70000\nalice:1:2:3\n";
        assert_eq!(range(text, "bob", 1001), Some(Range { first: 165_536, count: 65536 }));
        assert_eq!(range(text, "alice", 1000), Some(Range { first: 300_000, count: 70000 }));
        assert_eq!(range(text, "carol", 1002), None);
        assert_eq!(range("alice:x:1", "alice", 1000), None);
    }
}
