//! What differs between two texts of rules, line by line, each line under the chain it belongs to.
//!
//! Must not know what a rule is; a line without a rule's indentation or `-A` begins something.

/// Most pairs of lines that are compared one with another; beyond that a part counts as changed whole.
const PAIRS: usize = 1 << 22;

/// What is to go, with `-`, and what is to come, with `+`; empty when nothing is.
#[must_use]
pub fn between(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut text = String::new();
    let (mut family, mut heading, mut told) = ("", String::new(), String::new());
    for (sign, line) in changes(&old, &new) {
        if line.starts_with('#') {
            family = line;
        } else if is_heading(line) {
            heading =
                if line.starts_with('*') { format!("{family} {line}") } else { line.to_owned() };
            if sign != ' ' {
                told.clone_from(&heading);
            }
        }
        if sign == ' ' {
            continue;
        }
        if told != heading {
            text.push_str(&format!("  {heading}\n"));
            told.clone_from(&heading);
        }
        text.push_str(&format!("{sign} {line}\n"));
    }
    text
}

/// A table of iptables, or a chain of nftables.
fn is_heading(line: &str) -> bool {
    line.starts_with('*') || line.trim_start().starts_with("chain ")
}

/// All lines in order: of both, of the old text only, of the new one only.
fn changes<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let before = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after =
        old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) =
        (&old_rest[..old_rest.len() - after], &new_rest[..new_rest.len() - after]);
    let mut found: Vec<(char, &str)> = old[..before].iter().map(|line| (' ', *line)).collect();
    found.extend(middle(old_middle, new_middle));
    found.extend(old[old.len() - after..].iter().map(|line| (' ', *line)));
    found
}

/// By the longest run of lines, not necessarily neighbours, that both have.
fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut common = vec![0_u32; 0];
    if old.len().saturating_mul(new.len()) <= PAIRS {
        common = vec![0; (old.len() + 1) * width];
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                common[i * width + j] = if old[i] == new[j] {
                    common[(i + 1) * width + j + 1] + 1
                } else {
                    common[(i + 1) * width + j].max(common[i * width + j + 1])
                };
            }
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        let at = |i: usize, j: usize| common.get(i * width + j).copied().unwrap_or(0);
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b && at(i, j) > 0 => {
                found.push((' ', *a));
                (i, j) = (i + 1, j + 1);
            }
            (Some(a), b) if b.is_none() || at(i + 1, j) >= at(i, j + 1) => {
                found.push(('-', *a));
                i += 1;
            }
            (_, Some(b)) => {
                found.push(('+', *b));
                j += 1;
            }
            (_, None) => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{between, changes};

    #[test]
    fn a_line_stands_under_its_chain() {
        let old = "table t {\n  chain a {\n    x\n  }\n  chain b {\n    y\n    z\n  }\n}\n";
        let new = "table t {\n  chain a {\n    x\n  }\n  chain b {\n    z\n    w\n  }\n}\n";
        assert_eq!(between(old, new), "    chain b {\n-     y\n+     w\n");
        assert_eq!(between(old, old), "");
    }

    proptest! {
        #[test]
        fn the_difference_leads_from_one_to_the_other(
            old in prop::collection::vec("[a-d]", 0..24),
            new in prop::collection::vec("[a-d]", 0..24),
        ) {
            let old: Vec<&str> = old.iter().map(String::as_str).collect();
            let new: Vec<&str> = new.iter().map(String::as_str).collect();
            let all = changes(&old, &new);
            let side = |sign: char| -> Vec<&str> {
                all.iter().filter(|(s, _)| *s == ' ' || *s == sign).map(|(_, line)| *line).collect()
            };
            prop_assert_eq!(side('-'), old);
            prop_assert_eq!(side('+'), new);
        }
    }
}
