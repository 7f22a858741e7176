//! What servers use: from the kernel, and what they say about themselves.
//!
//! Module map: [`procfs`] reads the kernel's figures, [`page`] the servers' metrics, [`window`] takes differences.

pub(crate) mod page;
pub(crate) mod procfs;
pub(crate) mod window;
