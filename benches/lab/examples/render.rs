//! Writes the reports of a run that was kept as JSON:
//! `cargo run -p dash-lab --example render -- run.json folder`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use dash_lab::render;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = args.as_slice() else {
        bail!("usage: render RUN.json FOLDER");
    };
    let text = std::fs::read_to_string(from).with_context(|| format!("{from}: not read"))?;
    let run = render::read_json(&text).with_context(|| format!("{from}: no run"))?;
    let write = |name: &str, text: String| {
        let path = Path::new(to).join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: not written", path.display()))
    };
    write("report.html", render::html(&run))?;
    write("report.svg", render::summary_svg(&run))?;
    print!("{}", render::terminal(&run));
    Ok(())
}
