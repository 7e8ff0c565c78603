//! Tests of templates: what Go renders is rendered, what it refuses is refused, and nothing hangs.

use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::sample::select;
use serde_json::{Value as Json, json};

use super::{Template, Value};

fn rendered(text: &str, data: &Json) -> Result<String, String> {
    let template = Template::parse(text, &[]).map_err(|error| error.to_string())?;
    template.render(&Value::given(data)).map_err(|error| error.to_string())
}

fn data() -> Json {
    json!({"a": "x", "n": 3, "f": 2.5, "big": 1_500_000, "yes": true, "nil": null,
           "list": ["p", "q"], "map": {"k": "v", "l": {"m": 1}}, "empty": []})
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(rendered(text, &data()).as_deref(), Ok(*expected), "{text}");
    }
}

#[track_caller]
fn check_refused(cases: &[(&str, &str)]) {
    for (text, needle) in cases {
        let error = rendered(text, &data()).unwrap_err();
        assert!(error.contains(needle), "{text}: {error}");
    }
}

#[test]
fn actions_render_as_in_go() {
    check(&[
        ("plain", "plain"),
        ("{{ .a }}|{{.n}}|{{ .f }}|{{ .yes }}|{{ .nil }}", "x|3|2.5|true|<no value>"),
        ("{{ .list }} {{ .map }}", "[p q] map[k:v l:map[m:1]]"),
        ("{{ .zz }}{{ .zz.y.z }}", "<no value><no value>"),
        ("a {{- .a -}} b", "axb"),
        ("a {{- /* c */ -}} b{{/* d */}}", "ab"),
        ("{{ \"q\\n\\u00e9\" }}{{ `r\\n` }}{{ 'a' }}", "q\nér\\n97"),
        ("{{ 0x1f }} {{ 017 }} {{ 1_000 }} {{ 1.5e3 }} {{ -2 }}", "31 15 1000 1500 -2"),
        ("{{ if .a }}A{{ else }}B{{ end }}", "A"),
        ("{{ if .zz }}A{{ else if .n }}B{{ else }}C{{ end }}", "B"),
        ("{{ with .zz }}A{{ else with .a }}{{ . }}{{ end }}", "x"),
        ("{{ with $v := .map.l }}{{ .m }}{{ $v.m }}{{ end }}", "11"),
        ("{{ range .list }}{{ . }},{{ end }}", "p,q,"),
        ("{{ range $i, $e := .list }}{{ $i }}{{ $e }}{{ end }}", "0p1q"),
        ("{{ range $k, $e := .map }}{{ $k }};{{ end }}", "k;l;"),
        ("{{ range .empty }}x{{ else }}none{{ end }}", "none"),
        ("{{ range $i := 3 }}{{ $i }}{{ end }}{{ range .zz }}x{{ end }}", "012"),
        (
            "{{ range 5 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ if eq . 3 }}{{ break }}{{ end }}{{ . }}{{ end }}",
            "02",
        ),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
        ("{{ define \"t\" }}<{{ . }}{{ $ }}>{{ end }}{{ template \"t\" .a }}", "<xx>"),
        ("{{ block \"b\" .n }}{{ . }}{{ end }}", "3"),
        ("{{ range .list }}{{ $.a }}{{ end }}", "xx"),
        ("{{ (index .list 1) }}{{ (dict \"a\" 1).a }}{{ .map.l.m }}", "q11"),
        ("{{ .a | printf \"%s-%d\" \"y\" 4 }}", "y-4%!(EXTRA string=x)"),
        ("{{ .a\n | quote }}", "\"x\""),
        ("{{ and .zz .a.b }}|{{ or .a .a.b }}|{{ not nil }}", "<no value>|x|true"),
        ("{{ if and (eq .n 3) (or false (gt .n 2)) }}y{{ end }}", "y"),
        (
            "{{ eq .n 1 2 3 }}{{ ne .a \"y\" }}{{ lt 1 2 }}{{ ge .f 2 }}{{ eq .zz \"\" }}",
            "truetruetruetruefalse",
        ),
        ("{{ len .list }}{{ len .a }}{{ slice .a 0 1 }}{{ html \"<&>\" }}", "21x&lt;&amp;&gt;"),
    ]);
}

#[test]
fn formats_are_those_of_go() {
    check(&[
        (
            "{{ printf \"%v %s %q %t %5d|%-5d|%05d %x %+d\" .a .a .a .yes 42 42 42 255 5 }}",
            "x x \"x\" true    42|42   |00042 ff +5",
        ),
        ("{{ printf \"%.2f %6.1f %g %e\" .f .f .f .f }}", "2.50    2.5 2.5 2.500000e+00"),
        ("{{ printf \"%s %d%%\" .n }}", "%!s(int=3) %!d(MISSING)%"),
        ("{{ print 1 2 .a 3 }}|{{ println .a .n }}", "1 2x3|x 3\n"),
        ("{{ 1e21 }} {{ 1e-5 }} {{ 100000.0 }}", "1e+21 1e-05 100000"),
        ("{{ printf \"%v %T\" .list .n }}", "[p q] int"),
        ("{{ printf \"%99999999d\" 1 }}", "%!(BADWIDTH)d%!(EXTRA int=1)"),
    ]);
}

#[test]
fn functions_of_sprig() {
    check(&[
        (
            "{{ default \"d\" .zz }}{{ .a | default \"d\" }}{{ ternary 1 2 true }}{{ coalesce .zz \"\" 5 }}",
            "dx15",
        ),
        (
            "{{ upper .a }}{{ title \"ab cd\" }}{{ trim \"  s \" }}{{ trimAll \"-\" \"--s-\" }}{{ trimSuffix \"b\" \"ab\" }}",
            "XAb Cdssa",
        ),
        (
            "{{ trunc 2 \"abc\" }}{{ trunc -2 \"abc\" }}{{ substr 1 2 \"abc\" }}{{ repeat 3 \"z\" }}{{ replace \"a\" \"b\" \"aa\" }}",
            "abbcbzzzbb",
        ),
        ("{{ quote .a .n .nil }}|{{ squote .a }}|{{ cat \"a\" 1 }}", "\"x\" \"3\"|'x'|a 1"),
        ("a{{ \"x\\ny\" | nindent 2 }}|{{ indent 1 \"x\\ny\" }}", "a\n  x\n  y| x\n y"),
        (
            "{{ join \"-\" .list }}{{ (split \",\" \"a,b\")._1 }}{{ splitList \",\" \"a,b\" }}{{ contains \"b\" \"abc\" }}",
            "p-qb[a b]true",
        ),
        (
            "{{ $d := dict \"a\" 1 }}{{ $_ := set $d \"b\" 2 }}{{ $d.b }}{{ hasKey $d \"c\" }}{{ keys $d }}{{ get $d \"q\" }}",
            "2false[a b]",
        ),
        (
            "{{ $d := dict \"a\" (dict) }}{{ $_ := set $d.a \"b\" 2 }}{{ $d }}{{ $_ := unset $d \"a\" }}{{ $d }}",
            "map[a:map[b:2]]map[]",
        ),
        (
            "{{ merge (dict \"a\" 1 \"b\" (dict \"c\" 1)) (dict \"a\" 2 \"b\" (dict \"d\" 3)) }}{{ mergeOverwrite (dict \"a\" 1) (dict \"a\" 2) }}",
            "map[a:1 b:map[c:1 d:3]]map[a:2]",
        ),
        (
            "{{ pick .map \"k\" }}{{ dig \"l\" \"m\" 0 .map }}{{ dig \"l\" \"x\" 7 .map }}",
            "map[k:v]17",
        ),
        (
            "{{ first .list }}{{ last .list }}{{ rest .list }}{{ append .list \"r\" }}{{ has \"p\" .list }}{{ without .list \"p\" }}{{ uniq (list 1 1 2) }}{{ reverse .list }}",
            "pq[q][p q r]true[q][1 2][q p]",
        ),
    ]);
}

#[test]
fn more_functions_of_sprig() {
    check(&[
        (
            "{{ until 3 }}{{ untilStep 6 0 -2 }}{{ seq 3 }}{{ concat .list (list 1) }}{{ sortAlpha (list \"b\" \"a\") }}",
            "[0 1 2][6 4 2]1 2 3[p q 1][a b]",
        ),
        (
            "{{ add 1 2 3 }}{{ sub 5 2 }}{{ mul 2 3 }}{{ div 7 2 }}{{ mod 7 2 }}{{ add1 1 }}{{ max 1 5 2 }}{{ int \"12\" }}{{ round 2.345 2 }}{{ floor 2.5 }}",
            "6363125122.352",
        ),
        (
            "{{ toJson .map }}{{ (fromJson \"{\\\"a\\\":[1]}\").a }}{{ toJson \"<\" }}{{ toRawJson \"<\" }}",
            "{\"k\":\"v\",\"l\":{\"m\":1}}[1]\"\\u003c\"\"<\"",
        ),
        ("{{ toYaml .map }}", "k: v\nl:\n  m: 1\n"),
        (
            "{{ b64enc \"ab\" }}{{ b64dec \"YWI=\" }}{{ sha256sum \"a\" | trunc 8 }}{{ adler32sum \"a\" }}",
            "YWI=abca9781126422626",
        ),
        (
            "{{ regexMatch \"^x$\" .a }}{{ regexReplaceAll \"(a)(b)\" \"ab\" \"${2}$1\" }}{{ regexFind \"[0-9]+\" \"a12\" }}{{ regexSplit \",\" \"a,b\" -1 }}",
            "trueba12[a b]",
        ),
        (
            "{{ typeOf .a }}{{ kindIs \"map\" .map }}{{ empty .zz }}{{ deepEqual .list (list \"p\" \"q\") }}",
            "stringtruetruetrue",
        ),
        (
            "{{ snakecase \"FirstName\" }} {{ camelcase \"http_server\" }} {{ kebabcase \"FirstName\" }} {{ initials \"a b\" }}",
            "first_name HttpServer first-name ab",
        ),
        (
            "{{ base \"/a/b\" }}{{ dir \"/a/b\" }}{{ ext \"a.txt\" }}{{ clean \"/a/../b/\" }}{{ isAbs \"/a\" }}",
            "b/a.txt/btrue",
        ),
        (
            "{{ wrap 3 \"ab cd\" }}{{ abbrev 5 \"abcdefg\" }}{{ plural \"one\" \"many\" 2 }}",
            "ab\ncdab...many",
        ),
    ]);
}

#[test]
fn what_go_refuses_is_refused_where_it_is() {
    check_refused(&[
        ("a\n{{ nofunc }}", "line 2, column 4: function \"nofunc\" not defined"),
        ("{{ now }}", "not offered"),
        ("{{ if .a }}", "line 1, column 4: if has no {{end}}"),
        ("{{ .a ", "unclosed action"),
        ("{{ \"a }}", "unterminated quoted string"),
        ("{{ end }}", "unexpected {{end}}"),
        ("{{ else }}", "unexpected {{else}}"),
        ("{{ if .a }}{{ else }}{{ else }}{{ end }}", "expected end"),
        ("{{ if .a }}{{ else with .b }}{{ end }}", "unexpected <with>"),
        ("{{ $x }}", "undefined variable \"$x\""),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "undefined variable"),
        ("{{ break }}", "outside {{range}}"),
        ("{{ range }}x{{ end }}", "missing value for range"),
        ("{{ }}", "missing value for command"),
        ("{{ $a, $b := .map }}", "too many declarations in command"),
        ("{{ 1 | 2 }}", "non executable command"),
        ("{{ \"a\".b }}", "a literal has no fields"),
        ("{{ .a.b }}", "can't evaluate field b in type string"),
        ("{{ .nil.b }}", "nil pointer evaluating .b"),
        ("{{ upper }}", "wrong number of args for upper: want 1, got 0"),
        ("{{ upper 1 }}", "expected string; got int"),
        ("{{ index .list 7 }}", "index out of range: 7"),
        ("{{ template \"no\" }}", "template \"no\" is not defined"),
        ("{{ .a 1 }}", "can't give arguments"),
        ("{{ range .a }}{{ end }}", "can't iterate over a string"),
        ("{{ nil }}", "nil is not a command"),
        ("{{ fail \"no such thing\" }}", "fail: no such thing"),
        ("{{ div 1 0 }}", "divides by zero"),
        ("{{ lt .a 1 }}", "incompatible types"),
        ("{{/* x }}", "unclosed comment"),
        ("{{ define \"a\" }}{{ define \"b\" }}{{ end }}{{ end }}", "unexpected {{define}}"),
        ("{{ ? }}", "unexpected character"),
        ("{{ (1 }}", "unexpected }} in parenthesized"),
        ("{{ 1x }}", "bad number syntax"),
    ]);
}

/// On a thread with the stack that the webhook's threads have.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).unwrap();
    thread.join().unwrap();
}

/// Templates that are written to use up time, memory or stack, and what ends each.
fn hostile() -> Vec<(String, &'static str)> {
    let doubling: String = (0..40)
        .map(|n| format!("{{{{define \"t{n}\"}}}}{{{{template \"t{0}\" .}}}}{{{{template \"t{0}\" .}}}}{{{{end}}}}", n + 1))
        .collect();
    let chain = format!("{{{{if .zz}}}}{}{{{{end}}}}", "{{else if .zz}}".repeat(10_000));
    vec![
        (
            "{{define \"r\"}}{{template \"r\" .}}{{end}}{{template \"r\" .}}".to_owned(),
            "levels deep",
        ),
        (format!("{doubling}{{{{define \"t40\"}}}}{{{{end}}}}{{{{template \"t0\" .}}}}"), "steps"),
        ("{{range 1000000000}}{{end}}".to_owned(), "steps"),
        ("{{range 1000}}{{range 1000}}{{range 1000}}{{end}}{{end}}{{end}}".to_owned(), "steps"),
        ("{{range 100000}}{{repeat 1000000 \"x\"}}{{end}}".to_owned(), "renders more"),
        ("{{range 100000}}{{$x := repeat 1000000 \"x\"}}{{end}}".to_owned(), "bytes of values"),
        ("{{$s := \"ab\"}}{{range 64}}{{$s = print $s $s}}{{end}}".to_owned(), "would make more"),
        ("{{$s := list 1}}{{range 64}}{{$s = list $s $s}}{{end}}".to_owned(), "would make more"),
        ("{{$s := list 1}}{{range 1000}}{{$s = list $s}}{{end}}".to_owned(), "levels deep"),
        ("{{$d := dict}}{{range 1000}}{{$_ := set $d \"d\" $d}}{{end}}".to_owned(), "levels deep"),
        (
            "{{$d := dict}}{{range 40}}{{$_ := set $d (print .) $d}}{{end}}".to_owned(),
            "would make more",
        ),
        ("{{ until 1000000000 }}".to_owned(), "would make more"),
        ("{{ seq 1 1000000000 }}".to_owned(), "would make more"),
        ("{{ splitList \"\" (repeat 1000000 \"x\") }}".to_owned(), "would make more"),
        (
            "{{ replace \"\" (repeat 1000 \"y\") (repeat 1000000 \"x\") }}".to_owned(),
            "would make more",
        ),
        ("{{ nindent 1000000 (repeat 1000 \"\\n\") }}".to_owned(), "would make more"),
        ("{{ join (repeat 10000 \"x\") (until 10000) }}".to_owned(), "would make more"),
        (
            "{{ regexReplaceAll \"(x+)\" (repeat 10000 \"x\") (repeat 10000 \"$0\") }}".to_owned(),
            "would make more",
        ),
        ("{{ regexMatch \"(((x{1,100}){1,100}){1,100})\" \"x\" }}".to_owned(), "pattern"),
        (
            "{{ range 100000 }}{{ regexMatch \"(x+)+y\" (repeat 1000 \"x\") }}{{ end }}".to_owned(),
            "steps",
        ),
        (
            "{{ range 100000 }}{{ $x := sha512sum (repeat 100000 \"x\") }}{{ end }}".to_owned(),
            "steps",
        ),
        (format!("{{{{{}1{}}}}}", "(".repeat(5_000), ")".repeat(5_000)), "levels deep"),
        (format!("{}{}", "{{if 1}}".repeat(5_000), "{{end}}".repeat(5_000)), "levels deep"),
        (
            format!("{}{}", "{{block \"x\" .}}".repeat(5_000), "{{end}}".repeat(5_000)),
            "levels deep",
        ),
        (format!("{{{{ .map{} }}}}", ".q".repeat(100_000)), ""),
        (chain, ""),
        ("x".repeat(300 * 1024), "longer than"),
    ]
}

#[test]
fn hostile_templates_end_and_say_why() {
    on_a_small_stack(|| {
        for (text, needle) in hostile() {
            let shown: String = text.chars().take(80).collect();
            match rendered(&text, &data()) {
                Ok(_) => assert!(needle.is_empty(), "{shown} was rendered"),
                Err(error) => {
                    assert!(!needle.is_empty() && error.contains(needle), "{shown}: {error}")
                }
            }
        }
    });
}

#[test]
fn the_deepest_templates_fit_a_small_stack() {
    on_a_small_stack(|| {
        for open in ["{{if 1}}", "{{with .}}", "{{range 1}}", "{{range $i, $e := (list 1)}}"] {
            let text = format!(
                "{{{{define \"r\"}}}}{}{{{{template \"r\" .}}}}{}{{{{end}}}}{{{{template \"r\" .}}}}",
                open.repeat(30),
                "{{end}}".repeat(30)
            );
            let error = rendered(&text, &data()).unwrap_err();
            assert!(error.contains("levels deep"), "{error}");
        }
        let parentheses = format!("{{{{ {}1{} }}}}", "(print ".repeat(39), ")".repeat(39));
        assert_eq!(rendered(&parentheses, &data()).as_deref(), Ok("1"));
    });
}

/// Pieces of which wrong and right templates are made.
const PIECES: [&str; 48] = [
    "{{",
    "}}",
    "{{- ",
    " -}}",
    "if ",
    "else ",
    "end",
    "range ",
    "with ",
    "define \"t\"",
    "block \"t\" .",
    "template \"t\" .",
    "break",
    "continue",
    ".",
    ".a",
    ".list",
    ".map",
    ".map.l.m",
    ".nil.x",
    "$",
    "$x",
    "$x := ",
    "$x = ",
    "$i, $e := ",
    "(",
    ")",
    " | ",
    " ",
    "1",
    "-3",
    "0x1f",
    "1e3",
    "'a'",
    "\"s\"",
    "`r`",
    "/* c */",
    "nil",
    "true",
    "dict \"a\" 1",
    "list 1 2",
    "index .list 0",
    "printf \"%5.2f|%q\" 1.5 .a",
    "set $x \"a\" 2",
    "toYaml .map",
    "nindent 2 ",
    "text\n",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 2_000 } else { 20_000 }))]

    #[test]
    fn any_text_is_rendered_or_refused(text in any::<String>(), at in any::<proptest::sample::Index>()) {
        let mut whole = "{{ range $i, $e := .list }}{{ if eq $e \"p\" }}{{ .a | quote }}{{ end }}{{ end }}".to_owned();
        whole.insert_str(at.index(whole.len()), &text);
        for text in [whole, format!("{{{{{text}}}}}"), text] {
            if let Err(error) = rendered(&text, &data()) {
                assert!(error.starts_with("line "), "{error}");
            }
        }
    }

    #[test]
    fn any_pieces_are_rendered_or_refused(pieces in proptest::collection::vec(select(&PIECES[..]), 0..40)) {
        let text = pieces.concat();
        let first = rendered(&text, &data());
        assert_eq!(first, rendered(&text, &data()), "{text}");
    }

    #[test]
    fn text_without_actions_is_rendered_as_it_is(text in "[^{]*") {
        assert_eq!(rendered(&text, &data()).as_deref(), Ok(text.as_str()));
    }

    #[test]
    fn a_quoted_text_is_itself(text in any::<String>()) {
        let data = json!({"t": text});
        let quoted = rendered("{{ printf \"%q\" .t }}", &data).unwrap();
        assert_eq!(rendered(&format!("{{{{ {quoted} }}}}"), &data).as_deref(), Ok(text.as_str()));
        let json = rendered("{{ toJson .t }}", &data).unwrap();
        assert_eq!(serde_json::from_str::<Json>(&json).unwrap(), data["t"]);
    }
}
