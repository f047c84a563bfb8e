//! Against a recording queue: what a follower of the session sees.

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::*;
use crate::message::Event;
use crate::message::event::{PlanEntry, Stage};
use crate::queue::{Claimed, Delivery, QueueError};
use crate::secret::MASKED;

const TOKEN: &str = "glpat-0123456789";

/// Records what is confirmed; away while told so.
struct Recorder {
    confirmed: mpsc::UnboundedSender<Event>,
    tried: mpsc::UnboundedSender<u64>,
    away: watch::Sender<bool>,
}

struct Follower {
    confirmed: mpsc::UnboundedReceiver<Event>,
    tried: mpsc::UnboundedReceiver<u64>,
    queue: Arc<Recorder>,
}

#[async_trait]
impl Queue for Recorder {
    async fn next_task(&self) -> Option<Delivery> {
        None
    }

    async fn claim(&self, session: SessionId, _again: crate::queue::Again) -> Result<Claimed, QueueError> {
        let detail = "not here".into();
        Err(QueueError::Claim { session, detail })
    }

    async fn publish(&self, event: &Event) -> Result<(), QueueError> {
        self.tried.send(event.data.seq).unwrap();
        if *self.away.borrow() {
            let what = event.id.clone();
            return Err(QueueError::Publish {
                what,
                detail: "the broker is away".into(),
            });
        }
        self.confirmed.send(event.clone()).unwrap();
        Ok(())
    }

    async fn stop_consuming(&self) {}

    fn is_connected(&self) -> bool {
        !*self.away.borrow()
    }
}

fn progress(config: &Config) -> (Progress, Follower) {
    let (confirmed, confirmed_receiver) = mpsc::unbounded_channel();
    let (tried, tried_receiver) = mpsc::unbounded_channel();
    let queue = Arc::new(Recorder {
        confirmed,
        tried,
        away: watch::Sender::new(false),
    });
    let session = SessionId(uuid::Uuid::new_v4());
    let mask = Mask::new([&Secret::new(TOKEN)]);
    let progress = Progress::new(Arc::<Recorder>::clone(&queue), "w", session, 1, mask, config);
    let follower = Follower {
        confirmed: confirmed_receiver,
        tried: tried_receiver,
        queue,
    };
    (progress, follower)
}

impl Follower {
    async fn next(&mut self) -> (u64, EventBody) {
        let event = self.confirmed.recv().await.unwrap();
        (event.data.seq, event.data.body)
    }

    async fn message(&mut self) -> String {
        let (_, body) = self.next().await;
        let EventBody::AgentMessage { text } = body else {
            panic!("not a message: {body:?}");
        };
        text
    }
}

fn say(text: &str) -> EventBody {
    EventBody::AgentMessage { text: text.into() }
}

fn turn_ended() -> EventBody {
    EventBody::TurnEnded {
        turn: 1,
        stop_reason: "end_turn".into(),
    }
}

#[tokio::test]
async fn events_come_in_order_and_are_counted_from_one() {
    let (progress, mut follower) = progress(&Config::default());
    for stage in Stage::ALL {
        progress.state(EventBody::Stage { stage }).await;
    }
    progress.note(say("hello"));
    progress.finish(turn_ended()).await.unwrap();
    for (seq, stage) in (1..).zip(Stage::ALL) {
        let (got, body) = follower.next().await;
        assert_eq!(got, seq);
        assert!(matches!(body, EventBody::Stage { stage: known } if known == stage));
    }
    assert_eq!(follower.message().await, "hello");
    let (last, body) = follower.next().await;
    assert_eq!(last, Stage::ALL.len() as u64 + 2);
    assert!(matches!(body, EventBody::TurnEnded { .. }));

    // Nothing follows the last event.
    progress.state(turn_ended()).await;
    progress.note(say("more"));
    assert!(matches!(progress.finish(turn_ended()).await, Err(ProgressError::Ended)));
    drop(progress);
    follower.queue = Arc::new(Recorder {
        confirmed: mpsc::unbounded_channel().0,
        tried: mpsc::unbounded_channel().0,
        away: watch::Sender::new(false),
    });
    assert!(
        follower.confirmed.recv().await.is_none(),
        "the outbox ends with the session"
    );
}

#[tokio::test]
async fn chunks_are_joined_and_sent_about_four_times_a_second() {
    let (progress, mut follower) = progress(&Config::default());
    let start = Instant::now();
    let sent = async {
        for _ in 0..1000 {
            progress.note(say("ab"));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        progress.state(turn_ended()).await;
    };
    let received = async {
        let (mut text, mut count) = (String::new(), 0);
        while let EventBody::AgentMessage { text: more } = follower.next().await.1 {
            text.push_str(&more);
            count += 1;
        }
        (text, count)
    };
    let ((), (text, count)) = tokio::join!(sent, received);
    assert_eq!(text, "ab".repeat(1000));
    // One at once, then one for each quarter of a second, then the rest.
    let most = start.elapsed().as_millis() / 250 + 2;
    assert!((2..=most).contains(&count), "{count} events in {:?}", start.elapsed());
}

#[tokio::test]
async fn thoughts_and_messages_are_not_mixed_and_states_stay_between() {
    let (progress, mut follower) = progress(&Config::default());
    progress.note(EventBody::AgentThought { text: "hm".into() });
    progress.note(EventBody::AgentThought { text: "m".into() });
    progress.note(say("so"));
    progress.state(turn_ended()).await;
    progress.note(say("again"));
    progress.finish(turn_ended()).await.unwrap();
    assert!(matches!(follower.next().await.1, EventBody::AgentThought { text } if text == "hmm"));
    assert_eq!(follower.message().await, "so");
    assert!(matches!(follower.next().await.1, EventBody::TurnEnded { .. }));
    assert_eq!(follower.message().await, "again");
}

#[tokio::test]
async fn a_secret_in_pieces_is_masked_wherever_it_is_cut() {
    for cut in 1..TOKEN.len() {
        let (progress, mut follower) = progress(&Config::default());
        progress.note(say(&format!("it is {}", &TOKEN[..cut])));
        // What is known to be harmless is shown without waiting for the rest.
        assert_eq!(follower.message().await, "it is ");
        progress.note(say(&format!("{}!", &TOKEN[cut..])));
        progress.state(turn_ended()).await;
        assert_eq!(follower.message().await, format!("{MASKED}!"), "cut at {cut}");
    }
}

#[tokio::test]
async fn what_only_began_like_a_secret_is_shown_at_the_end_of_the_turn_where_it_tells_nothing() {
    for (began, shown) in [("glp", "glp"), ("glpat-0", MASKED)] {
        let (progress, mut follower) = progress(&Config::default());
        progress.note(say(&format!("my {began}")));
        assert_eq!(follower.message().await, "my ");
        progress.state(turn_ended()).await;
        assert_eq!(follower.message().await, shown);
    }
}

#[tokio::test]
async fn secrets_learned_later_are_masked_too() {
    let (progress, mut follower) = progress(&Config::default());
    progress.mask_also(&Secret::new("another-secret"));
    progress
        .state(EventBody::Warning {
            code: "x".into(),
            message: format!("{TOKEN} another-secret"),
        })
        .await;
    let (_, body) = follower.next().await;
    assert!(matches!(body, EventBody::Warning { message, .. } if message == format!("{MASKED} {MASKED}")));
}

#[tokio::test]
async fn too_much_progress_is_dropped_and_counted_while_states_wait() {
    let config = Config {
        waiting_events: 2,
        ..Config::default()
    };
    let (progress, mut follower) = progress(&config);
    follower.queue.away.send_replace(true);
    progress.state(EventBody::TurnStarted { turn: 1 }).await;
    assert_eq!(follower.tried.recv().await, Some(1));
    let noted = 1024 * 1024;
    for _ in 0..noted / 1024 {
        progress.note(say(&"x".repeat(1024)));
    }
    progress.state(turn_ended()).await;
    // There is no room for a third: whoever emits waits for the broker.
    let mut third = Box::pin(progress.state(EventBody::TurnStarted { turn: 2 }));
    assert!(futures::poll!(&mut third).is_pending());
    follower.queue.away.send_replace(false);
    third.await;

    let (mut shown, mut dropped, mut states, mut last) = (0, 0, Vec::new(), 0);
    while states.len() < 3 {
        let (seq, body) = follower.next().await;
        assert!(seq > last, "strictly increasing");
        last = seq;
        if let EventBody::AgentMessage { text } = &body {
            shown += text.len() as u64;
        } else if let EventBody::OutputDropped { bytes, .. } = &body {
            dropped += bytes;
        } else {
            states.push(body.kind());
        }
    }
    assert_eq!(states, ["turn_started", "turn_ended", "turn_started"]);
    assert!(shown > 0 && dropped > 0);
    assert_eq!(shown + dropped, noted);
}

#[tokio::test]
async fn the_end_is_reached_only_when_it_is_confirmed() {
    let (progress, mut follower) = progress(&Config::default());
    follower.queue.away.send_replace(true);
    let mut finishing = Box::pin(progress.finish(turn_ended()));
    for _ in 0..5 {
        tokio::select! {
            _ = &mut finishing => panic!("nothing was confirmed"),
            tried = follower.tried.recv() => assert_eq!(tried, Some(1), "the same event again"),
        }
    }
    follower.queue.away.send_replace(false);
    finishing.await.unwrap();
    assert_eq!(follower.next().await.0, 1);
}

#[tokio::test]
async fn the_end_gives_up_at_its_limit_and_says_why() {
    let config = Config {
        final_event_limit_s: 1,
        ..Config::default()
    };
    let (progress, follower) = progress(&config);
    follower.queue.away.send_replace(true);
    let start = Instant::now();
    let error = progress.finish(turn_ended()).await.unwrap_err();
    assert!(error.to_string().contains("the broker is away"), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn newer_plans_and_tool_calls_replace_what_was_not_sent() {
    let (progress, mut follower) = progress(&Config::default());
    let plan = |text: &str| EventBody::AgentPlan {
        entries: vec![PlanEntry {
            text: text.into(),
            status: "pending".into(),
        }],
    };
    let tool = |status: &str| EventBody::AgentTool {
        call: "1".into(),
        title: "ls".into(),
        kind: "execute".into(),
        status: status.into(),
    };
    for body in [plan("a"), plan("b"), tool("pending"), tool("completed")] {
        progress.note(body);
    }
    progress.finish(turn_ended()).await.unwrap();
    assert!(matches!(follower.next().await.1, EventBody::AgentPlan { entries } if entries[0].text == "b"));
    assert!(matches!(follower.next().await.1, EventBody::AgentTool { status, .. } if status == "completed"));
    assert!(matches!(follower.next().await.1, EventBody::TurnEnded { .. }));
}
