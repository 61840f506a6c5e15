//! AWS in this process, behind the HTTP boundary of the SDK.
