//! The four shapes, whole and in pieces of every size, and what is none of them.

use super::*;

const EVENTS: &str = "text/event-stream; charset=utf-8";
const JSON: &str = "application/json";

fn seen(content_type: &str, text: &str, piece: usize) -> Tap {
    let mut tap = Tap::new(content_type, false);
    for piece in text.as_bytes().chunks(piece) {
        tap.see(piece);
    }
    tap
}

fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input, output }
}

#[test]
fn every_shape_is_read_however_it_is_cut() {
    let shapes = [
        (
            JSON,
            r#"{"choices":[{"message":{"content":"usage"}}],"usage":{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}}"#,
        ),
        (
            EVENTS,
            "data: {\"choices\":[{}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\ndata: [DONE]\n\n",
        ),
        (
            JSON,
            r#"{"object":"response","usage":{"input_tokens":11,"output_tokens":7,"output_tokens_details":{"reasoning_tokens":5}}}"#,
        ),
        (
            EVENTS,
            "event: response.created\r\ndata: {\"type\":\"response.created\",\"response\":{\"usage\":null}}\r\n\r\nevent: response.completed\r\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[],\"usage\":{\"input_tokens\":11,\"output_tokens\":7}}}\r\n\r\n",
        ),
        (
            JSON,
            r#"{"type":"message","usage":{"input_tokens":1,"cache_creation_input_tokens":4,"cache_read_input_tokens":6,"output_tokens":7}}"#,
        ),
        (
            EVENTS,
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1,\"cache_read_input_tokens\":10,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":7}}\n\n",
        ),
        (
            JSON,
            r#"{"candidates":[],"usageMetadata":{"promptTokenCount":9,"toolUsePromptTokenCount":2,"candidatesTokenCount":4,"thoughtsTokenCount":3,"totalTokenCount":18}}"#,
        ),
        (
            EVENTS,
            "data: {\"usageMetadata\":{\"promptTokenCount\":11}}\n\ndata: {\"usageMetadata\":{\"promptTokenCount\":11,\"candidatesTokenCount\":7}}",
        ),
        (
            JSON,
            r#"[{"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":2}},{"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":7}}]"#,
        ),
    ];
    for (content_type, text) in shapes {
        for piece in [1, 2, 7, text.len()] {
            let mut tap = seen(content_type, text, piece);
            tap.end();
            assert_eq!(tap.tokens(), tokens(11, 7), "{piece}: {text}");
            assert_eq!(tap.charge(4000), tokens(11, 7), "{text}");
        }
    }
}

#[test]
fn numbers_in_a_stream_are_known_before_its_end() {
    let mut tap = Tap::new(EVENTS, false);
    tap.see(b"data: {\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n");
    assert_eq!(tap.tokens(), tokens(11, 7));
}

#[test]
fn hostile_numbers_are_cut_and_nonsense_counts_as_nothing() {
    for (number, wanted) in [
        ("18446744073709551615", MOST_BELIEVED),
        ("18446744073709551616", MOST_BELIEVED),
        ("1e300", MOST_BELIEVED),
        ("-1", 0),
        ("-1e300", 0),
        ("12.9", 12),
        ("\"12\"", 0),
        ("null", 0),
        ("[12]", 0),
        ("{\"a\":12}", 0),
        ("true", 0),
        // More than a number can be: the line does not read at all.
        ("1e999", 0),
    ] {
        let mut tap = seen(JSON, &format!("{{\"usage\":{{\"prompt_tokens\":{number}}}}}"), 9);
        tap.end();
        assert_eq!(tap.tokens(), tokens(wanted, 0), "{number}");
    }
    for text in [
        "",
        "usage",
        "{\"usage\":",
        "{\"usage\":3}",
        "{\"usage\":{},\"usage\":{\"prompt_tokens\":1}}",
        "[[{\"usage\":{\"prompt_tokens\":1}}]]",
        "\u{0}usage\u{ff}",
    ] {
        for content_type in [JSON, EVENTS, "", "text/plain"] {
            let mut tap = seen(content_type, &format!("data: {text}\n"), 3);
            tap.end();
            assert_eq!(tap.tokens(), Tokens::default(), "{content_type} {text}");
        }
    }
    let deep = format!("{{\"usage\":{}", "[".repeat(100_000));
    let mut tap = seen(JSON, &deep, 1000);
    tap.end();
    assert_eq!(tap.tokens(), Tokens::default());
}

#[test]
fn memory_is_bounded_and_a_long_line_hides_only_itself() {
    let mut tap = Tap::new(EVENTS, false);
    let long = vec![b'x'; 1024 * 1024];
    tap.see(b"data: ");
    for _ in 0..6 {
        tap.see(&long);
        let Form::Events(line, _) = &tap.form else { panic!() };
        assert!(line.len() <= LONGEST);
    }
    tap.see(b"\ndata: {\"usage\":{\"output_tokens\":3}}\n");
    assert_eq!(tap.tokens(), tokens(0, 3));
    let mut whole = Tap::new(JSON, false);
    for _ in 0..6 {
        whole.see(&long);
    }
    assert!(matches!(whole.form, Form::Unread));
    whole.end();
    assert_eq!(whole.charge(40), tokens(10, 6 * 1024 * 1024 / 4));
}

#[test]
fn who_does_not_ask_for_numbers_or_hangs_up_is_charged_a_guess() {
    let silent = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n".repeat(50) + "data: [DONE]\n\n";
    let mut tap = seen(EVENTS, &silent, 100);
    tap.end();
    assert_eq!(tap.tokens(), Tokens::default());
    assert_eq!(tap.charge(4000), tokens(1000, 51));
    let begun = "data: {\"message\":{\"usage\":{\"input_tokens\":5000,\"output_tokens\":1}}}\n\n";
    // It was cut off: `end` is never called.
    let cut = seen(EVENTS, &(begun.to_owned() + &"data: {}\n\n".repeat(20)), 10);
    assert_eq!(cut.charge(4000), tokens(5000, 21));
    let mut encoded = Tap::new(EVENTS, true);
    encoded.see(&[0; 400]);
    encoded.end();
    assert_eq!(encoded.charge(0), tokens(0, 100));
}
