//! The operators' page: three files in the binary, and what browsers are told about them. Does not know what it shows.

use super::reply::Reply;

/// One of the page's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: &'static str,
    kind: &'static str,
    text: &'static str,
}

/// All files. The page is in two places, as an alias of the API may have taken the first one. It names everything
/// relative to its own address, so that a proxy may have it in a folder.
pub const FILES: [File; 4] = [
    File { path: "/", kind: HTML, text: INDEX },
    File { path: "/page", kind: HTML, text: INDEX },
    File { path: "/page.css", kind: "text/css; charset=utf-8", text: include_str!("page/page.css") },
    File { path: "/page.js", kind: "text/javascript; charset=utf-8", text: include_str!("page/page.js") },
];

/// Paths that no alias may have, or there is no page.
pub const RESERVED: [&str; 4] = ["/page", "/page.css", "/page.js", super::live::PATH];

const HTML: &str = "text/html; charset=utf-8";
const INDEX: &str = include_str!("page/index.html");

/// The page may load its own files and speak to its own server, and no other page may frame it. Whatever an event's
/// data brings, it is never run.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

impl File {
    /// The file at `path`.
    #[must_use]
    pub fn at(path: &str) -> Option<File> {
        FILES.into_iter().find(|file| file.path == path)
    }

    /// The answer.
    #[must_use]
    pub fn reply(self) -> Reply {
        Reply { kind: self.kind, ..Reply::text(200, self.text) }
            .with("Content-Security-Policy", POLICY)
            .with("X-Content-Type-Options", "nosniff")
            .with("Referrer-Policy", "no-referrer")
            .with("Cross-Origin-Resource-Policy", "same-origin")
            .with("Cross-Origin-Opener-Policy", "same-origin")
            .with("Cache-Control", "no-cache")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_obeys_its_own_policy() {
        let bytes: usize = FILES.iter().skip(1).map(|file| file.text.len()).sum();
        assert!(bytes < 60_000, "{bytes}");
        // The icon's name for what it is made of is no address.
        let html = INDEX.replace("http://www.w3.org/2000/svg", "").to_ascii_lowercase();
        for what in ["<style", " style=", " onclick=", " onload=", "javascript:", "http:", "https:", "<script>"] {
            assert!(!html.contains(what), "{what}");
        }
        for what in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!FILES[3].text.contains(what), "{what}: data of events would be taken for markup or program");
        }
    }
}
