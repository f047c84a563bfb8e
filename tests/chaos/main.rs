//! What breaks around a worker, and workers that are killed: real broker, real Docker, real git, the test forge, and a proxy of faults between
//! any two of them. Run by `tests/run.sh` in its short form, and with `--full` in its long one.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails where it stands")]

mod checker;
mod engine_restart;
mod faults;
mod fleet;
#[expect(dead_code, reason = "shared with tests/path, which uses more of it")]
#[path = "../path/harness.rs"]
mod harness;
mod kill_points;
#[expect(dead_code, reason = "shared with tests/path, which uses more of it")]
#[path = "../path/kit.rs"]
mod kit;
mod proxy;
mod random;
mod record;
mod soak;
#[expect(dead_code, reason = "shared with tests/path, which uses more of it")]
#[path = "../path/standin.rs"]
mod standin;
