//! What each API's requests may ask: the usual passes, what reaches beyond the walls does not, however it is written.

use serde_json::json;

use super::*;

fn with(api: Api, walls: bool, models: &[String], body: &serde_json::Value) -> Result<(), Refused> {
    let rules = Rules {
        api,
        walls,
        models,
        in_path: None,
    };
    check(body.to_string().as_bytes(), rules)
}

fn of(api: Api, body: &serde_json::Value) -> Result<(), Refused> {
    with(api, true, &[], body)
}

#[test]
fn what_agents_usually_send_passes() {
    let schema = json!({"type": "object", "properties": {"image_url": {"type": "string", "url": "https://x"}, "file_id": {"type": "string"}}});
    let usual = [
        (
            Api::Chat,
            json!({"model": "m", "stream": true, "tools": [{"type": "function", "function": {"name": "fetch", "parameters": schema}}],
            "messages": [{"role": "user", "content": "see https://example.org"},
                {"role": "user", "content": [{"type": "text", "text": "https://x"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
                {"role": "assistant", "tool_calls": [{"function": {"arguments": "{\"image_url\":\"https://x\"}"}}]}]}),
        ),
        (
            Api::Responses,
            json!({"model": "m", "background": false, "tools": [{"type": "function", "parameters": schema}, {"type": "local_shell"}],
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "data:image/png;base64,AA"}]},
                {"type": "function_call_output", "output": "https://x"}]}),
        ),
        (Api::Responses, json!({"model": "m", "input": "say https://x"})),
        (
            Api::Messages,
            json!({"model": "m", "mcp_servers": [], "container": null,
            "tools": [{"name": "fetch", "input_schema": schema}, {"type": "bash_20250124", "name": "bash"}, {"type": "custom", "name": "x"}],
            "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "AA"}}]},
                {"role": "assistant", "content": [{"type": "tool_use", "input": {"source": {"type": "url", "url": "https://x"}, "type": "web_search"}}]},
                {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "https://x"}]}]}]}),
        ),
        (
            Api::Contents,
            json!({"tools": [{"functionDeclarations": [{"name": "x", "parameters": schema}]}],
            "contents": [{"parts": [{"text": "https://x"}, {"inlineData": {"data": "AA"}}, {"functionCall": {"args": {"fileData": 1}}}]}]}),
        ),
    ];
    for (api, body) in usual {
        assert_eq!(of(api, &body), Ok(()), "{body}");
    }
}

#[test]
fn tools_of_the_provider_are_refused() {
    let tool = |kind: &str| json!({"tools": [{"type": "function"}, {"type": kind, "name": "x"}]});
    let mut rows = vec![
        (Api::Chat, json!({"web_search_options": {}})),
        (Api::Chat, json!({"plugins": [{"id": "web"}]})),
        (Api::Chat, tool("web_search")),
        (Api::Responses, json!({"prompt": {"id": "pmpt_1"}})),
        (
            Api::Messages,
            json!({"mcp_servers": [{"type": "url", "url": "https://x"}]}),
        ),
        (Api::Messages, json!({"MCP_Servers": ["x"]})),
        (Api::Messages, json!({"container": "c_1"})),
        (Api::Messages, json!({"container": {"skills": []}})),
    ];
    for kind in [
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "mcp",
        "image_generation",
        "computer_use_preview",
        "shell",
    ] {
        rows.push((Api::Responses, tool(kind)));
    }
    for kind in [
        "web_search_20250305",
        "web_fetch_20250910",
        "code_execution_20250825",
        "computer_20250124",
        "mcp_toolset",
        "function",
    ] {
        rows.push((Api::Messages, json!({"tools": [{"type": kind, "name": "x"}]})));
    }
    for key in [
        "googleSearch",
        "google_search",
        "googleSearchRetrieval",
        "codeExecution",
        "code_execution",
        "urlContext",
        "googleMaps",
        "fileSearch",
        "computerUse",
    ] {
        rows.push((
            Api::Contents,
            json!({"tools": [{"functionDeclarations": []}, {key: {}}]}),
        ));
        rows.push((Api::Contents, json!({"tools": {key: {}}})));
    }
    for (api, body) in rows {
        let refused = of(api, &body);
        assert!(matches!(refused, Err(Refused::Tool(_))), "{api:?} {body}: {refused:?}");
        assert!(refused.unwrap_err().to_string().contains("deny_server_tools"));
        assert_eq!(with(api, false, &[], &body), Ok(()), "{body}");
    }
}

#[test]
fn what_the_provider_would_fetch_is_refused() {
    let rows = [
        (
            Api::Chat,
            json!({"messages": [{"content": [{"image_url": {"url": "https://x/?secret"}}]}]}),
        ),
        (
            Api::Chat,
            json!({"messages": [{"content": [{"image_url": " HTTP://x"}]}]}),
        ),
        (Api::Chat, json!({"messages": [{"content": [{"image_url": "//x/y"}]}]})),
        (
            Api::Chat,
            json!({"messages": [{"content": [{"file": {"file_id": "file-1"}}]}]}),
        ),
        (
            Api::Chat,
            json!({"messages": [{"content": [{"file": {"file_data": "https://x"}}]}]}),
        ),
        (
            Api::Responses,
            json!({"input": [{"content": [{"image_url": "gs://x"}]}]}),
        ),
        (
            Api::Responses,
            json!({"input": [{"content": [{"file_url": "https://x"}]}]}),
        ),
        (Api::Responses, json!({"input": [{"output": [{"file_id": "file-1"}]}]})),
        (
            Api::Responses,
            json!({"input": [{"output": {"image_url": "https://x"}}]}),
        ),
        (
            Api::Messages,
            json!({"messages": [{"content": [{"source": {"type": "url", "url": "https://x"}}]}]}),
        ),
        (
            Api::Messages,
            json!({"messages": [{"content": [{"source": {"url": "https://x", "TYPE": "URL"}}]}]}),
        ),
        (
            Api::Messages,
            json!({"messages": [{"content": [{"content": [{"source": {"type": "file"}}]}]}]}),
        ),
        (
            Api::Contents,
            json!({"contents": [{"parts": [{"fileData": {"fileUri": "https://x"}}]}]}),
        ),
        (
            Api::Contents,
            json!({"contents": {"parts": {"file_data": {"file_uri": "https://x"}}}}),
        ),
        (
            Api::Contents,
            json!({"system_instruction": {"parts": [{"file_data": {}}]}}),
        ),
        (Api::Contents, json!({"cachedContent": "cachedContents/1"})),
    ];
    for (api, body) in rows {
        let refused = of(api, &body);
        assert!(
            matches!(refused, Err(Refused::Remote(_))),
            "{api:?} {body}: {refused:?}"
        );
        assert_eq!(with(api, false, &[], &body), Ok(()), "{body}");
    }
}

#[test]
fn a_key_said_twice_or_in_escapes_hides_nothing() {
    let rules = Rules {
        api: Api::Messages,
        walls: true,
        models: &["good".to_owned()],
        in_path: None,
    };
    for body in [
        r#"{"model":"good","tools":[{"type":"mcp_toolset"}],"tools":[]}"#,
        r#"{"model":"good","t\u006fols":[{"type":"mcp_toolset"}]}"#,
        r#"{"model":"good","mcp_servers":[1]}"#,
    ] {
        assert!(matches!(check(body.as_bytes(), rules), Err(Refused::Tool(_))), "{body}");
    }
    for body in [
        r#"{"model":"good","model":"bad"}"#,
        r#"{"model":"good","Model":"bad"}"#,
        r#"{"model":"good","models":["bad"]}"#,
    ] {
        assert_eq!(
            check(body.as_bytes(), rules),
            Err(Refused::Model("bad".into())),
            "{body}"
        );
    }
    let deep = format!("{{\"model\":\"good\",\"x\":{}", "[".repeat(100_000));
    for body in ["", "{", "{\"model\":\"good\"} {\"tools\":[]}", "model=good", &deep] {
        assert_eq!(check(body.as_bytes(), rules), Err(Refused::NotJson), "{body:.40}");
    }
}

#[test]
fn models_are_those_that_are_listed() {
    let models = ["one".to_owned(), "two-2026".to_owned()];
    let says = |body| with(Api::Chat, true, &models, &body);
    assert_eq!(says(json!({"model": "two-2026"})), Ok(()));
    assert_eq!(says(json!({"messages": [{"model": "x"}], "model": "one"})), Ok(()));
    assert_eq!(says(json!({"model": "two"})), Err(Refused::Model("two".into())));
    assert_eq!(says(json!({"messages": []})), Err(Refused::Model(String::new())));
    assert_eq!(says(json!({"model": 3})), Err(Refused::Model(String::new())));
    let in_path = |name| {
        let rules = Rules {
            api: Api::Contents,
            walls: true,
            models: &models,
            in_path: Some(name),
        };
        check(b"{}", rules)
    };
    assert_eq!(in_path("one"), Ok(()));
    assert!(
        in_path("three")
            .unwrap_err()
            .to_string()
            .contains("three is not open to agents")
    );
}

#[test]
fn a_path_that_only_the_operator_knows_is_held_to_all_of_it() {
    assert_eq!(
        of(Api::Other, &json!({"tools": [{"type": "function", "function": {}}]})),
        Ok(())
    );
    for body in [
        json!({"tools": [{"type": "web_search"}]}),
        json!({"mcp_servers": [1]}),
        json!({"messages": [{"content": [{"image_url": "https://x"}]}]}),
        json!({"background": true}),
    ] {
        assert!(of(Api::Other, &body).is_err(), "{body}");
    }
}

#[test]
fn nothing_goes_on_in_the_background_with_walls_or_without() {
    for walls in [true, false] {
        assert_eq!(
            with(Api::Responses, walls, &[], &json!({"background": true})),
            Err(Refused::Background)
        );
    }
}
