//! Reads what `iptables-save` prints, and compares it with what was planned.
//!
//! What is saved is written otherwise than what was restored (other order of options, hexadecimal
//! marks, masks that mean nothing), so both are brought to one form before they are compared.

use ipnet::IpNet;

use super::rules::{Family, Jump, PREFIX, Rules, Table, TableRules};

/// Options of no module.
const OF_ALL: [&str; 7] = ["-i", "-o", "-p", "-s", "-d", "-j", "-g"];

/// What is ours in the text.
pub(crate) fn parse(text: &str) -> Rules {
    let mut rules = Rules::default();
    let mut table = None;
    let mut before: Vec<(String, bool)> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|t| t.name() == name.trim());
            before.clear();
        }
        let Some(table) = table else { continue };
        if let Some(chain) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            if chain.starts_with(PREFIX) {
                rules.tables.entry(table).or_default().chains.entry(chain.to_owned()).or_default();
            }
            continue;
        }
        let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let ours = target(rule).is_some_and(|target| target.starts_with(PREFIX));
        if chain.starts_with(PREFIX) {
            let found = rules.tables.entry(table).or_default();
            found.chains.entry(chain.to_owned()).or_default().push(rule.to_owned());
        } else if ours {
            let first = before.iter().all(|(other, ours)| other != chain || *ours);
            let jump = Jump { from: chain.to_owned(), rule: rule.to_owned(), first };
            rules.tables.entry(table).or_default().jumps.push(jump);
        }
        before.push((chain.to_owned(), ours));
    }
    rules
}

/// Whether any table holds a rule, of whomever.
pub(crate) fn has_rules(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("-A "))
}

fn target(rule: &str) -> Option<String> {
    let words = words(rule);
    let at = words.iter().position(|w| !w.quoted && ["-j", "-g"].contains(&w.text.as_str()))?;
    words.get(at + 1).map(|word| word.text.clone())
}

/// One word of a rule; a quoted one is never an option.
struct Word {
    text: String,
    quoted: bool,
}

fn words(rule: &str) -> Vec<Word> {
    let mut found = Vec::new();
    let mut rest = rule.trim_start().chars().peekable();
    while rest.peek().is_some() {
        let quoted = rest.next_if_eq(&'"').is_some();
        let mut text = String::new();
        while let Some(c) = rest.next() {
            match c {
                '"' if quoted => break,
                ' ' if !quoted => break,
                '\\' => text.extend(rest.next()),
                other => text.push(other),
            }
        }
        while rest.next_if_eq(&' ').is_some() {}
        found.push(Word { text, quoted });
    }
    found
}

/// The comment of a rule, `""` where it has none.
pub(crate) fn comment(rule: &str) -> String {
    let words = words(rule);
    let at = words.iter().position(|w| !w.quoted && w.text == "--comment");
    at.and_then(|at| words.get(at + 1)).map_or_else(String::new, |w| w.text.clone())
}

/// A rule in a form in which two that say the same are equal.
pub(crate) fn canonical(rule: &str) -> Vec<String> {
    let words = words(rule);
    let is_option = |w: &Word| !w.quoted && w.text.len() > 1 && w.text.starts_with('-');
    let is_not = |w: &Word| !w.quoted && w.text == "!";
    let mut found = Vec::new();
    let (mut module, mut used, mut not) = (String::new(), true, false);
    let mut at = 0;
    while let Some(word) = words.get(at) {
        at += 1;
        if is_not(word) {
            not = true;
            continue;
        }
        let mut values = Vec::new();
        while let Some(value) = words.get(at).filter(|w| !is_option(w) && !is_not(w)) {
            values.push(value.text.clone());
            at += 1;
        }
        let value = values.join(" ");
        if word.text == "-m" {
            if !used {
                found.push(format!("-m {module}"));
            }
            // These two come with the protocol.
            let implied = ["tcp", "udp"].contains(&value.as_str());
            module = if implied { String::new() } else { value };
            used = implied;
        } else {
            found.extend(option(&module, not, &word.text, &value));
            let target = ["-j", "-g"].contains(&word.text.as_str());
            if target && !used {
                found.push(format!("-m {module}"));
            }
            used |= target || !OF_ALL.contains(&word.text.as_str());
            if target {
                module = value;
            }
        }
        not = false;
    }
    if !used {
        found.push(format!("-m {module}"));
    }
    found.sort();
    found
}

/// One option with its value; `None` for those that say what holds without them.
fn option(module: &str, not: bool, name: &str, value: &str) -> Option<String> {
    const WHOLE: &str = "/0xffffffff";
    let value = match (module, name) {
        (_, "-s" | "-d") => range(value),
        (_, "-p") => protocol(value).to_owned(),
        ("CONNMARK", "--nfmask" | "--ctmask") if value == "0xffffffff" => return None,
        ("TPROXY", "--on-ip") if ["0.0.0.0", "::"].contains(&value) => return None,
        ("mark" | "connmark" | "MARK" | "CONNMARK" | "TPROXY", _) => {
            number(value.strip_suffix(WHOLE).unwrap_or(value))
        }
        ("conntrack", "--ctstate") => {
            let mut states: Vec<&str> = value.split(',').collect();
            states.sort_unstable();
            states.join(",")
        }
        _ => value.to_owned(),
    };
    let module = if OF_ALL.contains(&name) { "" } else { module };
    Some(format!("{module} {}{name} {value}", if not { "! " } else { "" }))
}

fn range(value: &str) -> String {
    let net = value
        .parse::<IpNet>()
        .or_else(|_| value.parse().map(|address: std::net::IpAddr| address.into()));
    net.map_or_else(|_| value.to_owned(), |net: IpNet| net.trunc().to_string())
}

fn protocol(value: &str) -> &str {
    match value {
        "6" => "tcp",
        "17" => "udp",
        other => other,
    }
}

fn number(value: &str) -> String {
    let hexadecimal = value.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
    hexadecimal.map_or_else(|| value.to_owned(), |n| n.to_string())
}

/// The first difference between what is wanted and what is there.
pub(crate) fn difference(family: Family, wanted: &Rules, found: &Rules) -> Option<String> {
    let nothing = TableRules::default();
    Table::ALL.into_iter().find_map(|table| {
        let wanted = wanted.tables.get(&table).unwrap_or(&nothing);
        let found = found.tables.get(&table).unwrap_or(&nothing);
        let what = table_difference(wanted, found)?;
        Some(format!("{} table {}: {what}", family.name(), table.name()))
    })
}

fn table_difference(wanted: &TableRules, found: &TableRules) -> Option<String> {
    let names = |table: &TableRules| table.chains.keys().cloned().collect::<Vec<_>>().join(", ");
    jump_difference(wanted, found).or_else(|| {
        if !wanted.chains.keys().eq(found.chains.keys()) {
            return Some(format!(
                "the chains are not the planned ones: planned [{}], found [{}]",
                names(wanted),
                names(found)
            ));
        }
        let pairs = wanted.chains.iter().zip(found.chains.values());
        pairs.into_iter().find_map(|((chain, wanted), found)| {
            rule_difference(wanted, found).map(|what| format!("chain {chain}, {what}"))
        })
    })
}

fn jump_difference(wanted: &TableRules, found: &TableRules) -> Option<String> {
    for jump in &found.jumps {
        let planned = wanted.jumps.iter().find(|w| w.from == jump.from);
        let Some(planned) = planned else {
            return Some(format!("the jump from {} is not planned", jump.from));
        };
        let (found_note, planned_note) = (comment(&jump.rule), comment(&planned.rule));
        if found_note != planned_note {
            return Some(format!(
                "the rules are those of other settings ({found_note:?}, planned {planned_note:?})"
            ));
        }
        if canonical(&jump.rule) != canonical(&planned.rule) {
            return Some(format!("the jump from {} is not the planned one", jump.from));
        }
        if !jump.first {
            return Some(format!("in {} a rule of somebody else stands first", jump.from));
        }
    }
    wanted.jumps.iter().find_map(|jump| {
        match found.jumps.iter().filter(|f| f.from == jump.from).count() {
            0 => Some(format!("the jump from {} is missing", jump.from)),
            1 => None,
            n => Some(format!("{n} jumps from {} are there, one is planned", jump.from)),
        }
    })
}

fn rule_difference(wanted: &[String], found: &[String]) -> Option<String> {
    let form = |rules: &[String], at: usize| rules.get(at).map(|rule| canonical(rule));
    let longest = wanted.len().max(found.len());
    let at = (0..longest).find(|at| form(wanted, *at) != form(found, *at))?;
    let place = format!("rule {}", at + 1);
    Some(match (wanted.get(at), found.get(at)) {
        (Some(wanted), Some(found)) if comment(wanted) == comment(found) => {
            format!("{place} ({:?}) does something else: {found}", comment(wanted))
        }
        (Some(wanted), Some(found)) => {
            format!("{place}: planned {:?}, found {:?}", comment(wanted), comment(found))
        }
        (Some(wanted), None) => format!("{place} ({:?}) is missing", comment(wanted)),
        (None, _) => format!("{place} is not planned"),
    })
}

#[cfg(test)]
mod tests {
    use super::{canonical, parse};
    use crate::iptables::rules::Table;

    #[test]
    fn what_is_saved_is_what_was_restored() {
        for (restored, saved) in [
            (
                r#"-o lo -p tcp ! -d 127.0.0.1 --dport 53 -m comment --comment "a: b's" -j RETURN"#,
                r#"! -d 127.0.0.1/32 -o lo -p tcp -m tcp --dport 53 -m comment --comment "a: b\'s" -j RETURN"#,
            ),
            (
                "-p tcp -j TPROXY --on-port 15006 --tproxy-mark 1337",
                "-p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff",
            ),
            (
                "-m connmark --mark 1337 -m mark ! --mark 7 -j CONNMARK --restore-mark",
                "-m mark ! --mark 0x7 -m connmark --mark 0x539 -j CONNMARK --restore-mark \
                 --nfmask 0xffffffff --ctmask 0xffffffff",
            ),
            (
                "-d fd05:0::/32 -m conntrack --ctstate ESTABLISHED,RELATED -g X",
                "-d fd05::/32 -m conntrack --ctstate RELATED,ESTABLISHED -g X",
            ),
        ] {
            assert_eq!(canonical(restored), canonical(saved));
        }
    }

    #[test]
    fn what_says_something_else_differs() {
        let rules = [
            "-p tcp --dport 53 -j RETURN",
            "-p tcp --sport 53 -j RETURN",
            "-p tcp --dport 54 -j RETURN",
            "-p udp --dport 53 -j RETURN",
            "-p tcp ! --dport 53 -j RETURN",
            "-p tcp --dport 53 -g RETURN",
            "-p tcp --dport 53 -m socket -j RETURN",
            "-p tcp --dport 53 -m mark --mark 1 -j RETURN",
            "-p tcp --dport 53 -m connmark --mark 1 -j RETURN",
            "-p tcp --dport 53 -m connmark --mark 0x1/0xff -j RETURN",
            "-p tcp --dport 53 -m connmark --mark 1 -j RETURN -m comment --comment \"! -j X\"",
        ];
        for (n, one) in rules.iter().enumerate() {
            for other in &rules[n + 1..] {
                assert_ne!(canonical(one), canonical(other));
            }
        }
    }

    #[test]
    fn only_what_is_ours_is_taken_in() {
        let text = "# x\n*filter\n:LATEEN_X - [0:0]\n-A INPUT -j LATEEN_X\nCOMMIT\n*nat\n\
            :OUTPUT ACCEPT [0:0]\n:LATEEN_OUTPUT - [0:0]\n:OTHER - [0:0]\n-A OUTPUT -j OTHER\n\
            -A PREROUTING -m comment --comment \"-j LATEEN_X\" -j OTHER\n\
            -A OUTPUT -m comment --comment \"-j OTHER\" -j LATEEN_OUTPUT\n\
            -A LATEEN_OUTPUT -j RETURN\nCOMMIT\n";
        let found = parse(text);
        assert_eq!(found.tables.len(), 1);
        let nat = &found.tables[&Table::Nat];
        assert_eq!(nat.chains["LATEEN_OUTPUT"], ["-j RETURN"]);
        assert_eq!(nat.jumps.len(), 1);
        assert!(!nat.jumps[0].first, "a rule of somebody else stands before");
    }
}
