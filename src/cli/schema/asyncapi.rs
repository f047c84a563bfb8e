//! The broker's side of the contract as AsyncAPI 3: exchanges, queues, keys and messages, the messages' schemas from the types.
//!
//! Told from the worker's side, as AsyncAPI wants it: it receives tasks and control messages and sends events. Never repeats a name or an
//! argument that the worker does not use itself.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::message::{Control, Event, Task};
use crate::queue::rabbitmq::{Config, Contract};

/// The document, for the default prefix.
pub(super) fn document() -> Value {
    let contract = Contract::of(&Config::default());
    // The schemas of all three messages share one place, so that each type stands there once.
    let mut generator = SchemaSettings::draft07()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let task = generator.subschema_for::<Task>().to_value();
    let control = generator.subschema_for::<Control>().to_value();
    let event = generator.subschema_for::<Event>().to_value();
    let schemas: Map<String, Value> = generator.take_definitions(true);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "cofferdam",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Sessions of coding agents: tasks in, events out, control messages to a session's mailbox. All names begin with the configured prefix, here the default.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "127.0.0.1:5672",
                "protocol": "amqp",
                "protocolVersion": "0.9.1",
                "description": "The installation's RabbitMQ, 3.10 or later.",
            }
        },
        "channels": channels(&contract),
        "operations": operations(),
        "components": {
            "messages": {
                "task": {
                    "title": "Task",
                    "summary": "Asks for a session, or for going on with one that was suspended.",
                    "contentType": "application/json",
                    "headers": traced("The trace that the session becomes a part of, in the form of W3C Trace Context."),
                    "payload": task,
                },
                "control": {
                    "title": "Control message",
                    "summary": "To a session that runs, or whose task is on its way.",
                    "contentType": "application/json",
                    "payload": control,
                },
                "event": {
                    "title": "Event",
                    "summary": "What happened in a session: CloudEvents 1.0, structured.",
                    "contentType": "application/cloudevents+json; charset=utf-8",
                    "headers": traced("The trace that the task came with; with the worker's own span where it makes any."),
                    "payload": event,
                },
                "dead": {
                    "title": "Dead letter",
                    "summary": "A body that was no task, or a task that ended its workers, without tokens.",
                    "headers": {
                        "type": "object",
                        "properties": {
                            "cofferdam-code": {"type": "string", "description": "The reason's stable word."},
                            "cofferdam-message": {"type": "string", "description": "The reason."},
                        },
                    },
                    "payload": {},
                },
            },
            "schemas": schemas,
        },
    })
}

/// The optional header of a trace.
fn traced(description: &str) -> Value {
    let pattern = "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}";
    json!({"type": "object", "properties": {"traceparent": {"type": "string", "pattern": pattern, "description": description}}})
}

fn channels(contract: &Contract) -> Value {
    let session = json!({"description": "The session's id, a UUID."});
    json!({
        "tasks": {
            "address": contract.tasks,
            "description": "The task queue. Publish by its name on the default exchange: persistent, with confirms and mandatory.",
            "messages": {"task": {"$ref": "#/components/messages/task"}},
            "bindings": {"amqp": {
                "is": "queue",
                "queue": {"name": contract.tasks, "durable": true, "exclusive": false, "autoDelete": false},
            }},
        },
        "controls": {
            "address": "{session}",
            "description": format!(
                "The routing key on the exchange {}. Publish with mandatory: no route means that no worker has the session and none is about to.",
                contract.controls
            ),
            "parameters": {"session": session},
            "messages": {"control": {"$ref": "#/components/messages/control"}},
            "bindings": {"amqp": {
                "is": "routingKey",
                "exchange": {"name": contract.controls, "type": "direct", "durable": true, "autoDelete": false},
            }},
        },
        "mailbox": {
            "address": contract.mailbox,
            "description": format!(
                "The session's mailbox, bound to the exchange {} with the session's id. Declare and bind it before the task is sent, durable and with \
                 exactly the arguments {}; never consume it.",
                contract.controls, contract.mailbox_arguments
            ),
            "parameters": {"session": session},
            "messages": {"control": {"$ref": "#/components/messages/control"}},
            "bindings": {"amqp": {
                "is": "queue",
                "queue": {"durable": true, "exclusive": false, "autoDelete": false},
            }},
            "x-arguments": contract.mailbox_arguments,
        },
        "events": {
            "address": "session.{session}.{kind}",
            "description": format!("The routing key on the exchange {}. Bind a queue of your own, for example with session.<id>.#.", contract.events),
            "parameters": {
                "session": session,
                "kind": {"description": "The event's kind, as in its data."},
            },
            "messages": {"event": {"$ref": "#/components/messages/event"}},
            "bindings": {"amqp": {
                "is": "routingKey",
                "exchange": {"name": contract.events, "type": "topic", "durable": true, "autoDelete": false},
            }},
        },
        "dead": {
            "address": contract.dead,
            "description": "What was no task, and tasks that ended their workers; for operators.",
            "messages": {"dead": {"$ref": "#/components/messages/dead"}},
            "bindings": {"amqp": {
                "is": "queue",
                "queue": {"name": contract.dead, "durable": true, "exclusive": false, "autoDelete": false},
            }},
        },
    })
}

fn operations() -> Value {
    let operation = |action: &str, channel: &str, message: &str, summary: &str| {
        json!({
            "action": action,
            "channel": {"$ref": format!("#/channels/{channel}")},
            "messages": [{"$ref": format!("#/channels/{channel}/messages/{message}")}],
            "summary": summary,
        })
    };
    json!({
        "takeTask": operation("receive", "tasks", "task", "A worker takes a task, claims its session and acknowledges the task then, not at the session's end."),
        "obey": operation("receive", "controls", "control", "Answered by the events control_received and control_answered, which name the message's id."),
        "readMailbox": operation("receive", "mailbox", "control", "The session's owner reads what waits before anything else."),
        "tell": operation("send", "events", "event", "In order within an attempt; state events are confirmed and persistent, progress may be dropped."),
        "giveUp": operation("send", "dead", "dead", "With the reason in its headers."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All `$ref`s of a document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(target) if name == "$ref" => found.push(target.clone()),
                        Value::String(_)
                        | Value::Null
                        | Value::Bool(_)
                        | Value::Number(_)
                        | Value::Array(_)
                        | Value::Object(_) => references(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_within_the_document() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for target in found {
            let pointer = target
                .strip_prefix('#')
                .unwrap_or_else(|| panic!("{target} is not ours"));
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
    }

    #[test]
    fn names_are_those_that_the_worker_uses() {
        let document = document();
        assert_eq!(document["channels"]["tasks"]["address"], "cofferdam.tasks");
        assert_eq!(
            document["channels"]["mailbox"]["address"],
            "cofferdam.session.{session}.in"
        );
        let controls = &document["channels"]["controls"]["bindings"]["amqp"]["exchange"];
        assert_eq!(controls["name"], "cofferdam.session.in");
        assert_eq!(document["channels"]["mailbox"]["x-arguments"]["x-max-length"], 1000);
    }
}
