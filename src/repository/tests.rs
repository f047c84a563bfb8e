//! The room against real git over real HTTP.
