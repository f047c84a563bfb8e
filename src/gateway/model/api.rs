//! Which requests an agent may send to a model: method, path and query, and which API's words they are in. Pure.
//!
//! What stores something at the provider under the operator's key (files, batches, containers, uploads and their kind) is never open,
//! whatever is configured.

use axum::http::Method;

/// Whose words a request and its answer are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// `/chat/completions`, of many providers.
    Chat,
    /// `/responses`.
    Responses,
    /// `/messages`.
    Messages,
    /// `models/NAME:generateContent` and its kind.
    Contents,
    /// A list of models, or a path that only the operator knows.
    Other,
}

/// A request that may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call<'a> {
    pub(super) api: Api,
    /// Whether its answer costs tokens.
    pub(super) generates: bool,
    /// The model, where it stands in the path.
    pub(super) model: Option<&'a str>,
}

/// What a list of the operator's may not open either: the first word of a path's part.
const NEVER: &[&str] = &[
    "files",
    "batches",
    "containers",
    "uploads",
    "upload",
    "download",
    "assistants",
    "threads",
    "conversations",
    "evals",
    "skills",
    "organization",
    "organizations",
    "corpora",
    "operations",
];
/// The same for words that go on: `batchGenerateContent`, `cachedContents`, `fine_tuning`, `fileSearchStores`, `vector_stores`, `tunedModels`.
const NEVER_BEGINNING: &[&str] = &[
    "batch",
    "cachedcontent",
    "finetun",
    "filesearch",
    "vectorstore",
    "tunedmodel",
];

/// The query parameters that reach a model. Keys come in the query of one API, so everything else is left out.
const QUERY: &[&str] = &[
    "alt",
    "beta",
    "api-version",
    "limit",
    "before_id",
    "after_id",
    "pageSize",
    "pageToken",
];

/// What is asked, if it may be: the usual paths when `listed` is empty, else those listed (one that ends in `/` opens what is below it).
pub(super) fn call<'a>(listed: &[String], method: &Method, path: &'a str) -> Option<Call<'a>> {
    if !is_plain(path) || is_never(path) {
        return None;
    }
    let usual = usual(method, path);
    if listed.is_empty() {
        return usual;
    }
    let open = listed.iter().any(|allowed| {
        if allowed.ends_with('/') {
            path.starts_with(allowed.as_str())
        } else {
            path == allowed
        }
    });
    if !open {
        return None;
    }
    usual.or_else(|| by_ending(method, path))
}

fn usual<'a>(method: &Method, path: &'a str) -> Option<Call<'a>> {
    let call = |api, generates, model| Some(Call { api, generates, model });
    let below = path
        .strip_prefix("/v1beta/models/")
        .or_else(|| path.strip_prefix("/v1/models/"));
    if method == Method::GET {
        return match (path, below) {
            ("/v1/models" | "/v1beta/models", _) => call(Api::Other, false, None),
            (_, Some(name)) if !name.contains(['/', ':']) => call(Api::Other, false, None),
            (_, _) => None,
        };
    }
    if method != Method::POST {
        return None;
    }
    match path {
        "/v1/chat/completions" => call(Api::Chat, true, None),
        "/v1/responses" => call(Api::Responses, true, None),
        "/v1/messages" => call(Api::Messages, true, None),
        "/v1/messages/count_tokens" => call(Api::Messages, false, None),
        _ => match below?.split_once(':')? {
            (name, _) if name.contains('/') => None,
            (name, "generateContent" | "streamGenerateContent") => call(Api::Contents, true, Some(name)),
            (name, "countTokens") => call(Api::Contents, false, Some(name)),
            (_, _) => None,
        },
    }
}

/// A path of the operator's own list, by how it ends.
fn by_ending<'a>(method: &Method, path: &'a str) -> Option<Call<'a>> {
    if method != Method::POST && method != Method::GET {
        return None;
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    let (api, model) = match last.split_once(':') {
        Some((name, act)) if act.ends_with("enerateContent") => (Api::Contents, Some(name)),
        Some(_) => (Api::Other, None),
        None if path.ends_with("/chat/completions") => (Api::Chat, None),
        None if last == "responses" => (Api::Responses, None),
        None if last == "messages" => (Api::Messages, None),
        None => (Api::Other, None),
    };
    Some(Call {
        api,
        generates: method == Method::POST,
        model,
    })
}

/// A path without tricks: no escapes, no dots, no doubled slashes, so that what was checked is what is asked.
fn is_plain(path: &str) -> bool {
    !path.contains("..")
        && !path.contains("//")
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.' | b':'))
}

/// Whether a path leads to what is never open.
pub(super) fn is_never(path: &str) -> bool {
    path.split(['/', ':']).any(|part| {
        let part: String = part
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .collect();
        NEVER.contains(&part.as_str()) || NEVER_BEGINNING.iter().any(|word| part.starts_with(word))
    })
}

/// The listed pairs of a query, as they came; the rest, keys above all, stays here.
pub(super) fn kept_query(query: &str) -> String {
    let kept = query.split('&').filter(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // What is listed needs no escapes, so what is compared is what is sent.
        let plain = value.len() <= 500
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~'));
        QUERY.contains(&name) && plain
    });
    kept.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, path: &str) -> Option<Call<'_>> {
        call(&[], &method, path)
    }

    #[test]
    fn the_usual_paths_of_four_apis_are_open() {
        for (path, api, generates, model) in [
            ("/v1/chat/completions", Api::Chat, true, None),
            ("/v1/responses", Api::Responses, true, None),
            ("/v1/messages", Api::Messages, true, None),
            ("/v1/messages/count_tokens", Api::Messages, false, None),
            (
                "/v1beta/models/gem-2.5:generateContent",
                Api::Contents,
                true,
                Some("gem-2.5"),
            ),
            (
                "/v1beta/models/gem:streamGenerateContent",
                Api::Contents,
                true,
                Some("gem"),
            ),
            ("/v1beta/models/gem:countTokens", Api::Contents, false, Some("gem")),
        ] {
            let wanted = Call { api, generates, model };
            assert_eq!(of(Method::POST, path), Some(wanted), "{path}");
            assert_eq!(of(Method::GET, path), None, "{path}");
            assert_eq!(of(Method::DELETE, path), None, "{path}");
        }
        for path in ["/v1/models", "/v1/models/one", "/v1beta/models", "/v1beta/models/gem"] {
            assert!(of(Method::GET, path).is_some_and(|call| !call.generates), "{path}");
            assert_eq!(of(Method::POST, path), None, "{path}");
        }
    }

    /// What would be stored at the provider, what runs there later, what is other people's, and tricks.
    const CLOSED: &[&str] = &[
        "/v1/files",
        "/v1/files/file-1/content",
        "/v1beta/files",
        "/upload/v1beta/files",
        "/v1/batches",
        "/v1/messages/batches",
        "/v1/containers",
        "/v1/containers/c/files",
        "/v1/uploads",
        "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel",
        "/v1/chat/completions/chatcmpl-1",
        "/v1/fine_tuning/jobs",
        "/v1/vector_stores",
        "/v1/assistants",
        "/v1/threads",
        "/v1/conversations",
        "/v1/skills",
        "/v1/organizations/me",
        "/v1/images/generations",
        "/v1/embeddings",
        "/v1beta/cachedContents",
        "/v1beta/tunedModels",
        "/v1beta/models/gem:batchGenerateContent",
        "/v1beta/models/gem:asyncBatchEmbedContent",
        "/v1beta/models/gem:predictLongRunning",
        "/v1beta/models/a/b:generateContent",
        "/v1beta/models/../files:generateContent",
        "/v1/chat/completions/..",
        "/v1//models",
        "/v1/models%2f",
        "/v1/%66iles",
        "/",
        "",
    ];

    #[test]
    fn everything_else_is_closed() {
        for path in CLOSED {
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                assert_eq!(of(method.clone(), path), None, "{method} {path}");
            }
        }
    }

    #[test]
    fn an_operators_list_replaces_the_usual_and_opens_no_store() {
        let listed = ["/openai/deployments/".to_owned(), "/v1/messages".to_owned()];
        fn of<'a>(listed: &[String], path: &'a str) -> Option<Call<'a>> {
            call(listed, &Method::POST, path)
        }
        let deployed = of(&listed, "/openai/deployments/x/chat/completions").unwrap();
        assert_eq!((deployed.api, deployed.generates), (Api::Chat, true));
        assert_eq!(of(&listed, "/v1/messages").unwrap().api, Api::Messages);
        assert_eq!(of(&listed, "/v1/chat/completions"), None);
        for path in ["files", "x/batches", "x/Files", "x/fine-tuning/jobs", "x/vector_stores"] {
            let path = format!("/openai/deployments/{path}");
            assert_eq!(of(&listed, &path), None, "{path}");
        }
    }

    #[test]
    fn only_listed_parameters_are_sent_on() {
        assert_eq!(kept_query("alt=sse&key=x&beta=true"), "alt=sse&beta=true");
        for query in [
            "key=x",
            "%6bey=x",
            "KEY=x",
            "api_key=x",
            "access_token=x",
            "alt=%26key%3Dx",
            "alt=a+b",
            "$alt=json",
            "",
            "=",
            "a",
        ] {
            assert_eq!(kept_query(query), "", "{query}");
        }
    }
}
