//! Link options of the small static file.
//!
//! A release build aborts on a panic, so the tables for unwinding the stack are never read; the
//! precompiled standard library and libc bring theirs all the same: a tenth of a static file. The
//! linker drops them. What is lost is the list of frames under RUST_BACKTRACE, which a stripped file
//! could not name anyway; the panic's message and place stay.
//!
//! Only for static Linux files of the release profile: elsewhere this script does nothing.

use std::env::var;

/// An addition to the linker's own script (GNU ld and lld know `INSERT`). The C runtime's begin and end
/// objects refer to their own pieces.
const SCRIPT: &str = "SECTIONS
{
  /DISCARD/ :
  {
    *(EXCLUDE_FILE(*crtbegin*.o *crtend*.o) .eh_frame)
    *(.eh_frame_hdr)
    *(.gcc_except_table .gcc_except_table.*)
    *(.ARM.exidx .ARM.exidx.* .ARM.extab .ARM.extab.*)
  }
}
INSERT BEFORE .init;
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let features = var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let is_static = features.split(',').any(|feature| feature == "crt-static");
    if var("CARGO_CFG_TARGET_OS")? != "linux" || var("PROFILE")? != "release" {
        return Ok(());
    }
    if !is_static {
        if var("CARGO_FEATURE_SERVER").is_err() {
            println!(
                "cargo::warning=this runner needs the C library of this machine or a newer one: \
                `ci/cross --build ARCH` makes the static file that runs anywhere"
            );
        }
        return Ok(());
    }
    let script = format!("{}/no-unwind-tables.ld", var("OUT_DIR")?);
    std::fs::write(&script, SCRIPT)?;
    for argument in ["-Wl,--no-eh-frame-hdr", "-T", &script] {
        println!("cargo::rustc-link-arg-bin=runlet={argument}");
    }
    Ok(())
}
