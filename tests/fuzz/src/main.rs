//! All fuzz targets in one program. `COFFERDAM_FUZZ` names the one that runs; `run.sh` is how it is started.
//!
//! A target is a function over bytes that an attacker chooses. It panics when a promise is broken, and says nothing otherwise.
//!
//! To add one: a function in a file under `targets/`, its line in [`TARGETS`], and a directory of small seeds under `seeds/`.

#![no_main]

use std::sync::OnceLock;

mod judge;
mod targets {
    pub mod address;
    pub mod agent;
    pub mod forge;
    pub mod git;
    pub mod message;
    pub mod proxy;
    pub mod sealed;
    pub mod text;
    pub mod tools;
    pub mod wire;
}
use targets::{address, agent, forge, git, message, proxy, sealed, text, tools, wire};

type Target = fn(&[u8]);

/// By name; `run.sh` reads the names from here.
const TARGETS: &[(&str, Target)] = &[
    ("task", message::task),
    ("control", message::control),
    ("notes", message::notes),
    ("names", message::names),
    ("branch", message::branch),
    ("address", address::pasted),
    ("clone_address", address::named),
    ("headers", address::headers),
    ("proxy", proxy::authority),
    ("greeting", proxy::greeting),
    ("sealed", sealed::opened),
    ("ref_updates", git::updates),
    ("pkt_line", git::packets),
    ("ref_list", git::shown),
    ("trailers", git::trailers),
    ("frames", wire::frames),
    ("preamble", wire::preamble),
    ("inside_control", wire::control),
    ("acp", agent::output),
    ("sections", agent::sections),
    ("mcp", tools::calls),
    ("tool_results", tools::results),
    ("forge_json", forge::answers),
    ("forge_errors", forge::errors),
    ("push_output", forge::push_output),
    ("devcontainer", git::devcontainer),
    ("neutral_text", text::neutral),
    ("change_request", text::change_request),
];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("COFFERDAM_FUZZ").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        found
            .unwrap_or_else(|| panic!("COFFERDAM_FUZZ={name:?} is no target"))
            .1
    });
    chosen(data);
});
