//! From what the cluster says to what AWS shall have. Pure: no I/O, no clock. Building never stops at the first mistake:
//! it returns what it could build with every diagnostic.

mod config;
mod diagnostic_sink;
pub mod sources;

pub use config::BuildConfig;
pub use diagnostic_sink::Built;
