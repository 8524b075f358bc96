//! Prints a table for each group of figures: ours, everybody else's with the ratio, what is to be reached, and whether it is.
//!
//! usage: `cargo bench -p sandbox-benches --bench report -- [--only GROUP]… [--test] [FIGURE]…`, where each figure is named by
//! a part of its name. With `--test`, everything is done a few times only, to see that it works.

use sandbox_benches::egress::{GATEWAY, run_gateway};
use sandbox_benches::figures::{GROUPS, WATCHED, watched};
use sandbox_benches::{Result, Run, print};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, _)) if first == WATCHED => return watched(),
        Some((first, rest)) if first == GATEWAY => return run_gateway(rest),
        _ => {}
    }
    let run = Run::parse(arguments, &GROUPS.map(|(name, _)| name))?;
    for (name, group) in GROUPS {
        if run.wants_group(name) {
            let rows = group(&run)?;
            if !rows.is_empty() {
                print(name, &rows);
            }
        }
    }
    Ok(())
}
