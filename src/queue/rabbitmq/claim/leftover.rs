//! What lies in a mailbox whose session is over: it is read out, so that its senders can be answered, and the mailbox goes.
//!
//! Never touches a mailbox that somebody consumes. What is read here is nobody's any more: should this worker die before it answers, nobody does.

use bytes::Bytes;
use lapin::options::BasicGetOptions;

use super::super::address::Settings;
use super::super::connection::{Failure, Live, limited};
use super::super::topology;
use super::ending;
use crate::message::SessionId;

/// Messages that are read at most; a mailbox that has more was not filled by somebody who waits.
const MOST: usize = 100;

/// Takes the mailbox off its exchange, reads it out and deletes it.
pub(super) async fn take_out(settings: &Settings, live: &Live, session: SessionId) -> Result<Vec<Bytes>, Failure> {
    let names = &settings.names;
    let mailbox = names.mailbox(session);
    let mut bodies = Vec::new();
    if topology::counts(live, settings, &mailbox)
        .await?
        .is_some_and(|(consumers, waiting)| consumers == 0 && waiting > 0)
    {
        let channel = live.channel(settings).await?;
        let reading = async {
            // A queue of another kind than ours, which a stranger may have declared, is refused here, and not read.
            topology::declare_mailbox_alone(&channel, names, session).await?;
            topology::unbind_mailbox(&channel, names, session).await?;
            while bodies.len() < MOST {
                let options = BasicGetOptions { no_ack: true };
                let Some(message) = channel.basic_get(mailbox.as_str().into(), options).await? else {
                    break;
                };
                bodies.push(message.delivery.data.into());
            }
            Ok(())
        };
        match limited(settings.call_timeout, reading).await {
            Err(failure) if failure.reply_code() != Some(406) => return Err(failure),
            Ok(()) | Err(_) => {}
        }
    }
    ending::remove_unused(settings, live, session).await?;
    Ok(bodies)
}
