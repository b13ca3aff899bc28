//! `docs/metrics.md` says what the code says.

use std::path::Path;

#[test]
fn the_page_of_metrics_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let expected = roomcast::ops::metrics::reference::reference();
    if std::env::var_os("ROOMCAST_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let first = page.lines().zip(expected.lines()).position(|(page, code)| page != code);
    assert!(
        page == expected,
        "docs/metrics.md is not what the code says, from line {} on; write it anew with\n    \
         ROOMCAST_BLESS=1 cargo test --test metrics_reference",
        first.map_or_else(|| page.lines().count().min(expected.lines().count()) + 1, |index| index + 1)
    );
}
