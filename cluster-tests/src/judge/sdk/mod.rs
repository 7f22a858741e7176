//! Judges what the SDK told its users while its cluster was broken: watches, informers, and locks with their sessions.
//!
//! The measure is [`world::World`], what the store went through by its own history; [`told`] holds against it what watches
//! and informers said, [`locks`] what sessions believed.

pub mod locks;
pub mod told;
pub mod world;

#[cfg(test)]
mod tests;
