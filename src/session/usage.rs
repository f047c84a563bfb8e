//! What a turn uses of its model: told as events, and a spent budget ends the turn. Counts nothing itself: the gateway's meter does.

use std::convert::Infallible;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use crate::agent::TurnReport;
use crate::gateway::model::Meter;
use crate::message::{EventBody, Reason};
use crate::progress::Progress;

/// How often the figures of a running turn are told at most.
const EVERY: Duration = Duration::from_secs(30);

/// Goes through a turn, tells what it uses, and stops it by `stop` when the budget is spent. `steered` says whether somebody else stopped it,
/// which counts more.
///
/// # Errors
/// The turn's own failure, or that the budget is spent. Then the work is kept like that of a turn that ran out of time, and not published: the
/// agent was stopped in the middle of it.
pub(super) async fn watched(
    meter: Option<&Meter>,
    progress: &Progress,
    stop: &CancellationToken,
    steered: &CancellationToken,
    turn: impl Future<Output = Result<TurnReport, Failure>>,
) -> Result<TurnReport, Failure> {
    let Some(meter) = meter else { return turn.await };
    let turned = tokio::select! {
        biased;
        turned = turn => turned,
        never = watch(meter, progress, stop) => match never {},
    };
    if meter.used().requests > 0 {
        progress.state(event(meter)).await;
    }
    if meter.is_spent() && !steered.is_cancelled() {
        let message = format!(
            "the session used its budget of {} model tokens: ask for less at a time, or for a higher limit",
            meter.budget().unwrap_or_default()
        );
        return Err(Failure::new(Reason::BudgetSpent, message));
    }
    turned
}

async fn watch(meter: &Meter, progress: &Progress, stop: &CancellationToken) -> Infallible {
    let mut told = meter.used();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = meter.spent(), if !stop.is_cancelled() => stop.cancel(),
            _ = ticks.tick() => {
                let used = meter.used();
                if used != told {
                    told = used;
                    progress.state(event(meter)).await;
                }
            }
        }
    }
}

fn event(meter: &Meter) -> EventBody {
    let used = meter.used();
    EventBody::ModelUsage {
        model: meter.model().to_owned(),
        requests: used.requests,
        request_bytes: used.request_bytes,
        answer_bytes: used.answer_bytes,
        input_tokens: used.tokens.input,
        output_tokens: used.tokens.output,
    }
}
