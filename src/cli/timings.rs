//! Where the milliseconds of a session went: `exec --timings`. Made from the events' own times, as any subscriber could make it.
//!
//! Pure: never looks at a clock. A clock that is set back in between costs a step its time, and never makes one negative.

use std::time::Duration;

use jiff::Timestamp;

use crate::message::event::Stage;
use crate::message::{Event, EventBody};

/// What a session's time is spent on, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// From the task's arrival to the first stage.
    Claim,
    Grant,
    Mirror,
    Sandbox,
    Clone,
    SetUp,
    /// From the stage of a turn to the moment in which the agent has its prompt.
    AgentStart,
    Turn,
    /// What the turn left is collected and staged, then published. A wait for another prompt counts here too.
    Publish,
    Cleanup,
    /// What follows the last event: the end of the claim.
    Settle,
}

impl Step {
    const ALL: [Self; 11] = [
        Self::Claim,
        Self::Grant,
        Self::Mirror,
        Self::Sandbox,
        Self::Clone,
        Self::SetUp,
        Self::AgentStart,
        Self::Turn,
        Self::Publish,
        Self::Cleanup,
        Self::Settle,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Grant => "grant",
            Self::Mirror => "mirror",
            Self::Sandbox => "sandbox",
            Self::Clone => "clone",
            Self::SetUp => "set-up",
            Self::AgentStart => "agent start",
            Self::Turn => "turn",
            Self::Publish => "staging, publish",
            Self::Cleanup => "cleanup",
            Self::Settle => "settle",
        }
    }

    /// The step that begins with this event, if one does.
    fn begun_by(body: &EventBody) -> Option<Self> {
        if let EventBody::Stage { stage } = body {
            return Some(match stage {
                Stage::Grant => Self::Grant,
                Stage::Mirror => Self::Mirror,
                Stage::Sandbox => Self::Sandbox,
                Stage::Clone => Self::Clone,
                Stage::SetUp => Self::SetUp,
                Stage::Turn => Self::AgentStart,
                Stage::Publish => Self::Publish,
                Stage::Cleanup => Self::Cleanup,
            });
        }
        if matches!(body, EventBody::TurnStarted { .. }) {
            return Some(Self::Turn);
        }
        if matches!(body, EventBody::TurnEnded { .. }) {
            return Some(Self::Publish);
        }
        let is_last = body.is_terminal() || matches!(body, EventBody::Suspended { .. });
        is_last.then_some(Self::Settle)
    }
}

/// The time of one session, as it passes.
#[derive(Debug)]
pub(super) struct Timings {
    /// In the order of their first beginning. What begins again, as with a second turn, goes on counting.
    spent: Vec<(Step, Duration)>,
    step: Step,
    since: Timestamp,
}

impl Timings {
    /// The task came in at this time.
    pub(super) fn from(begin: Timestamp) -> Self {
        Self {
            spent: Vec::new(),
            step: Step::Claim,
            since: begin,
        }
    }

    /// Counts an event. One without a time that can be read changes nothing.
    pub(super) fn event(&mut self, event: &Event) {
        if let (Some(step), Ok(at)) = (Step::begun_by(&event.data.body), event.time.parse()) {
            self.pass(at);
            self.step = step;
        }
    }

    /// The table. Everything was over at this time.
    pub(super) fn table(mut self, end: Timestamp) -> String {
        self.pass(end);
        let whole: Duration = self.spent.iter().map(|(_, spent)| *spent).sum();
        let mut table = format!("{:<18}{:>10}{:>10}\n", "step", "ms", "share");
        for step in Step::ALL {
            if let Some((_, spent)) = self.spent.iter().find(|(one, _)| *one == step) {
                table.push_str(&row(step.name(), *spent, whole));
            }
        }
        table + row("whole", whole, whole).trim_end()
    }

    /// The time until then was the current step's.
    fn pass(&mut self, until: Timestamp) {
        let more = Duration::try_from(until.duration_since(self.since)).unwrap_or_default();
        match self.spent.iter_mut().find(|(step, _)| *step == self.step) {
            Some((_, spent)) => *spent += more,
            None => self.spent.push((self.step, more)),
        }
        self.since = self.since.max(until);
    }
}

fn row(name: &str, spent: Duration, whole: Duration) -> String {
    // A session of no time at all has no shares.
    let share = if whole.is_zero() {
        0.0
    } else {
        spent.as_secs_f64() / whole.as_secs_f64() * 100.0
    };
    format!("{name:<18}{:>10.1}{share:>8.1} %\n", spent.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::SessionId;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000 + ms).unwrap()
    }

    fn table(events: Vec<(i64, EventBody)>, end: i64) -> Vec<String> {
        let session: SessionId = "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap();
        let mut timings = Timings::from(at(0));
        for (ms, body) in events {
            let mut event = Event::now("w", session, 1, 1, body);
            event.time = at(ms).to_string();
            timings.event(&event);
        }
        let text = timings.table(at(end));
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn stage(stage: Stage) -> EventBody {
        EventBody::Stage { stage }
    }

    fn ended() -> EventBody {
        EventBody::TurnEnded {
            turn: 1,
            stop_reason: "end_turn".into(),
        }
    }

    fn rejected() -> EventBody {
        EventBody::Rejected {
            code: "x".into(),
            message: "x".into(),
        }
    }

    #[test]
    fn each_step_has_a_row_and_they_add_up() {
        let events = vec![
            (1, EventBody::Claimed { worker: "w".into() }),
            (2, stage(Stage::Grant)),
            (12, stage(Stage::Mirror)),
            (32, stage(Stage::Sandbox)),
            (232, stage(Stage::Clone)),
            (252, stage(Stage::Turn)),
            (352, EventBody::TurnStarted { turn: 1 }),
            (362, ended()),
            (363, stage(Stage::Publish)),
            (462, stage(Stage::Cleanup)),
            (499, rejected()),
        ];
        let rows = [
            "step ms share",
            "claim 2.0 0.4 %",
            "grant 10.0 2.0 %",
            "mirror 20.0 4.0 %",
            "sandbox 200.0 40.0 %",
            "clone 20.0 4.0 %",
            "agent start 100.0 20.0 %",
            "turn 10.0 2.0 %",
            "staging, publish 100.0 20.0 %",
            "cleanup 37.0 7.4 %",
            "settle 1.0 0.2 %",
            "whole 500.0 100.0 %",
        ];
        assert_eq!(table(events, 500), rows);
    }

    #[test]
    fn what_comes_again_counts_again_in_its_row() {
        let turn = |ms| {
            [
                (ms, stage(Stage::Turn)),
                (ms + 5, EventBody::TurnStarted { turn: 1 }),
                (ms + 20, ended()),
            ]
        };
        let rows = table([turn(0), turn(50)].concat(), 100);
        assert_eq!(
            rows[1..],
            [
                "claim 0.0 0.0 %",
                "agent start 10.0 10.0 %",
                "turn 30.0 30.0 %",
                "staging, publish 60.0 60.0 %",
                "whole 100.0 100.0 %"
            ]
        );
    }

    #[test]
    fn what_never_began_has_no_row_and_no_time_has_no_share() {
        assert_eq!(
            table(vec![(0, rejected())], 0)[1..],
            ["claim 0.0 0.0 %", "settle 0.0 0.0 %", "whole 0.0 0.0 %"]
        );
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_negative() {
        let events = vec![(10, stage(Stage::Grant)), (4, stage(Stage::Mirror))];
        assert_eq!(
            table(events, 20)[1..],
            [
                "claim 10.0 50.0 %",
                "grant 0.0 0.0 %",
                "mirror 10.0 50.0 %",
                "whole 20.0 100.0 %"
            ]
        );
    }
}
