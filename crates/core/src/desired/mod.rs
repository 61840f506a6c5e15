//! From the cluster's objects to the desired AWS resources. Pure: no I/O, no clock. Building never stops at the first
//! mistake: it returns the stack that it could build with every diagnostic.

mod config;
mod diagnostic_sink;
pub mod sources;

pub use config::BuildConfig;
pub use diagnostic_sink::Built;
