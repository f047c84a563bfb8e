//! The straight path as an outsider sees it: the real `cofferdam` binary, real Docker, real git, real RabbitMQ; the test forge, the scripted
//! agent and the scripted model are the only doubles. Run by `tests/run.sh`, which builds what these tests need.

mod agents;
mod bad_input;
mod broker;
mod git_inside;
mod harness;
mod main_job;
mod opencode;
mod outcomes;
mod secrets;
