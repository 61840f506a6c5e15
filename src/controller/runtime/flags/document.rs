//! Prints `docs/flags.md`, for `cargo xtask generate`.

#[expect(clippy::disallowed_methods, reason = "an example of one line; what it prints is its result")]
fn main() -> std::io::Result<()> {
    let document = albatross::controller::runtime::flags::markdown::render_markdown();
    std::io::Write::write_all(&mut std::io::stdout(), document.as_bytes())
}
