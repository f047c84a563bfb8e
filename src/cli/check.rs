//! `cofferdam config check`: everything that can be known without a broker, an engine or a forge.
//!
//! Only reads, by the same code as `run`: what is good here starts there.

use std::sync::Arc;

use super::compose::{Silent, resolve};
use super::{Exit, exposed, show};
use crate::config::Config;
use crate::queue::rabbitmq::RabbitMq;
use crate::sandbox::home;

/// Looks, and says what is wrong or that nothing is.
pub(super) fn check(config: &Config) -> Exit {
    let good = resolve(config, Arc::new(Silent)).map(drop);
    let good = good.and_then(|()| {
        home::read_inside(&config.sandbox)
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let good = good.and_then(|()| RabbitMq::configured(&config.queue).map_err(|error| error.to_string()));
    let recipients = good.and_then(|()| config.credentials.recipients().map_err(|error| error.to_string()));
    let recipients = match recipients {
        Ok(recipients) => recipients,
        Err(message) => {
            show::complain(&message);
            return Exit::BadConfig;
        }
    };
    for one in recipients {
        show::line(&format!("credentials can be sealed to {one}"));
    }
    for file in exposed::secret_files(config) {
        show::complain(&format!("warning: {}; {}", file.found(), file.remedy()));
    }
    show::line(&format!(
        "the configuration is good: worker {}, {} agents, {} slots",
        config.worker_name(),
        config.agents.len(),
        config.concurrency
    ));
    Exit::Success
}
