//! `docs/config.md` is what the code says: whoever changes a key, a default or a bound has it written anew.

use std::fs;
use std::path::Path;

#[test]
fn the_config_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.md");
    let reference = roomcast::config::reference();
    if std::env::var_os("ROOMCAST_BLESS").is_some() {
        fs::write(&path, &reference).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let line = written.lines().zip(reference.lines()).position(|(written, now)| written != now);
    assert!(
        written == reference,
        "docs/config.md differs from line {}; write it anew:\n  ROOMCAST_BLESS=1 cargo test --test config_reference",
        line.map_or(written.lines().count().min(reference.lines().count()), |line| line) + 1
    );
}
