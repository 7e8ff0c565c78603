//! Rules for one source file: a module doc, a bounded length, bounded functions, names that
//! say something, `unsafe` in one place.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::tidy::Breach;

/// Lines of a file without its tests.
const FILE_LINES: usize = 500;
/// Lines of a function, signature and braces included.
const FUNCTION_LINES: usize = 60;
/// Parameters of a function, `self` included.
const PARAMETERS: usize = 5;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "common", "helpers", "manager", "misc", "shared"];
/// The only file where `unsafe` may stand.
const UNSAFE_FILE: &str = "interception/src/sys.rs";

/// Checks the file `name` with content `text`.
pub(crate) fn check(name: &str, text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut breach = |line: usize, message: String| {
        let place = if line == 0 { name.to_owned() } else { format!("{name}:{line}") };
        breaches.push(Breach { place, message });
    };
    if !text.lines().find(|line| !line.starts_with("#!")).is_some_and(|l| l.starts_with("//!")) {
        breach(0, "begins without `//!`: say what the file is for".to_owned());
    }
    let stem = name.rsplit('/').next().and_then(|file| file.strip_suffix(".rs")).unwrap_or(name);
    if name.split('/').chain([stem]).any(|part| EMPTY_NAMES.contains(&part)) {
        breach(0, "is named after nothing: name what is inside".to_owned());
    }
    let length = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    if length > FILE_LINES && !is_test(name) {
        breach(0, format!("has {length} lines, {FILE_LINES} are allowed: split it by subject"));
    }
    for (number, line) in text.lines().enumerate() {
        if line.contains(concat!("TO", "DO")) && !line.contains('#') {
            breach(number + 1, "a note without an issue number: file one or do it".to_owned());
        }
    }
    match syn::parse_file(text) {
        Ok(file) => {
            let mut visitor = Functions { name, breach: &mut breach, given: false };
            visitor.visit_file(&file);
        }
        Err(error) => breach(error.span().start().line, format!("does not parse: {error}")),
    }
    breaches
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("_tests.rs")
}

struct Functions<'a, F: FnMut(usize, String)> {
    name: &'a str,
    breach: &'a mut F,
    /// Inside the implementation of a trait.
    given: bool,
}

impl<F: FnMut(usize, String)> Functions<'_, F> {
    fn measure(&mut self, signature: &syn::Signature, whole: Span) {
        let lines = whole.end().line + 1 - signature.fn_token.span.start().line;
        let start = signature.fn_token.span.start().line;
        if lines > FUNCTION_LINES && !is_test(self.name) {
            let name = &signature.ident;
            let text = format!("`{name}` has {lines} lines, {FUNCTION_LINES} are allowed");
            (self.breach)(start, text);
        }
        if signature.inputs.len() > PARAMETERS && !self.given {
            let (name, count) = (&signature.ident, signature.inputs.len());
            let text = format!("`{name}` has {count} parameters, {PARAMETERS} are allowed");
            (self.breach)(start, text);
        }
    }

    fn unsafety(&mut self, span: Span) {
        if self.name != UNSAFE_FILE {
            (self.breach)(span.start().line, format!("`unsafe` stands only in {UNSAFE_FILE}"));
        }
    }
}

impl<'ast, F: FnMut(usize, String)> Visit<'ast> for Functions<'_, F> {
    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        // A trait decides how many parameters its methods have.
        let outer = std::mem::replace(&mut self.given, node.trait_.is_some());
        visit::visit_item_impl(self, node);
        self.given = outer;
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.measure(&node.sig, node.block.span());
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.measure(&node.sig, node.block.span());
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_expr_unsafe(&mut self, node: &'ast syn::ExprUnsafe) {
        self.unsafety(node.unsafe_token.span);
        visit::visit_expr_unsafe(self, node);
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        let test = node.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|what| what == "test")
        });
        if !test {
            visit::visit_item_mod(self, node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    fn messages(name: &str, text: &str) -> Vec<String> {
        check(name, text).into_iter().map(|breach| breach.message).collect()
    }

    #[test]
    fn a_good_file_passes() {
        assert!(messages("api/src/host.rs", "//! Hosts.\n\nfn a() {}\n").is_empty());
    }

    #[test]
    fn each_rule_is_enforced() {
        let long = format!("//! x\nfn a() {{\n{}}}\n", "    b();\n".repeat(60));
        assert!(messages("api/src/a.rs", &long)[0].contains("62 lines"));
        let wide = "//! x\nfn a(b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) {}\n";
        assert!(messages("api/src/a.rs", wide)[0].contains("6 parameters"));
        assert!(messages("api/src/a.rs", "fn a() {}\n")[0].contains("//!"));
        assert!(messages("api/src/util.rs", "//! x\n")[0].contains("named after nothing"));
        assert!(messages("api/src/util/a.rs", "//! x\n")[0].contains("named after nothing"));
        let file = format!("//! x\n{}", "// y\n".repeat(500));
        assert!(messages("api/src/a.rs", &file)[0].contains("501 lines"));
        let danger = "//! x\nfn a() { unsafe { b() } }\n";
        assert!(messages("api/src/a.rs", danger)[0].contains("unsafe"));
        assert!(messages("interception/src/sys.rs", danger).is_empty());
    }

    #[test]
    fn tests_have_no_length_limit() {
        let body = "        b();\n".repeat(80);
        let text = format!("//! x\n#[cfg(test)]\nmod tests {{\n    fn a() {{\n{body}    }}\n}}\n");
        assert!(messages("api/src/a.rs", &text).is_empty());
    }
}
