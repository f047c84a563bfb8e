//! Each rule on what it is for and on what only looks like it. Values are put together from pieces, so that no scanner finds one in this file.

use std::sync::Arc;

use super::rules::{Allow, Rules};

/// Characters as a lot draws them, the same each time.
fn drawn(alphabet: &str, length: usize, seed: u64) -> String {
    use sha2::Digest as _;
    let letters: Vec<char> = alphabet.chars().collect();
    (0_u64..)
        .flat_map(|index| sha2::Sha256::digest([seed.to_le_bytes(), index.to_le_bytes()].concat()).to_vec())
        .take(length)
        .map(|byte| letters[usize::from(byte) % letters.len()])
        .collect()
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const HEX: &str = "0123456789abcdef";
const BECH: &str = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L";

fn any(length: usize) -> String {
    drawn(LETTERS, length, 1)
}

fn hex(length: usize) -> String {
    drawn(HEX, length, 4)
}

fn rules() -> Arc<Rules> {
    Arc::new(Rules::new(None, &Allow::default()).unwrap())
}

/// The rules that find something in a text.
fn found(rules: &Rules, text: &str) -> Vec<String> {
    rules
        .find(text.as_bytes())
        .into_iter()
        .map(|found| found.rule)
        .collect()
}

/// What each rule is for, and what is nearly that.
fn table() -> Vec<(&'static str, String, String)> {
    let row = |rule: &'static str, is: &[&str], near: &[&str]| (rule, is.concat(), near.concat());
    let marker = ["-----BEGIN RSA PRIV", "ATE KEY-----"].concat();
    vec![
        row("gitlab-token", &["gl", "pat-", &any(20)], &["gl", "pat-", &any(19)]),
        row("gitlab-token", &["gl", "dt-", &any(20)], &["gl", "xt-", &any(20)]),
        row(
            "gitlab-token",
            &["gl", "cbt-64_", &any(20)],
            &["gl", "pat-", "aaaaaaaaaaaaaaaaaaaa"],
        ),
        row(
            "gitlab-runner-registration",
            &["GR13", "48941", &any(20)],
            &["GR13", "48942", &any(20)],
        ),
        row("github-token", &["gh", "p_", &any(36)], &["gh", "p_", &any(35)]),
        row("github-token", &["gh", "s_", &any(40)], &["gh", "x_", &any(40)]),
        row(
            "github-fine-grained-token",
            &["github", "_pat_", &any(22), "_", &any(59)],
            &["github", "_pat_", &any(20)],
        ),
        row(
            "atlassian-token",
            &["ATATT3x", "FfGF0", &any(180)],
            &["ATATT3x", "FfGF0", &any(20)],
        ),
        row(
            "aws-access-key",
            &["AK", "IA", &drawn(UPPER, 16, 2)],
            &["AK", "IAIOSFODNN7EXAMPLE"],
        ),
        row(
            "aws-secret-key",
            &["aws_secret_access_key = ", &any(40)],
            &["aws_secret_access_key = ", &any(39)],
        ),
        row("google-api-key", &["AI", "za", &any(35)], &["AI", "za", &any(30)]),
        row(
            "google-oauth-secret",
            &["GOC", "SPX-", &any(28)],
            &["GOC", "SPX-", &any(20)],
        ),
        row(
            "google-service-account",
            &["\"private_key", "_id\": \"", &hex(40), "\""],
            &["\"private_key", "_id\": \"", &hex(12), "\""],
        ),
        row(
            "azure-storage-key",
            &["AccountKey", "=", &any(86), "=="],
            &["AccountKey", "=", &any(60), "=="],
        ),
        row(
            "azure-client-secret",
            &["'", &any(3), "8Q~", &any(34), "'"],
            &["'", &any(3), "8Q~", &any(10), "'"],
        ),
        row(
            "slack-token",
            &["xo", "xb-123456789012-123456789012-", &any(24)],
            &["xo", "xb-", &any(5)],
        ),
        row(
            "slack-webhook",
            &["https://hooks.slack", ".com/services/T12345678/B12345678/", &any(24)],
            &["https://hooks.slack", ".com/services/T1/B1/", &any(24)],
        ),
        row("stripe-key", &["sk_", "live_", &any(24)], &["sk_", "test_", &any(24)]),
        row("openai-key", &["sk", "-proj-", &any(60)], &["sk", "-proj-", &any(12)]),
        row("openai-key", &["sk", "-", &any(48)], &["sk", "-", &any(30)]),
        row(
            "anthropic-key",
            &["sk", "-ant-api03-", &any(95)],
            &["sk", "-ant-api03-", &any(20)],
        ),
        row("model-provider-key", &["gs", "k_", &any(52)], &["gs", "k_", &any(20)]),
        row("huggingface-token", &["h", "f_", &any(34)], &["h", "f_", &any(20)]),
        row("npm-token", &["np", "m_", &any(36)], &["np", "m_", &any(20)]),
        row(
            "npm-token",
            &["//registry.host/:_auth", "Token=", &hex(36)],
            &["//registry.host/:_auth", "Token=${NPM}"],
        ),
        row(
            "pypi-token",
            &["py", "pi-AgEIcHlwaS5vcmc", &any(60)],
            &["py", "pi-AgE", &any(10)],
        ),
        row("crates-io-token", &["ci", "o", &any(32)], &["ci", "o", &any(31)]),
        row(
            "package-registry-token",
            &["dckr", "_pat_", &any(27)],
            &["dckr", "_pat_", &any(5)],
        ),
        row(
            "registry-login",
            &["\"auth\"", ": \"", &any(40), "\""],
            &["\"auth\"", ": \"basic authentication\""],
        ),
        row(
            "digitalocean-token",
            &["do", "p_v1_", &hex(64)],
            &["do", "p_v1_", &hex(60)],
        ),
        row("cloud-token", &["hv", "s.", &any(90)], &["hv", "s.", &any(10)]),
        row("cloud-token", &["da", "pi", &hex(32)], &["da", "pi", &hex(30)]),
        row(
            "monitoring-token",
            &["gl", "sa_", &any(32), "_", &hex(8)],
            &["gl", "sa_", &any(20)],
        ),
        row("service-token", &["shp", "at_", &hex(32)], &["shp", "at_", &hex(16)]),
        row(
            "sendgrid-key",
            &["S", "G.", &any(22), ".", &any(43)],
            &["S", "G.", &any(22), ".", &any(10)],
        ),
        row("mail-service-key", &["ke", "y-", &hex(32)], &["ke", "y-", &hex(20)]),
        row("twilio-key", &["= S", "K", &hex(32)], &["= S", "K", &hex(31)]),
        row(
            "telegram-bot-token",
            &["123456789", ":AA", &any(33)],
            &["1234", ":AA", &any(33)],
        ),
        row(
            "discord-token",
            &["bot = \"M", &any(23), ".", &any(6), ".", &any(38), "\""],
            &["bot = \"M", &any(23), ".", &any(6), ".", &any(5), "\""],
        ),
        row(
            "discord-webhook",
            &["https://discord", ".com/api/webhooks/123456789012345678/", &any(68)],
            &["https://discord", ".com/api/webhooks/1/", &any(68)],
        ),
        row(
            "private-key",
            &[&marker, "\n", &any(64), "\n"],
            &["if text.starts_with(\"", &marker, "\") {"],
        ),
        row(
            "private-key",
            &["\"", &marker, "\\n", &any(64), "\\n\""],
            &["expects ", &marker, " and then base64"],
        ),
        row(
            "putty-key",
            &["PuTTY-User-", "Key-File-3: ssh-ed25519"],
            &["PuTTY-User-", "Key-File"],
        ),
        row(
            "age-key",
            &["AGE-SECRET-", "KEY-1", &drawn(BECH, 58, 3)],
            &["AGE-SECRET-", "KEY-1", &drawn(BECH, 20, 3)],
        ),
        row(
            "json-web-token",
            &["ey", "JhbGciOiJIUzI1NiJ9.ey", "JzdWIiOiIxMjM0NTY3ODkwIn0.", &any(43)],
            &["ey", "JhbGciOiJIUzI1NiJ9.ey", "JzdWIiOiIxMjM0NTY3ODkwIn0."],
        ),
        row(
            "password-in-address",
            &["postgres://app", ":", "k3J9vQ2mR7tB", "@db.internal/x"],
            &["postgres://app", ":", "password1234", "@db.internal/x"],
        ),
        row(
            "netrc-password",
            &["machine forge.host login ada pass", "word h7f3k2m9p4q8"],
            &["machine forge.host login ada pass", "word short"],
        ),
        row(
            "bearer-header",
            &["Author", "ization: Bearer ", &any(40)],
            &["Author", "ization: Bearer YOUR_TOKEN_GOES_IN_HERE"],
        ),
        row(
            "assigned-secret",
            &["db_pass", "word = \"", &any(24), "\""],
            &["db_pass", "word = \"correct-horse-battery-staple\""],
        ),
        row(
            "assigned-secret",
            &["{\"client_sec", "ret\": \"", &any(32), "\"}"],
            &["{\"client_sec", "ret\": \"test-", &any(28), "\"}"],
        ),
        row(
            "assigned-secret-bare",
            &["export API_TO", "KEN=", &any(24)],
            &["export API_TO", "KEN=$(cat /run/secrets/api_token_v1)"],
        ),
        row(
            "assigned-secret-bare",
            &["  signing_", "key: ", &hex(40)],
            &["  signing_", "key: refs/heads/release-2024"],
        ),
    ]
}

#[test]
fn every_rule_finds_what_it_is_for_and_not_what_is_nearly_that() {
    let rules = rules();
    let mut tried = std::collections::BTreeSet::new();
    for (rule, is, near) in table() {
        tried.insert(rule);
        for around in ["", " ", "\n"] {
            let text = format!("{around}{is}{around}");
            assert!(
                found(&rules, &text).contains(&rule.to_owned()),
                "{rule} does not find {text:?}: {:?}",
                found(&rules, &text)
            );
        }
        assert!(
            !found(&rules, &near).contains(&rule.to_owned()),
            "{rule} finds {near:?}"
        );
    }
    assert_eq!(tried.len(), rules.count(), "a rule is not in the table: {tried:?}");
}

#[test]
fn ordinary_code_holds_nothing() {
    let rules = rules();
    for text in [
        "let token = self.next_token().ok_or(ParseError::UnexpectedEndOfInput2)?;",
        "const KEY_NAME: &str = \"authentication-key-name-1\";",
        "checksum = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
        "password: ${{ secrets.REGISTRY_PASSWORD }}",
        "token = os.environ[\"GITHUB_TOKEN\"]",
        "amqp://guest:guest@127.0.0.1:5672/%2f",
        "git@github.com:owner/repository.git",
        "https://user:password@example.org/",
        "key-0001 and sk-learn and hf_hub and npm_config_cache",
        "assert_eq!(token.kind, TokenKind::Identifier2);",
        "\"integrity\": \"sha512-abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ+/abcdefghijklmnopq==\"",
    ] {
        assert_eq!(found(&rules, text), Vec::<String>::new(), "{text}");
    }
}

/// Looks through the directory that the variable names and prints what it finds: for measuring, not a test.
#[test]
#[ignore = "measures what COFFERDAM_SCAN_DIRECTORY holds"]
fn measure() {
    let directory = std::env::var("COFFERDAM_SCAN_DIRECTORY").expect("COFFERDAM_SCAN_DIRECTORY names a directory");
    let rules = rules();
    let (mut files, mut bytes, mut hits) = (0_u64, 0_u64, 0_u64);
    let began = std::time::Instant::now();
    for path in crate::repository::tests::files_below(std::path::Path::new(&directory)) {
        let Ok(text) = std::fs::read(&path) else { continue };
        files += 1;
        bytes += text.len() as u64;
        for one in rules.find(&text) {
            hits += 1;
            let line = 1 + text[..one.start].iter().filter(|byte| **byte == b'\n').count();
            println!("HIT {} {}:{line}", one.rule, path.display());
        }
    }
    println!("TOTAL {files} files, {bytes} bytes, {hits} hits, {:?}", began.elapsed());
}
