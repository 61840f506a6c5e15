mod actions;
mod http2;
mod life;
mod support;
mod targets;
mod tls;
