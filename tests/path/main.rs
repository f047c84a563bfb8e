//! The straight path as an outsider sees it: the real `cofferdam` binary, real Docker, real git, real RabbitMQ; the test forge, the scripted
//! agent and the scripted model are the only doubles. Run by `tests/run.sh`, which builds what these tests need.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it stands")]

mod add_project;
mod agents;
mod architecture;
mod attention;
mod bad_input;
mod broker;
mod cluster;
mod commands;
mod connections;
mod contract;
mod control_commands;
mod conversation;
mod devcontainer;
mod drain;
mod egress;
mod engine;
mod escape;
mod forge_tools;
mod forges;
mod git_inside;
mod git_route;
mod harness;
mod instructions;
mod interruptions;
mod kit;
mod limits;
mod mailbox;
mod main_job;
mod model_route;
mod night;
mod notify;
mod objects;
mod opencode;
mod operator;
mod outcomes;
mod paper;
mod phases;
mod pool;
mod publish_checks;
mod real_agents;
mod reconcile;
mod scopes;
mod secrets;
mod set_up;
mod standin;
mod takeover;
mod talk;
mod timings;
mod trailers;
mod walls;
