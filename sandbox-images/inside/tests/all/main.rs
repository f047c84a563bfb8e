//! Tests of the built binary, from outside: as a process with a gateway that is ours, as git's hook, and in a container.
//! They use the loopback interface and temporary directories only.

mod container;
mod files;
mod gateway;
mod hooks;
mod life;
mod processes;
mod relay;
mod repository;
mod stdio;
mod trailers;
