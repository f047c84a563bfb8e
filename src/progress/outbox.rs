//! What waits to be sent, in order: states with their place reserved, notes joined and within a budget. Pure; no clock, no I/O.
//!
//! Never shows a known secret that is split between two events, also where others stand between them, and never holds more than its bounds:
//! what may be the beginning of one is masked where it is told from words, and what goes on with it is masked in any case.

use std::collections::VecDeque;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::scrub;
use crate::message::EventBody;
use crate::message::readable::readable;
use crate::secret::{MASKED, Mask};

/// Bytes of notes that wait at most.
const NOTE_BYTES: usize = 256 * 1024;
/// Notes that wait at most.
const NOTES: usize = 512;

/// Gaps in the progress that are told where they are; later ones are told together before the next state.
const MOST_GAPS: u32 = 100;

/// From so many bytes on, what ends a text and is the beginning of a secret is masked before the rest is known. Less tells nothing, and ends
/// many words.
const TELLING: usize = 4;

/// What is to be sent next.
#[derive(Debug)]
pub(super) enum Next {
    /// May be lost.
    Note(EventBody),
    /// Must arrive. The permit is freed and the confirmation given after that.
    State {
        body: EventBody,
        room: Option<OwnedSemaphorePermit>,
        confirmed: Option<oneshot::Sender<()>>,
    },
}

#[derive(Debug)]
enum Entry {
    Note {
        body: EventBody,
        bytes: usize,
    },
    /// Joined text of the agent, cleaned but not masked: only what is known to be no part of a secret leaves it before its end.
    Stream {
        thought: bool,
        text: String,
        /// Bytes at its beginning that were shown, or masked, before another event: they may be the first half of a secret.
        before: usize,
        ended: bool,
    },
    State(Next),
}

/// How urgent the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Nothing,
    /// Only what can wait a little.
    Notes,
    /// Something that must arrive.
    States,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    note_bytes: usize,
    states: usize,
    dropped_bytes: u64,
    gaps: u32,
    /// Bytes of notes taken so far, and how many may be in all.
    taken: u64,
    most: Option<u64>,
    /// How the agent's words and thoughts ended when something else came, where that may be the beginning of a secret.
    begun: [String; 2],
    closed: bool,
}

impl Outbox {
    /// One that takes so many bytes of notes in its life; states are not counted.
    pub(super) fn bounded(most: u64) -> Self {
        Self {
            most: Some(most),
            ..Self::default()
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes nothing more; what waits may still be sent.
    pub(super) fn close(&mut self) {
        self.mark_ended();
        self.closed = true;
    }

    pub(super) fn push_state(
        &mut self,
        mut body: EventBody,
        room: Option<OwnedSemaphorePermit>,
        confirmed: Option<oneshot::Sender<()>>,
        mask: &Mask,
    ) {
        if self.closed {
            tracing::debug!(kind = body.kind(), "an event after the last one is not sent");
            return;
        }
        scrub::body(&mut body, mask);
        self.end_stream(mask);
        self.states += 1;
        self.entries
            .push_back(Entry::State(Next::State { body, room, confirmed }));
    }

    pub(super) fn push_note(&mut self, body: EventBody, mask: &Mask) {
        if self.closed {
            return;
        }
        match body {
            EventBody::AgentMessage { text } => self.push_text(false, &text, mask),
            EventBody::AgentThought { text } => self.push_text(true, &text, mask),
            EventBody::Rejected { .. }
            | EventBody::Claimed { .. }
            | EventBody::Stage { .. }
            | EventBody::Connected { .. }
            | EventBody::Granted { .. }
            | EventBody::Clone { .. }
            | EventBody::Cloned { .. }
            | EventBody::TurnStarted { .. }
            | EventBody::AgentTool { .. }
            | EventBody::AgentPlan { .. }
            | EventBody::AgentPermission { .. }
            | EventBody::AgentUsage { .. }
            | EventBody::OutputDropped { .. }
            | EventBody::EgressRefused { .. }
            | EventBody::ModelUsage { .. }
            | EventBody::TurnEnded { .. }
            | EventBody::PushAccepted { .. }
            | EventBody::PushRefused { .. }
            | EventBody::Commented { .. }
            | EventBody::BranchPublished { .. }
            | EventBody::ChangeRequestOpened { .. }
            | EventBody::ChangeRequestUpdated { .. }
            | EventBody::NeedsAttention { .. }
            | EventBody::ProjectFinished { .. }
            | EventBody::Warning { .. }
            | EventBody::ControlReceived { .. }
            | EventBody::ControlAnswered { .. }
            | EventBody::Suspended { .. }
            | EventBody::Finished { .. } => self.push_other(body, mask),
        }
    }

    fn push_text(&mut self, thought: bool, text: &str, mask: &Mask) {
        // Cleaned before it is joined and masked: an invisible character inside a secret must not hide it.
        let text = readable(text);
        if text.is_empty() {
            return;
        }
        if !self.has_room(text.len()) {
            self.drop_note(text.len(), mask);
            return;
        }
        self.take(text.len());
        if let Some(Entry::Stream {
            thought: known,
            text: waiting,
            ended: false,
            ..
        }) = self.entries.back_mut()
            && *known == thought
        {
            waiting.push_str(&text);
            return;
        }
        self.end_stream(mask);
        let begun = std::mem::take(self.begun_of(thought));
        self.entries.push_back(Entry::Stream {
            thought,
            before: begun.len(),
            text: begun + &text,
            ended: false,
        });
    }

    fn push_other(&mut self, mut body: EventBody, mask: &Mask) {
        scrub::body(&mut body, mask);
        let bytes = scrub::size(&body);
        // A newer state of the same thing replaces one that has not been sent.
        if let Some(Entry::Note {
            body: last,
            bytes: known,
        }) = self.entries.back_mut()
            && supersedes(&body, last)
        {
            self.note_bytes = self.note_bytes.saturating_sub(*known) + bytes;
            self.taken = self.taken.saturating_add(bytes as u64);
            (*last, *known) = (body, bytes);
            return;
        }
        if !self.has_room(bytes) {
            self.drop_note(bytes, mask);
            return;
        }
        self.end_stream(mask);
        self.take(bytes);
        self.entries.push_back(Entry::Note { body, bytes });
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.note_bytes + bytes <= NOTE_BYTES
            && self.entries.len() - self.states < NOTES
            && self
                .most
                .is_none_or(|most| self.taken.saturating_add(bytes as u64) <= most)
    }

    fn take(&mut self, bytes: usize) {
        self.note_bytes += bytes;
        self.taken = self.taken.saturating_add(bytes as u64);
    }

    /// Counts what is lost. Text after a gap must not be read as the continuation of text before it.
    fn drop_note(&mut self, bytes: usize, mask: &Mask) {
        self.count_dropped(bytes);
        if let Some(Entry::Stream {
            text,
            before,
            ended: false,
            ..
        }) = self.entries.back_mut()
        {
            let settled = mask.settled(text).max(*before);
            let cut = text.len() - settled;
            text.truncate(settled);
            self.note_bytes = self.note_bytes.saturating_sub(cut);
            self.count_dropped(cut);
        }
        self.mark_ended();
        self.begun = Default::default();
    }

    /// Counts a note that could not be sent.
    pub(super) fn count_dropped(&mut self, bytes: usize) {
        self.dropped_bytes = self
            .dropped_bytes
            .saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    fn mark_ended(&mut self) {
        if let Some(Entry::Stream { ended, .. }) = self.entries.back_mut() {
            *ended = true;
        }
    }

    fn begun_of(&mut self, thought: bool) -> &mut String {
        let [words, thoughts] = &mut self.begun;
        if thought { thoughts } else { words }
    }

    /// Something else comes. Text may go on behind it, so its end is kept in mind, and masked where that says enough.
    fn end_stream(&mut self, mask: &Mask) {
        let Some(Entry::Stream {
            thought,
            text,
            before,
            ended: ended @ false,
        }) = self.entries.back_mut()
        else {
            return;
        };
        *ended = true;
        let begun = text.split_off(mask.settled(text));
        if begun.len() >= TELLING {
            let shown = (text.len() + begun.len()).saturating_sub(text.len().max(*before));
            // What was there before this text stays as it is: it is not shown again.
            text.push_str(begun.get(..begun.len() - shown).unwrap_or_default());
            let mark = if shown > 0 { MASKED } else { "" };
            text.push_str(mark);
            self.note_bytes = (self.note_bytes + mark.len()).saturating_sub(shown);
        } else {
            text.push_str(&begun);
        }
        let thought = *thought;
        // Nothing is that long and still only the beginning of a secret.
        *self.begun_of(thought) = if begun.len() <= scrub::LONGEST_TEXT {
            begun
        } else {
            String::new()
        };
    }

    pub(super) fn waiting(&self, mask: &Mask) -> Waiting {
        if self.states > 0 {
            return Waiting::States;
        }
        let sendable = match self.entries.front() {
            Some(Entry::Stream {
                text,
                before,
                ended: false,
                ..
            }) => cut(text, *before, false, mask) > *before,
            Some(Entry::Stream { .. } | Entry::Note { .. } | Entry::State(_)) => true,
            // Worth telling even if nothing else follows.
            None => self.dropped_bytes > 0 && self.gaps < MOST_GAPS && !self.closed,
        };
        if sendable { Waiting::Notes } else { Waiting::Nothing }
    }

    /// The next event, if one can be sent now.
    pub(super) fn next(&mut self, mask: &Mask) -> Option<Next> {
        let here = self.gaps < MOST_GAPS || matches!(self.entries.front(), Some(Entry::State(_)));
        if self.dropped_bytes > 0 && here && !self.closed_and_empty() {
            self.gaps = self.gaps.saturating_add(1);
            let bytes = std::mem::take(&mut self.dropped_bytes);
            let what = "progress".into();
            return Some(Next::State {
                body: EventBody::OutputDropped { what, bytes },
                room: None,
                confirmed: None,
            });
        }
        match self.entries.pop_front()? {
            Entry::State(next) => {
                self.states -= 1;
                Some(next)
            }
            Entry::Note { body, bytes } => {
                self.note_bytes = self.note_bytes.saturating_sub(bytes);
                Some(Next::Note(body))
            }
            Entry::Stream {
                thought,
                text,
                before,
                ended,
            } => self.next_of_stream(thought, text, before, ended, mask),
        }
    }

    /// After the last event nothing is sent, not even that something was dropped.
    fn closed_and_empty(&self) -> bool {
        self.closed && self.entries.is_empty()
    }

    fn next_of_stream(
        &mut self,
        thought: bool,
        mut text: String,
        before: usize,
        ended: bool,
        mask: &Mask,
    ) -> Option<Next> {
        let cut = cut(&text, before, ended, mask);
        if cut <= before && !(ended && cut == text.len()) {
            self.entries.push_front(Entry::Stream {
                thought,
                text,
                before,
                ended,
            });
            return None;
        }
        let rest = text.split_off(cut);
        self.note_bytes = self.note_bytes.saturating_sub(cut - before);
        if !(rest.is_empty() && ended) {
            self.entries.push_front(Entry::Stream {
                thought,
                text: rest,
                before: 0,
                ended,
            });
        }
        let text = mask.apply_from(&text, before);
        match (text.is_empty(), thought) {
            (true, _) if ended && !self.entries.is_empty() => self.next(mask),
            (true, _) => None,
            (false, true) => Some(Next::Note(EventBody::AgentThought { text })),
            (false, false) => Some(Next::Note(EventBody::AgentMessage { text })),
        }
    }
}

/// Up to where a joined text makes the next event: never before what was shown already.
fn cut(text: &str, before: usize, ended: bool, mask: &Mask) -> usize {
    // Half a secret may be shorter than the mark in its place.
    let most = scrub::LONGEST_TEXT - if before > 0 { MASKED.len() } else { 0 };
    if ended && text.len() <= before + most {
        return text.len();
    }
    let end = text.floor_char_boundary(before + most);
    match mask.settled(&text[..end]) {
        // Nothing is that long and still only the beginning of a secret.
        settled if settled <= before && end < text.len() => end,
        settled => settled.max(before),
    }
}

fn supersedes(new: &EventBody, old: &EventBody) -> bool {
    if let (EventBody::AgentTool { call: new, .. }, EventBody::AgentTool { call: old, .. }) = (new, old) {
        return new == old;
    }
    if let (EventBody::Clone { project: new, .. }, EventBody::Clone { project: old, .. }) = (new, old) {
        return new == old;
    }
    matches!((new, old), (EventBody::AgentPlan { .. }, EventBody::AgentPlan { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    /// Sends all that can be sent and returns the agent's words in it.
    fn drain(outbox: &mut Outbox, mask: &Mask) -> String {
        let mut said = String::new();
        while let Some(next) = outbox.next(mask) {
            if let Next::Note(EventBody::AgentMessage { text }) = next {
                assert!(text.len() <= scrub::LONGEST_TEXT);
                said.push_str(&text);
            }
        }
        said
    }

    fn say(text: &str) -> EventBody {
        EventBody::AgentMessage { text: text.into() }
    }

    #[test]
    fn however_it_is_cut_the_text_is_masked_like_the_whole() {
        let secrets = ["glpat-abcabcabc", "abcabcabc-tail", "größe-secret"].map(Secret::new);
        let mask = Mask::new(&secrets);
        let text = "x glpat-abcabcabc y abcabcabc-tail größe-secret glpat-abcabcab! größe-secre";
        let cuts: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        for first in &cuts {
            for second in cuts.iter().filter(|second| *second >= first) {
                let mut outbox = Outbox::default();
                let mut said = String::new();
                for part in [&text[..*first], &text[*first..*second], &text[*second..]] {
                    outbox.push_note(say(part), &mask);
                    said += &drain(&mut outbox, &mask);
                }
                outbox.close();
                said += &drain(&mut outbox, &mask);
                assert_eq!(said, mask.apply(text), "cut at {first} and {second}");
                assert_eq!(outbox.note_bytes, 0);
            }
        }
    }

    #[test]
    fn long_text_makes_several_events_and_loses_nothing() {
        let mask = Mask::new([&Secret::new("glpat-0123456789")]);
        let text = "glpat-0123456789 größer ".repeat(3000);
        let mut outbox = Outbox::default();
        outbox.push_note(say(&text), &mask);
        outbox.close();
        assert_eq!(drain(&mut outbox, &mask), mask.apply(&text));
    }

    #[test]
    fn text_after_a_gap_does_not_show_the_beginning_of_a_secret_before_it() {
        let mask = Mask::new([&Secret::new("glpat-0123456789")]);
        let mut outbox = Outbox::default();
        outbox.push_note(say("it is glpat-01234"), &mask);
        outbox.push_note(say(&"x".repeat(NOTE_BYTES)), &mask);
        outbox.push_note(say("more"), &mask);
        outbox.close();
        let Some(Next::State { body, .. }) = outbox.next(&mask) else {
            panic!("what was dropped is told first");
        };
        let lost = (NOTE_BYTES + "glpat-01234".len()) as u64;
        assert!(matches!(body, EventBody::OutputDropped { bytes, .. } if bytes == lost));
        assert_eq!(drain(&mut outbox, &mask), "it is more");
    }

    #[test]
    fn a_secret_with_other_events_in_its_middle_is_masked_on_both_sides() {
        let mask = Mask::new([&Secret::new("glpat-0123456789")]);
        for (first, second, third, shown) in [
            (
                "test glpat-",
                "0123",
                "456789 end",
                "test [MASKED]|[MASKED]|[MASKED] end",
            ),
            ("glpat-01234567", "89", "end", "[MASKED]|[MASKED]|end"),
            ("so g", "lpat-0123456789end", "", "so g|[MASKED]end|"),
            ("so g", "reat", " news", "so g|reat| news"),
            ("glpat-", "not at all", "", "[MASKED]|not at all|"),
        ] {
            for is_state in [false, true] {
                let mut outbox = Outbox::default();
                let mut said: Vec<String> = Vec::new();
                for part in [first, second, third] {
                    // In one piece and letter by letter, sent as it comes.
                    let mut now = String::new();
                    for letter in part.chars() {
                        outbox.push_note(say(&letter.to_string()), &mask);
                        now += &drain(&mut outbox, &mask);
                    }
                    if is_state {
                        outbox.push_state(EventBody::TurnStarted { turn: 1 }, None, None, &mask);
                    } else {
                        outbox.push_note(EventBody::AgentThought { text: "hm".into() }, &mask);
                    }
                    now += &drain(&mut outbox, &mask);
                    said.push(now);
                }
                assert_eq!(said.join("|"), shown, "{first:?} {second:?} {third:?} {is_state}");
                outbox.close();
                drain(&mut outbox, &mask);
                assert_eq!(outbox.note_bytes, 0);
            }
        }
    }

    #[test]
    fn a_session_has_so_much_to_say_and_its_gaps_are_told_so_often() {
        let mask = Mask::default();
        let mut outbox = Outbox::bounded(10);
        let say = |text: &str| EventBody::AgentMessage { text: text.into() };
        outbox.push_note(say("12345"), &mask);
        outbox.push_note(say("1234567"), &mask);
        outbox.push_note(say("12345"), &mask);
        let mut gaps = 0;
        let mut texts = String::new();
        for _ in 0..10 * MOST_GAPS {
            match outbox.next(&mask) {
                Some(Next::State {
                    body: EventBody::OutputDropped { bytes, .. },
                    ..
                }) => {
                    assert_eq!(bytes, 7);
                    gaps += 1;
                }
                Some(Next::Note(EventBody::AgentMessage { text })) => texts.push_str(&text),
                other => assert!(other.is_none(), "{other:?}"),
            }
            outbox.push_note(say("1234567"), &mask);
        }
        assert_eq!((gaps, texts.as_str()), (MOST_GAPS, "1234512345"));
        assert_eq!(outbox.waiting(&mask), Waiting::Nothing);
        // The rest is told before what must arrive, all of it at once.
        outbox.push_state(EventBody::TurnStarted { turn: 1 }, None, None, &mask);
        let Some(Next::State {
            body: EventBody::OutputDropped { bytes, .. },
            ..
        }) = outbox.next(&mask)
        else {
            panic!("what was dropped is told first");
        };
        assert_eq!(bytes, 7 * u64::from(9 * MOST_GAPS + 1));
        assert!(matches!(
            outbox.next(&mask),
            Some(Next::State {
                body: EventBody::TurnStarted { .. },
                ..
            })
        ));
    }
}
