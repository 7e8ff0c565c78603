//! URLs of configuration: their scheme, and whether they are well-formed, as Go reads the target of
//! a request; that is what the API server's own conditions do.
//!
//! Nothing is fetched, and nothing but the scheme is taken apart for anybody.

use std::net::Ipv6Addr;

/// The scheme of a URL, in lower case; empty for a path.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn scheme(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("it has control characters");
    }
    let (scheme, rest) = split_scheme(text)?;
    let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
    if !rest.starts_with('/') {
        // What follows is opaque: `mailto:somebody`.
        return if scheme.is_empty() { Err("it has no scheme") } else { Ok(scheme) };
    }
    let authority = rest.strip_prefix("//").filter(|_| !scheme.is_empty());
    let path = match authority {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            check_authority(authority)?;
            path
        }
        None => rest,
    };
    check_escapes(path)?;
    Ok(scheme)
}

fn split_scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if index > 0 => {}
            b':' if index == 0 => return Err("its scheme is missing"),
            b':' => {
                let (scheme, rest) = text.split_at(index);
                return Ok((scheme.to_ascii_lowercase(), rest.get(1..).unwrap_or_default()));
            }
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn check_authority(authority: &str) -> Result<(), &'static str> {
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let plain =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
            if !user.bytes().all(plain) {
                return Err("what stands before `@` has characters that have to be escaped");
            }
            check_escapes(user)?;
            host
        }
        None => authority,
    };
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or("`]` is missing behind the address")?;
        let address = address.split_once("%25").map_or(address, |(address, _zone)| address);
        if address.parse::<Ipv6Addr>().is_err() {
            return Err("what stands in `[]` is not an IPv6 address");
        }
        return check_port(port);
    }
    let (name, port) = host.split_at(host.rfind(':').unwrap_or(host.len()));
    check_port(port)?;
    let fits = |character: char| {
        !character.is_ascii()
            || character.is_ascii_alphanumeric()
            || "-_.~!$&'()*+,;=:[]<>\"%".contains(character)
    };
    if !name.chars().all(fits) {
        return Err("its host has characters that no host has");
    }
    // In a host only bytes that are not ASCII may be escaped.
    if escapes(name).any(|escape| escape.is_none_or(|byte| byte < 0x80)) {
        return Err("its host has `%` in it");
    }
    Ok(())
}

fn check_port(port: &str) -> Result<(), &'static str> {
    let digits = port.strip_prefix(':').unwrap_or(port);
    let bounded = port.is_empty() || port.starts_with(':');
    if !bounded || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("its port is not a number");
    }
    if digits.is_empty() || digits.parse::<u16>().is_ok() {
        return Ok(());
    }
    Err("its port is not one: 1 to 65535")
}

fn check_escapes(text: &str) -> Result<(), &'static str> {
    if escapes(text).any(|escape| escape.is_none()) {
        return Err("`%` stands before something that is no hexadecimal number");
    }
    Ok(())
}

/// The byte that each `%` stands for.
fn escapes(text: &str) -> impl Iterator<Item = Option<u8>> {
    text.match_indices('%').map(|(index, _)| {
        let digits = text.get(index + 1..index + 3)?;
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal.then(|| u8::from_str_radix(digits, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::scheme;
    use proptest::prelude::{prop_assert, proptest};

    #[test]
    fn schemes_are_read() {
        for (text, found) in [
            ("https://a.example/b?c=%zz", "https"),
            ("HTTP://a.example:80", "http"),
            ("oci://user:pa%20ss@a.example/b:v1", "oci"),
            ("file:///opt/a.wasm", "file"),
            ("http://[::1]:80/", "http"),
            ("http://[fe80::1%25eth0]", "http"),
            ("mailto:somebody", "mailto"),
            ("/path", ""),
            ("//no.scheme/path", ""),
        ] {
            assert_eq!(scheme(text).as_deref(), Ok(found), "{text}");
        }
    }

    #[test]
    fn what_is_not_one_is_refused() {
        for text in [
            "",
            "a.example/b",
            ":80",
            "hTPp\\\u{8}lah",
            "http://#%blah$#@",
            "http://a.example:http",
            "http://a.example:70000",
            "http://[::1",
            "http://[a]",
            "http://a b",
            "http://a%20b",
            "http://a/%g0",
            "http://a/%",
            "1http://a",
        ] {
            assert!(scheme(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            if let Ok(scheme) = scheme(&text) {
                prop_assert!(scheme.is_empty() || text.to_ascii_lowercase().starts_with(&scheme));
            }
        }
    }
}
