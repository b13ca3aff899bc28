//! Every relative link of every page leads somewhere: the file is there, and so is the heading.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose pages are not ours.
const OTHERS: [&str; 4] = ["node_modules", "target", ".git", "corpus"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if !OTHERS.iter().any(|other| path.ends_with(other)) {
                pages(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// A page's text without fenced blocks and code: nothing in them is a link or a heading.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut in_block = false;
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        if !in_block && !fence {
            prose.push_str(line);
        }
        prose.push('\n');
    }
    prose
}

/// The anchors that renderers give to a page's headings: letters, digits, `_` and `-`, spaces as `-`; a second one of
/// the same text ends in `-1`.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text).lines() {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let keeps = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ');
        let anchor: String = title.trim().chars().filter(keeps).collect::<String>().to_lowercase().replace(' ', "-");
        let twice = (1..).map(|count| format!("{anchor}-{count}")).find(|next| !anchors.contains(next));
        let next = if anchors.contains(&anchor) { twice.unwrap_or_default() } else { anchor };
        anchors.insert(next);
    }
    anchors
}

/// The targets of `](…)`, `src="…"`, `srcset="…"` and `href="…"`, with their lines. Links in code are none.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (index, line) in prose(text).lines().enumerate() {
        for (begin, end) in [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"'), ("href=\"", '"')] {
            for (at, _) in line.match_indices(begin) {
                let in_code = line[..at].matches('`').count() % 2 == 1;
                let target = line[at + begin.len()..].split(end).next().unwrap_or_default();
                if !in_code {
                    links.push((index + 1, target.to_owned()));
                }
            }
        }
    }
    links
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = Vec::new();
    pages(root(), &mut found);
    let (mut count, mut broken) = (0, Vec::new());
    for page in &found {
        let text = fs::read_to_string(page).unwrap();
        for (line, link) in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let is_there = target.exists();
            let has_anchor = anchor.is_empty()
                || target.extension().is_none_or(|extension| extension != "md")
                || is_there && anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
            if !is_there || !has_anchor {
                broken.push(format!("{}:{line}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(count > 20, "{count} links in {} pages", found.len());
    assert!(broken.is_empty(), "links that lead nowhere:\n  {}", broken.join("\n  "));
}

#[test]
fn links_and_anchors_are_read() {
    let text = "# A `b.c` d_e\n\n```md\n# not\n[no](x)\n```\n[a](b.md#c) `[no](y)` <img src=\"z.svg\">\n## A\n## A\n";
    assert_eq!(anchors(text), ["a", "a-1", "a-bc-d_e"].map(str::to_owned).into());
    assert_eq!(links(text), [(7, "b.md#c".to_owned()), (7, "z.svg".to_owned())]);
}
