//! A text to tokens.
//!
//! Trim markers are done with here: texts come out trimmed. Must not know what tokens mean
//! together.

use super::TemplateError;
use super::limits::TEXT_BYTES;
use super::syntax::At;

/// A token and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: At,
    pub(super) what: What,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    Space,
    /// `|`, `,`, `(`, `)`, `=`
    Sign(char),
    /// `:=`
    Declare,
    Dot,
    /// `.name`
    Field(String),
    /// `$name`, with the dollar
    Variable(String),
    Word(String),
    Quoted(String),
    Number(String),
}

impl What {
    /// As it looks in a text, for messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(_) => "text".to_owned(),
            Self::Open => "{{".to_owned(),
            Self::Close => "}}".to_owned(),
            Self::Space => "space".to_owned(),
            Self::Sign(sign) => format!("{sign:?}"),
            Self::Declare => "\":=\"".to_owned(),
            Self::Dot => "<.>".to_owned(),
            Self::Field(name) => format!("<.{name}>"),
            Self::Variable(name) | Self::Word(name) | Self::Number(name) => format!("<{name}>"),
            Self::Quoted(text) => format!("{text:?}"),
        }
    }
}

/// All tokens of a text.
///
/// # Errors
/// Something that is no token, and where.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer { rest: text, at: At { line: 1, column: 1 }, found: Vec::new() };
    if text.len() > TEXT_BYTES {
        return Err(lexer.error(format!("longer than {TEXT_BYTES} bytes")));
    }
    let mut trims = false;
    loop {
        let open = lexer.rest.find("{{");
        let (end, begins_trim) = match open {
            Some(open) => (open, is_trim(&lexer.rest[open + 2..])),
            None => (lexer.rest.len(), false),
        };
        lexer.text(end, trims, begins_trim);
        if open.is_none() {
            return Ok(lexer.found);
        }
        trims = lexer.action(begins_trim)?;
    }
}

/// Whether what follows `{{` is a trim marker.
fn is_trim(rest: &str) -> bool {
    let mut characters = rest.chars();
    characters.next() == Some('-') && characters.next().is_some_and(is_space)
}

/// Whether it is a `-}}` after a space.
fn ends_with_trim(rest: &str) -> bool {
    rest.starts_with(is_space) && rest.trim_start_matches(is_space).starts_with("-}}")
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Lexer<'a> {
    rest: &'a str,
    at: At,
    found: Vec<Token>,
}

impl Lexer<'_> {
    fn error(&self, reason: impl Into<String>) -> TemplateError {
        TemplateError { at: self.at, reason: reason.into() }
    }

    /// Takes so many bytes.
    fn take(&mut self, bytes: usize) -> &str {
        let (taken, rest) = self.rest.split_at(bytes);
        for c in taken.chars() {
            if c == '\n' {
                self.at = At { line: self.at.line + 1, column: 1 };
            } else {
                self.at.column += 1;
            }
        }
        self.rest = rest;
        taken
    }

    fn push(&mut self, at: At, what: What) {
        self.found.push(Token { at, what });
    }

    /// Text up to an action, trimmed as the actions around want it.
    fn text(&mut self, end: usize, trims_begin: bool, trims_end: bool) {
        let at = self.at;
        let mut text = self.take(end);
        if trims_begin {
            text = text.trim_start_matches(is_space);
        }
        if trims_end {
            text = text.trim_end_matches(is_space);
        }
        if !text.is_empty() {
            let text = text.to_owned();
            self.push(at, What::Text(text));
        }
    }

    /// An action or a comment; whether it trims what follows.
    fn action(&mut self, trims: bool) -> Result<bool, TemplateError> {
        let at = self.at;
        self.take(if trims { 3 } else { 2 });
        if self.rest.trim_start_matches(is_space).starts_with("/*")
            && (trims || self.rest.starts_with("/*"))
        {
            return self.comment();
        }
        self.push(at, What::Open);
        loop {
            if ends_with_trim(self.rest) {
                let end = self.rest.find("-}}").unwrap_or_default();
                self.take(end);
                self.push(self.at, What::Close);
                self.take(3);
                return Ok(true);
            }
            if self.rest.starts_with("}}") {
                self.push(self.at, What::Close);
                self.take(2);
                return Ok(false);
            }
            self.token(at)?;
        }
    }

    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(end) = self.rest.find("*/") else { return Err(self.error("unclosed comment")) };
        self.take(end + 2);
        if ends_with_trim(self.rest) {
            let end = self.rest.find("-}}").unwrap_or_default() + 3;
            self.take(end);
            return Ok(true);
        }
        if !self.rest.starts_with("}}") {
            return Err(self.error("comment ends before closing delimiter"));
        }
        self.take(2);
        Ok(false)
    }

    /// One token inside an action that began at `open`.
    fn token(&mut self, open: At) -> Result<(), TemplateError> {
        let at = self.at;
        let Some(first) = self.rest.chars().next() else {
            return Err(TemplateError { at: open, reason: "unclosed action".to_owned() });
        };
        let second = self.rest[first.len_utf8()..].chars().next();
        let what = match first {
            c if is_space(c) => {
                let space = self.rest.len() - self.rest.trim_start_matches(is_space).len();
                // The space before a trim marker belongs to it.
                self.take(space);
                What::Space
            }
            '"' | '`' | '\'' => return self.quoted(first),
            ':' if second == Some('=') => {
                self.take(2);
                What::Declare
            }
            '|' | ',' | '(' | ')' | '=' => {
                self.take(1);
                What::Sign(first)
            }
            '.' if !second.is_some_and(|c| c.is_ascii_digit()) => {
                self.take(1);
                let name = self.word();
                if name.is_empty() { What::Dot } else { What::Field(name) }
            }
            '$' => {
                self.take(1);
                What::Variable(format!("${}", self.word()))
            }
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => What::Number(self.number()),
            c if is_word(c) => What::Word(self.word()),
            c => return Err(self.error(format!("unexpected character {c:?} in action"))),
        };
        self.push(at, what);
        Ok(())
    }

    fn word(&mut self) -> String {
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        self.take(end).to_owned()
    }

    fn number(&mut self) -> String {
        let mut previous = ' ';
        let mut end = 0;
        for (index, c) in self.rest.char_indices() {
            let sign = matches!(c, '+' | '-') && (index == 0 || matches!(previous, 'e' | 'E'));
            if !(is_word(c) || c == '.' || sign) {
                break;
            }
            previous = c;
            end = index + c.len_utf8();
        }
        self.take(end).to_owned()
    }

    fn quoted(&mut self, quote: char) -> Result<(), TemplateError> {
        let at = self.at;
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find_map(|(index, c)| {
            let ends = c == quote && !escaped;
            let breaks = c == '\n' && quote != '`';
            escaped = quote != '`' && c == '\\' && !escaped;
            (ends || breaks).then_some((index, ends))
        });
        let Some((end, true)) = end else {
            let what = if quote == '\'' { "character constant" } else { "quoted string" };
            return Err(self.error(format!("unterminated {what}")));
        };
        let token = self.take(end + 1).to_owned();
        let inside = token[1..token.len() - 1].to_owned();
        let what = match quote {
            '\'' => What::Number(token),
            '`' => What::Quoted(inside.replace('\r', "")),
            _ => What::Quoted(unescape(&inside).map_err(|reason| TemplateError { at, reason })?),
        };
        self.push(at, what);
        Ok(())
    }
}

/// A text without its escapes.
///
/// # Errors
/// An escape that Go does not have.
pub(super) fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = rest.next().unwrap_or('\\');
        let mut number = |digits: usize, radix: u32, first: Option<char>| {
            let digits: String = first.into_iter().chain(rest.by_ref()).take(digits).collect();
            u32::from_str_radix(&digits, radix)
                .ok()
                .and_then(char::from_u32)
                .ok_or_else(|| format!("invalid escape \\{code}{digits}"))
        };
        out.push(match code {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '"' | '\'' => code,
            'x' => number(2, 16, None)?,
            'u' => number(4, 16, None)?,
            'U' => number(8, 16, None)?,
            '0'..='7' => number(3, 8, Some(code))?,
            _ => return Err(format!("invalid escape \\{code}")),
        });
    }
    Ok(out)
}
