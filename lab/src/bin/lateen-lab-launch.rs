//! `lateen-lab-launch`: enters namespaces and becomes what runs there. Started by `lateen lab`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    lateen_lab::launch::main(&arguments)
}
