//! Lines of an import.

use super::*;

const HASH: &str = "$2b$04$EGdrhbKUv8Oc9vGiXX0HQOxSg445d458Muh7DAHskb6QbtCvdxcie";

fn read(line: &str) -> Result<ImportLine, ImportError> {
    ImportLine::parse(7, line.as_bytes())
}

#[test]
fn a_line_says_a_user() {
    let line = format!(
        r#"{{"username":"alice","password_hash":"{HASH}","id":"u_1","plan":"free","roles":["member"],"scopes":["read","write"],"tenant":"acme","disabled":true}}"#
    );
    let user = read(&line).unwrap();
    assert_eq!((user.line, user.username.as_str(), user.password_hash.as_str()), (7, "alice", HASH));
    assert_eq!((user.id.as_deref(), user.plan.as_deref()), (Some("u_1"), Some("free")));
    assert_eq!(
        (user.roles, user.scopes),
        (vec!["member".to_owned()], vec!["read".to_owned(), "write".to_owned()])
    );
    assert_eq!((user.tenant.as_deref(), user.disabled), (Some("acme"), true));
    let least = read(&format!(r#" {{"username":"bob","password_hash":"{HASH}","plan":null}} "#)).unwrap();
    assert_eq!((least.id, least.plan, least.tenant, least.disabled), (None, None, None, false));
    assert!(least.roles.is_empty() && least.scopes.is_empty());
}

#[test]
fn a_faulty_line_is_told_by_number_and_member_and_never_repeats_what_stands_in_it() {
    let secret = "s3cr3t-s3cr3t";
    let with = |rest: &str| format!(r#"{{"username":"alice","password_hash":"{HASH}",{rest}}}"#);
    let cases = [
        (String::new(), "is not a JSON object"),
        (secret.to_owned(), "is not a JSON object"),
        (format!(r#"["{secret}","{secret}"]"#), "is not a JSON object"),
        (format!(r#"{{"username":"alice","password_hash":"{secret}""#), "is not a JSON object"),
        (format!(r#"{{"username":"alice","password_hash":"{HASH}"}}{secret}"#), "is not a JSON object"),
        (r#"{"username":"alice"}"#.to_owned(), "password_hash: is missing"),
        (format!(r#"{{"password_hash":"{secret}"}}"#), "username: is missing"),
        (with(&format!(r#""{secret}":1"#)), "has a member that is not known"),
        (with(&format!(r#""password_hash":"{secret}""#)), "password_hash: is there twice"),
        (with(&format!(r#""roles":"{secret}""#)), "roles: has the wrong type"),
        (with(&format!(r#""scopes":["a",{{"{secret}":1}}]"#)), "scopes: has the wrong type"),
        (with(&format!(r#""disabled":"{secret}""#)), "disabled: has the wrong type"),
        (
            format!(r#"{{"username":"alice","password_hash":["{secret}"]}}"#),
            "password_hash: has the wrong type",
        ),
        (
            format!(r#"{{"username":"alice","password_hash":"{secret}"}}"#),
            "password_hash: is of no known scheme",
        ),
        (format!(r#"{{"username":"","password_hash":"{HASH}"}}"#), "username: is empty"),
        (format!(r#"{{"username":"a\u0000b","password_hash":"{HASH}"}}"#), "username: is empty"),
        (with(r#""id":"""#), "id: is empty"),
        (with(r#""plan":"""#), "plan: is empty"),
        (with(r#""tenant":"a\nb""#), "tenant: is empty"),
        (with(r#""scopes":["two words"]"#), "scopes: is empty"),
        (with(&format!(r#""roles":[{}]"#, vec![r#""r""#; 65].join(","))), "roles: more than 64"),
        (with(&format!(r#""tenant":"{}""#, "x".repeat(LINE_BYTES_MAX))), "is longer than 16384 bytes"),
    ];
    for (line, expected) in cases {
        let error = read(&line).unwrap_err();
        assert_eq!(error.line, 7);
        let text = error.to_string();
        assert!(text.starts_with(&format!("line 7: {expected}")), "{text}");
        for printed in [text, format!("{error:?}")] {
            assert!(!printed.contains(secret) && !printed.contains("EGdrh"), "{printed}");
        }
    }
}

#[test]
fn lines_are_counted_and_a_faulty_one_does_not_end_the_import() {
    let user = |name: &str| format!(r#"{{"username":"{name}","password_hash":"{HASH}"}}"#);
    let long = "x".repeat(5 * LINE_BYTES_MAX);
    let file = format!("{}\n\n  \r\n{long}\nnonsense\n{}\r\n{}", user("one"), user("two"), user("three"));
    let mut lines = ImportLines::new(file.as_bytes());
    let mut seen = Vec::new();
    for line in &mut lines {
        seen.push(match line {
            Ok(user) => (user.line, user.username),
            Err(error) => (error.line, error.problem.to_string()),
        });
    }
    let expected = [
        (1, "one"),
        (4, "is longer than 16384 bytes"),
        (5, "is not a JSON object"),
        (6, "two"),
        (7, "three"),
    ];
    assert_eq!(seen, expected.map(|(line, text)| (line, text.to_owned())));
    assert!(lines.next().is_none());
}

#[test]
fn a_line_may_be_as_long_as_it_may() {
    let longest = "x".repeat(LINE_BYTES_MAX);
    let problem = |text: String| match ImportLines::new(text.as_bytes()).next() {
        Some(Err(error)) => error.problem.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(format!("{longest}\n")), "is not a JSON object");
    assert_eq!(problem(longest.clone()), "is not a JSON object");
    assert_eq!(problem(format!("{longest}x\nrest")), "is longer than 16384 bytes");
    assert_eq!(problem(format!("{longest}x")), "is longer than 16384 bytes");
    let next = |text: &str| ImportLines::new(text.as_bytes()).nth(1).map(|line| line.unwrap_err().line);
    assert_eq!(next(&format!("{longest}x\nrest")), Some(2));
    assert_eq!(next(&format!("{longest}xx\nrest")), Some(2));
    assert_eq!(next(&format!("{longest}xx")), None);
}

#[derive(Debug)]
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("gone"))
    }
}

#[test]
fn what_cannot_be_read_ends_the_import() {
    let mut lines = ImportLines::new(io::BufReader::new(Broken));
    assert!(matches!(lines.next(), Some(Err(ImportError { problem: ImportProblem::Read(_), .. }))));
    assert!(lines.next().is_none());
}
