//! The test doubles of cofferdam: a test forge, a scripted agent, a scripted model. They stand for the outside world in tests and
//! demonstrations; they import nothing of the product, so that they can judge it, and nothing of them is part of it.

pub mod agent;
pub mod forge;
pub mod model;
