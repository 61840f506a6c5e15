//! From what the cluster says to what AWS shall have. Pure: no I/O, no clock. Building never stops at the first mistake:
//! it returns what it could build with every diagnostic.

pub mod config;
pub mod diagnostic;
mod findings;
pub mod ingress;
pub mod names;
pub mod service;
pub mod tags;

pub use config::BuildConfig;
pub use diagnostic::{Code, Diagnostic, Severity, capped};
pub use findings::Built;
