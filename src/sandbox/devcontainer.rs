//! Which image a project's `devcontainer.json` asks for. Pure: says what stands there, and never whether it may be used.
//!
//! Only `image` counts. Nothing is built from such a file, and no command, mount, feature, user or variable of it is obeyed.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::images;

/// Where it is looked for, in this order.
pub const PATHS: [&str; 2] = [".devcontainer/devcontainer.json", ".devcontainer.json"];
/// Largest file that is read, in bytes.
pub const LARGEST: usize = 64 * 1024;

/// What such a file says of its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It is made of this image.
    Image(String),
    /// It would have to be built, or to be composed of several.
    Built,
    /// Nothing.
    Nothing,
}

/// Why a file says nothing that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DevcontainerError {
    /// It is too large.
    #[error("it has {0} bytes, and at most {LARGEST} are read")]
    Large(usize),
    /// It is no JSON with comments, or not of this form.
    #[error("line {line}, column {column} is not what a devcontainer.json has there")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// Variables are nobody's here, and an engine would not take the rest.
    #[error("its `image` is no plain reference of an image: names, digits and . _ - / : @, no variables")]
    Reference,
}

/// The keys that say what the container is made of.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    image: Option<String>,
    build: Option<IgnoredAny>,
    docker_file: Option<IgnoredAny>,
    docker_compose_file: Option<IgnoredAny>,
}

/// Reads a file.
///
/// # Errors
/// It is too large, or is not of that form.
pub fn read(text: &str) -> Result<Asked, DevcontainerError> {
    if text.len() > LARGEST {
        return Err(DevcontainerError::Large(text.len()));
    }
    let file: File = serde_json::from_str(&plain(text)).map_err(|error| DevcontainerError::Json {
        line: error.line(),
        column: error.column(),
    })?;
    // The programs that know these files take these three before an image.
    if file.build.is_some() || file.docker_file.is_some() || file.docker_compose_file.is_some() {
        return Ok(Asked::Built);
    }
    let Some(image) = file.image else {
        return Ok(Asked::Nothing);
    };
    let is_plain = image
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':' | b'@'));
    if is_plain && images::check_form(&image).is_ok() {
        Ok(Asked::Image(image))
    } else {
        Err(DevcontainerError::Reference)
    }
}

/// The same without comments and without commas before a closing bracket. Blanks stand in their places, so that lines and columns hold.
fn plain(text: &str) -> String {
    let mut is_comma_open = None;
    let mut out: Vec<char> = Vec::with_capacity(text.len());
    let mut rest = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('"', _) => {
                is_comma_open = None;
                out.push(c);
                while let Some(inner) = rest.next() {
                    out.push(inner);
                    match inner {
                        '\\' => out.extend(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            ('/', Some('/')) => {
                out.push(' ');
                while let Some(inner) = rest.next_if(|inner| *inner != '\n') {
                    out.push(blank(inner));
                }
            }
            ('/', Some('*')) => {
                out.push(' ');
                out.extend(rest.next().map(blank));
                let mut last = ' ';
                for inner in rest.by_ref() {
                    out.push(blank(inner));
                    if last == '*' && inner == '/' {
                        break;
                    }
                    last = inner;
                }
            }
            (',', _) => {
                is_comma_open = Some(out.len());
                out.push(c);
            }
            (']' | '}', _) => {
                if let Some(comma) = is_comma_open.take().and_then(|at| out.get_mut(at)) {
                    *comma = ' ';
                }
                out.push(c);
            }
            _ => {
                if !c.is_ascii_whitespace() {
                    is_comma_open = None;
                }
                out.push(c);
            }
        }
    }
    out.into_iter().collect()
}

/// What stands in the place of a comment's character.
fn blank(c: char) -> char {
    if c == '\n' { c } else { ' ' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> Result<Asked, DevcontainerError> {
        Ok(Asked::Image(name.to_owned()))
    }

    #[test]
    fn an_image_is_read_among_comments_and_loose_commas() {
        for text in [
            r#"{"image": "own/rust:1"}"#,
            "\u{feff}// For Rust.\n{\n  /* \"image\": \"evil\", */ \"name\": \"a // b /* c\", // x\n  \"image\": \"own/rust:1\",\n}",
            r#"{"features": {"a": [1, 2,],}, "image": "own\/rust:1", "runArgs": ["--privileged"], "customizations": {"x": "\"}"},}"#,
            "{\"image\": \"own/rust:1\" /**/ , // the end",
        ] {
            let closed = if text.ends_with("end") {
                format!("{text}\n}}")
            } else {
                text.to_owned()
            };
            assert_eq!(read(&closed), image("own/rust:1"), "{closed}");
        }
        let digest = format!("host.example:5000/a/b@sha256:{}", "0".repeat(64));
        assert_eq!(read(&format!("{{\"image\": \"{digest}\"}}")), image(&digest));
    }

    #[test]
    fn what_would_have_to_be_built_is_told_from_what_says_nothing() {
        for text in [
            r#"{"build": {"dockerfile": "Dockerfile"}}"#,
            r#"{"dockerFile": "Dockerfile", "image": "a"}"#,
            r#"{"dockerComposeFile": ["a.yml"], "service": "app"}"#,
        ] {
            assert_eq!(read(text), Ok(Asked::Built), "{text}");
        }
        for text in ["{}", r#"{"name": "a"}"#, r#"{"image": null}"#] {
            assert_eq!(read(text), Ok(Asked::Nothing), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_or_no_such_file_is_an_error() {
        for name in [
            "",
            "a b",
            "-v",
            "a*",
            "${localEnv:IMAGE}",
            "a\\nb",
            "a@sha256:1",
            "ä",
            "a\\u0000",
        ] {
            assert_eq!(
                read(&format!("{{\"image\": \"{name}\"}}")),
                Err(DevcontainerError::Reference),
                "{name}"
            );
        }
        for text in [
            "",
            "null",
            "[",
            "/*",
            "{\"image\": 1}",
            "{\"image\": [\"a\"]}",
            "{\"image\": \"a\", \"image\": \"b\"}",
            "{,}x",
            "{\"image\": \"a\"",
        ] {
            assert!(matches!(read(text), Err(DevcontainerError::Json { .. })), "{text}");
        }
        let error = read("{\n  // one\n  \"image\": 7\n}").unwrap_err();
        assert_eq!(error, DevcontainerError::Json { line: 3, column: 12 });
        let large = format!("{{\"image\": \"a\"}}{}", " ".repeat(LARGEST));
        assert_eq!(read(&large), Err(DevcontainerError::Large(large.len())));
        // Deep, as somebody could write it.
        for open in ["[", "{\"a\":", "{\"build\": ["] {
            let deep = open.repeat(LARGEST / open.len());
            assert!(read(&deep).is_err());
            assert!(read(&format!("{{\"x\": {deep}")).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_json_already_says_the_same(text in "[\\[\\]{}\",:/*\\\\a-c \n0-9]{0,40}") {
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                proptest::prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&plain(&text)).unwrap(), value);
            }
            let _ = read(&text);
        }
    }
}
