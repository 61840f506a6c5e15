//! Prints `docs/flags.md`, for `cargo xtask generate`.

fn main() {
    let document = albatross::controller::runtime::flags::markdown::render_markdown();
    std::io::Write::write_all(&mut std::io::stdout(), document.as_bytes()).expect("a standard output");
}
