//! What an agent says: lines of the Agent Client Protocol, and the answer in which its sections are looked for.

use cofferdam::agent::sections;
use cofferdam::fuzzing::acp;
use cofferdam::message::EventBody;

use crate::judge::{each_string, now};

/// An agent's whole output.
pub fn output(data: &[u8]) {
    let (said, events) = now(acp::output(data));
    let length: usize = said.iter().map(String::len).sum();
    // JSON can only make text shorter, but for what is not UTF-8, which is no JSON.
    assert!(length <= data.len());
    for event in &events {
        let value = serde_json::to_value(event).expect("an event can be written");
        let EventBody::AgentThought { .. } = event else {
            each_string(&value, "", &mut |name, text| {
                assert!(
                    text.chars().count() <= 500,
                    "{name} has {} characters",
                    text.chars().count()
                );
            });
            continue;
        };
    }
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(events.len() <= 3 * lines);
}

/// An answer: no section holds a line that the answer does not.
pub fn sections(data: &[u8]) {
    let answer = &*String::from_utf8_lossy(data);
    let found = sections::read(answer);
    for text in [&found.changes, &found.approach, &found.trade_offs, &found.checked] {
        assert!(text.len() <= answer.len() && text.trim() == text);
        for line in text.lines() {
            assert!(answer.contains(line));
        }
    }
}
