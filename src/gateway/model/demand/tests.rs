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
    check(body.to_string().as_bytes(), rules).map(drop)
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
        (
            Api::Responses,
            json!({"model": "m", "tools": [{"type": "tool_search", "execution": "client", "parameters": schema},
                {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f", "parameters": schema}]}],
            "input": [{"type": "additional_tools", "tools": [{"type": "custom", "name": "exec"},
                {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f", "parameters": schema}]}]}]}),
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
        let group = json!([{"type": "namespace", "name": "n", "tools": [{"type": kind, "name": "x"}]}]);
        rows.push((Api::Responses, json!({"tools": group})));
        rows.push((
            Api::Responses,
            json!({"input": [{"type": "additional_tools", "tools": group}]}),
        ));
        rows.push((
            Api::Responses,
            json!({"input": [{"type": "additional_tools", "tools": [{"type": kind}]}]}),
        ));
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
        check(b"{}", rules).map(drop)
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

#[test]
fn what_reaches_out_is_found_however_deep_and_however_it_is_spelled() {
    let document = json!({"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}});
    let rows = [
        (
            Api::Messages,
            json!({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [document]}]}]}),
        ),
        (
            Api::Messages,
            json!({"system": [{"type": "text", "source": {"type": "file", "file_id": "file-1"}}]}),
        ),
        (
            Api::Messages,
            json!({"messages": [{"content": [{"a": {"b": {"c": {"d": {"e": [{"container_upload": {"file_id": "f"}}]}}}}}]}]}),
        ),
        (
            Api::Chat,
            json!({"messages": [{"content": [{"type": "document_url", "document_url": "https://x"}]}]}),
        ),
        (
            Api::Chat,
            json!({"messages": [{"content": [{"type": "document_url", "document_url": {"url": "https://x"}}]}]}),
        ),
        (Api::Responses, json!({"conversation": "conv_1"})),
        (Api::Responses, json!({"conversation": {"id": "conv_1"}})),
        (Api::Responses, json!({"previous_response_id": "resp_1"})),
        (
            Api::Responses,
            json!({"input": [{"type": "item_reference", "id": "msg_1"}]}),
        ),
        // Characters that some parser of addresses takes away.
        (
            Api::Chat,
            json!({"messages": [{"content": [{"image_url": {"url": format!("{}http://x", "\u{1}".repeat(64))}}]}]}),
        ),
        (
            Api::Chat,
            json!({"messages": [{"content": [{"image_url": {"url": format!("{}http://x", "A".repeat(64))}}]}]}),
        ),
        // Servers that read keys without case fold these two to `s` and `k`.
        (
            Api::Messages,
            json!({"messages": [{"content": [{"\u{17f}ource": {"type": "url"}}]}]}),
        ),
    ];
    for (api, body) in rows {
        let refused = of(api, &body);
        assert!(
            matches!(refused, Err(Refused::Remote(_))),
            "{api:?} {body}: {refused:?}"
        );
        assert_eq!(with(api, false, &[], &body), Ok(()), "{body}");
        assert!(of(Api::Other, &body).is_err(), "{body}");
    }
    let rows = [
        (
            Api::Responses,
            json!({"input": [{"type": "x", "tools": [{"type": "mcp", "server_url": "https://x"}]}]}),
        ),
        (Api::Responses, json!({"input": [{"server_url": "https://x"}]})),
        (Api::Chat, json!({"tool\u{17f}": [{"type": "web_search"}]})),
        (Api::Chat, json!({"search_parameters": {"mode": "on"}})),
        (Api::Chat, json!({"model": "x:online"})),
        (Api::Chat, json!({"models": ["a", "x:Online"]})),
        (Api::Chat, json!({"model": "some-search-preview"})),
        (Api::Responses, json!({"model": "x-deep-research-2026"})),
    ];
    for (api, body) in rows {
        let refused = of(api, &body);
        assert!(matches!(refused, Err(Refused::Tool(_))), "{api:?} {body}: {refused:?}");
        assert_eq!(with(api, false, &[], &body), Ok(()), "{body}");
    }
    // A model that the operator lists by name is the operator's word.
    let listed = ["x:online".to_owned()];
    assert_eq!(with(Api::Chat, true, &listed, &json!({"model": "x:online"})), Ok(()));
}

#[test]
fn what_a_tool_of_the_sandbox_is_given_may_say_anything() {
    let hostile = json!({"url": "https://x", "file_id": "f", "server_url": "https://x", "source": {"type": "url"}, "tools": [{"type": "mcp"}]});
    let rows = [
        (
            Api::Chat,
            json!({"tools": [{"type": "function", "function": {"parameters": hostile}}], "response_format": {"type": "json_schema", "json_schema": {"schema": hostile}}}),
        ),
        (
            Api::Chat,
            json!({"messages": [{"tool_calls": [{"function": {"arguments": hostile}}]}]}),
        ),
        (
            Api::Responses,
            json!({"tools": [{"type": "function", "parameters": hostile}], "text": {"format": {"schema": hostile}}}),
        ),
        (
            Api::Messages,
            json!({"tools": [{"name": "x", "input_schema": hostile}], "messages": [{"content": [{"type": "tool_use", "input": hostile}]}]}),
        ),
        (
            Api::Contents,
            json!({"tools": [{"functionDeclarations": [{"parameters": hostile}]}],
            "contents": [{"parts": [{"functionCall": {"args": hostile}}, {"functionResponse": {"response": hostile}}]}]}),
        ),
    ];
    for (api, body) in rows {
        assert_eq!(of(api, &body), Ok(()), "{api:?} {body}");
    }
}

#[test]
fn what_an_answer_may_cost_is_the_requests_own_limit_or_a_guess() {
    let of = |api, body: serde_json::Value| {
        let rules = Rules {
            api,
            walls: true,
            models: &[],
            in_path: None,
        };
        check(body.to_string().as_bytes(), rules).unwrap().output()
    };
    assert_eq!(of(Api::Chat, json!({})), USUAL_OUTPUT);
    assert_eq!(of(Api::Chat, json!({"max_tokens": 5, "max_completion_tokens": 7})), 7);
    assert_eq!(of(Api::Chat, json!({"max_tokens": 5, "n": 3})), 15);
    assert_eq!(of(Api::Responses, json!({"max_output_tokens": 5})), 5);
    assert_eq!(of(Api::Messages, json!({"max_tokens": 5})), 5);
    assert_eq!(
        of(
            Api::Contents,
            json!({"generationConfig": {"maxOutputTokens": 5, "candidateCount": 2}})
        ),
        10
    );
    // What the provider may not take for a limit is none.
    for body in [
        json!({"Max_Tokens": 5}),
        json!({"max_output_tokens": 5}),
        json!({"x": {"max_tokens": 5}}),
        json!({"max_tokens": "5"}),
        json!({"max_tokens": -5}),
    ] {
        assert_eq!(of(Api::Chat, body.clone()), USUAL_OUTPUT, "{body}");
    }
    assert_eq!(
        of(Api::Contents, json!({"GenerationConfig": {"maxOutputTokens": 5}})),
        USUAL_OUTPUT
    );
    assert_eq!(of(Api::Chat, json!({"max_tokens": u64::MAX, "n": u64::MAX})), u64::MAX);
}
