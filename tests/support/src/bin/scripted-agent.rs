//! `scripted-agent acp` speaks the Agent Client Protocol on its standard streams; `scripted-agent plain` runs one prompt.
//! It is a test double and never part of the product.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match cofferdam_test_support::agent::run(&arguments) {
        Ok(code) => code,
        Err(failure) => {
            // Standard error may be gone already; there is nobody left to tell then.
            let _ = writeln!(std::io::stderr(), "scripted-agent: {failure:#}");
            ExitCode::FAILURE
        }
    }
}
